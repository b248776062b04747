"""What a recipe's ``sources`` and ``stages`` may be, and their stores."""

import math

SOURCE_KEYS = (
    "languages",
    "switch_probability",
    "span",
    "shuffle_alignment",
    "units_folder",
)
STAGE_KEYS = {"tokens", "mixture"}


def check_sources(sources, language_tags=()):
    """Refuse sources that cannot be made.

    Arguments
    ---------
    sources : dict
        Name -> settings.
    language_tags : sequence of str
        Languages that have a tag; none, or all that the sources name.

    Raises
    ------
    ValueError
        Names the source and the key.
    """
    for name, settings in sources.items():
        unknown = set(settings) - set(SOURCE_KEYS)
        if unknown or "languages" not in settings:
            raise ValueError(
                f"Source '{name}' has the keys {sorted(settings)}; expected "
                f"languages, and of {sorted(SOURCE_KEYS)} what is needed"
            )
        untagged = set(settings["languages"]) - set(language_tags)
        if language_tags and untagged:
            raise ValueError(
                f"Source '{name}' has {', '.join(sorted(untagged))}, for which "
                f"language_tags {list(language_tags)} has no tag; add it, or "
                "set language_tags to []"
            )
    if len(set(language_tags)) != len(language_tags):
        raise ValueError(f"language_tags names one twice: {language_tags}")


def check_stages(stages, sources):
    """Refuse stages that cannot be laid out.

    Arguments
    ---------
    stages : list of dict
        ``{tokens: N, mixture: {source: weight}}``.
    sources : dict
        Name -> settings.

    Returns
    -------
    list of str
        The sources that they use, sorted.

    Raises
    ------
    ValueError
        Names the stage.

    Example
    -------
    >>> check_stages([{"tokens": 9, "mixture": {"en": 1, "fr": 0}}],
    ...              {"en": {}, "fr": {}})
    ['en']
    """
    if not stages:
        raise ValueError("'stages' is empty; expected at least one stage")
    used = set()
    for number, stage in enumerate(stages):
        where = f"Stage {number + 1} of {len(stages)}"
        if set(stage) != STAGE_KEYS:
            raise ValueError(
                f"{where} has the keys {sorted(stage)}; expected "
                f"{sorted(STAGE_KEYS)}"
            )
        tokens, mixture = stage["tokens"], stage["mixture"]
        if not isinstance(tokens, int | float) or not 0 < tokens < math.inf:
            raise ValueError(
                f"{where} has {tokens!r} tokens; expected a number > 0"
            )
        unknown = [name for name in mixture if name not in sources]
        if unknown:
            raise ValueError(
                f"{where}: its mixture names {', '.join(unknown)}; 'sources' "
                f"defines {', '.join(sources)}"
            )
        negative = [name for name, weight in mixture.items() if weight < 0]
        positive = [name for name, weight in mixture.items() if weight > 0]
        if negative or not positive:
            raise ValueError(
                f"{where}: its mixture is {mixture}; expected weights >= 0, "
                "one of them > 0"
            )
        used.update(positive)
    return sorted(used)


def check_tokenizers(stores, expected):
    """Refuse stores whose units come from different tokenizers.

    Arguments
    ---------
    stores : dict
        Name -> :class:`speechbrain_slm.dataio.reader.UnitStore`.
    expected : speechbrain_slm.dataio.reader.UnitStore
        Whose tokenizer all must have.

    Raises
    ------
    ValueError
        Names both folders.
    """
    for store in stores.values():
        if store.identity != expected.identity:
            raise ValueError(
                f"{store.folder} holds units of tokenizer "
                f"{store.identity[:12]}, {expected.folder} of "
                f"{expected.identity[:12]}; expected one tokenizer. Extract "
                "the units of both with the same one."
            )


def described(settings):
    """Say what a source is, for comparing runs.

    Arguments
    ---------
    settings : dict
        Those of a source.

    Returns
    -------
    dict
        Without where its units stand, since their store has an identity.

    Example
    -------
    >>> described({"languages": ["en"], "units_folder": "results/units"})
    {'languages': ['en']}
    """
    return {
        key: {str(k): v for k, v in value.items()}
        if isinstance(value, dict)
        else value
        for key, value in settings.items()
        if key != "units_folder"
    }
