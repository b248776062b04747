"""What a recipe's ``sources`` and ``stages`` may be, and their stores."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from speechbrain_slm.utils.numbers import check_number

if TYPE_CHECKING:
    from speechbrain_slm.dataio.reader import UnitStore

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
    """Refuse sources that cannot be made; the error names the source.

    Arguments
    ---------
    language_tags
        Languages that have a tag; none, or all that the sources name.
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


def _check_list(name: str, value: object) -> None:
    # Text would be read letter by letter.
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} is {value!r}; expected a list, [...]")


def check_stages(stages: list[dict], sources: Collection[str]) -> list[str]:
    """Refuse stages that cannot be laid out; return the sources they use.

    Arguments
    ---------
    stages
        ``{tokens: N, mixture: {source: weight}}``, or ``steps`` in place of
        ``tokens``.

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
    used: set[str] = set()
    for number, stage in enumerate(stages, 1):
        mixture = _check_stage(f"Stage {number} of {len(stages)}", stage)
        unknown = [name for name in mixture if name not in sources]
        if unknown:
            raise ValueError(
                f"Stage {number} of {len(stages)}: its mixture names "
                f"{', '.join(unknown)}; 'sources' defines {', '.join(sources)}"
            )
        used.update(name for name, weight in mixture.items() if weight > 0)
    return sorted(used)


def _check_stage(where: str, stage: dict) -> dict[str, float]:
    """Refuse a stage that is none; return its mixture."""
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
        check_number(f"{where}: steps", stage["steps"], at_least=1, whole=True)
    else:
        check_number(f"{where}: tokens", stage["tokens"], above=0)
    for name, weight in mixture.items():
        check_number(f"{where}: the weight of '{name}'", weight, at_least=0)
    total = sum(mixture.values())
    check_number(f"{where}: the sum of its weights", total, above=0)
    return mixture


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


def check_tokenizers(
    stores: dict[str, "UnitStore"], expected: "UnitStore"
) -> None:
    """Refuse stores whose units come from another tokenizer than expected."""
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

    Not where its units stand, since their store has an identity.

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
