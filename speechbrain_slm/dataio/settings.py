"""What a recipe's ``sources`` and ``stages`` may be, and their stores."""

from collections.abc import Sequence

from speechbrain_slm.utils.numbers import check_number

SOURCE_KEYS = (
    "languages",
    "switch_probability",
    "span",
    "shuffle_alignment",
    "units_folder",
)
BUDGETS = ("tokens", "steps")


class Sources(dict):
    """A recipe's ``sources``, checked when its YAML file is read.

    Arguments
    ---------
    **sources : Name -> settings; see :func:`check_sources`.

    Example
    -------
    >>> Sources(en={"languages": ["en"], "spam": 2})
    Traceback (most recent call last):
    ...
    ValueError: Source 'en' has the keys ['languages', 'spam']; expected ...
    """

    def __init__(self, **sources: dict) -> None:
        super().__init__(sources)
        check_sources(self)


def check_sources(sources: dict, language_tags: Sequence[str] = ()) -> None:
    """Refuse sources that cannot be made.

    Arguments
    ---------
    language_tags
        Languages that have a tag; none, or all that the sources name.

    Raises
    ------
    ValueError
        Names the source and the key.
    """
    _check_list("language_tags", language_tags)
    for name, settings in sources.items():
        if not isinstance(settings, dict):
            raise ValueError(
                f"Source '{name}' is {settings!r}; expected a mapping such as "
                "{languages: [en]}"
            )
        unknown = set(settings) - set(SOURCE_KEYS)
        if unknown or "languages" not in settings:
            raise ValueError(
                f"Source '{name}' has the keys {sorted(settings)}; expected "
                f"languages, and of {sorted(SOURCE_KEYS)} what is needed"
            )
        _check_list(f"Source '{name}': languages", settings["languages"])
        shuffled = settings.get("shuffle_alignment", False)
        if not isinstance(shuffled, bool):
            raise ValueError(
                f"Source '{name}': shuffle_alignment is {shuffled!r}; "
                "expected True or False"
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


def _check_list(name, value):
    # Text would be read letter by letter.
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} is {value!r}; expected a list, [...]")


def check_stages(stages: list[dict], sources: dict) -> list[str]:
    """Refuse stages that cannot be laid out.

    Arguments
    ---------
    stages
        ``{tokens: N, mixture: {source: weight}}``, or ``steps`` in place of
        ``tokens``.

    Returns
    -------
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
    _check_list("stages", stages)
    if not stages:
        raise ValueError("'stages' is empty; expected at least one stage")
    used = set()
    for number, stage in enumerate(stages):
        where = f"Stage {number + 1} of {len(stages)}"
        if not isinstance(stage, dict):
            raise ValueError(
                f"{where} is {stage!r}; expected a mapping such as "
                "{tokens: 1000000, mixture: {en: 1}}"
            )
        if set(stage) not in [{budget, "mixture"} for budget in BUDGETS]:
            raise ValueError(
                f"{where} has the keys {sorted(stage)}; expected mixture, and "
                f"either {' or '.join(BUDGETS)}"
            )
        mixture = stage["mixture"]
        if not isinstance(mixture, dict):
            raise ValueError(
                f"{where}: mixture is {mixture!r}; expected source: weight"
            )
        if "steps" in stage:
            check_number(
                f"{where}: steps", stage["steps"], at_least=1, whole=True
            )
        else:
            check_number(f"{where}: tokens", stage["tokens"], above=0)
        unknown = [name for name in mixture if name not in sources]
        if unknown:
            raise ValueError(
                f"{where}: its mixture names {', '.join(unknown)}; 'sources' "
                f"defines {', '.join(sources)}"
            )
        for name, weight in mixture.items():
            check_number(f"{where}: the weight of '{name}'", weight, at_least=0)
        check_number(
            f"{where}: the sum of its weights",
            sum(mixture.values()),
            above=0,
        )
        used.update(name for name, weight in mixture.items() if weight > 0)
    return sorted(used)


def stages_of_run(runs: dict[str, list], run: str) -> list:
    """Pick the stages of a run; YAML files call it.

    Raises
    ------
    ValueError
        If there is no such run; it names those that there are.
    """
    if run not in runs:
        raise ValueError(
            f"run is {run!r}; expected one of runs: {', '.join(map(str, runs))}"
        )
    return runs[run]


def check_tokenizers(stores: dict, expected) -> None:
    """Refuse stores whose units come from different tokenizers.

    Arguments
    ---------
    stores : Name -> :class:`speechbrain_slm.dataio.reader.UnitStore`.
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


def described(settings: dict) -> dict:
    """Say what a source is, for comparing runs.

    Returns
    -------
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
