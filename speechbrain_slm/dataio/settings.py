"""What a recipe's ``sources`` and ``stages`` may be, and their stores."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from speechbrain_slm.utils.numbers import check_number

if TYPE_CHECKING:
    from speechbrain_slm.dataio.reader import UnitStore

SOURCE_KEYS = {
    *("languages", "switch_probability", "span", "shuffle_alignment"),
    *("aligned_share", "units_folder"),
}
BUDGETS = ("tokens", "steps")
_LIST = ((list, tuple), "a list, [...]")  # text would be read letter by letter


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


def _check(name: str, value: object, kind: Any, expected: str) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {value!r}; expected {expected}")


def check_sources(sources: dict, language_tags: Sequence[str] = ()) -> None:
    """Refuse sources that cannot be made; the error names the source.

    ``language_tags`` are none, or those of all languages that sources name.
    """
    _check("language_tags", language_tags, *_LIST)
    if len(set(language_tags)) != len(language_tags):
        raise ValueError(f"language_tags names one twice: {language_tags}")
    for name, settings in sources.items():
        where = f"Source '{name}'"
        _check(where, settings, dict, "a mapping such as {languages: [en]}")
        if "languages" not in settings or set(settings) - SOURCE_KEYS:
            raise ValueError(
                f"{where} has the keys {sorted(settings)}; expected "
                f"languages, and of {sorted(SOURCE_KEYS)} what is needed"
            )
        languages = settings["languages"]
        _check(f"{where}: languages", languages, *_LIST)
        shuffled = settings.get("shuffle_alignment", False)
        _check(f"{where}: shuffle_alignment", shuffled, bool, "True or False")
        untagged = set(languages) - set(language_tags)
        if language_tags and untagged:
            raise ValueError(
                f"{where} has {', '.join(sorted(untagged))}, for which "
                f"language_tags {list(language_tags)} has no tag; add it, or "
                "set language_tags to []"
            )


def check_stages(stages: list[dict], sources: Collection[str]) -> list[str]:
    """Refuse stages that cannot be laid out; return the sources they use.

    ValueError names the stage. One is ``{tokens: N, mixture: {source:
    weight}}``, or has ``steps`` in place of ``tokens``.

    Example
    -------
    >>> check_stages([{"tokens": 9, "mixture": {"en": 1, "fr": 0}}],
    ...              {"en": {}, "fr": {}})
    ['en']
    """
    _check("stages", stages, *_LIST)
    if not stages:
        raise ValueError("'stages' is empty; expected at least one stage")
    used: set[str] = set()
    for number, stage in enumerate(stages, 1):
        where = f"Stage {number} of {len(stages)}"
        mixture = _check_stage(where, stage)
        if unknown := [name for name in mixture if name not in sources]:
            raise ValueError(
                f"{where}: its mixture names {', '.join(unknown)}; 'sources' "
                f"defines {', '.join(sources)}"
            )
        used.update(name for name, weight in mixture.items() if weight > 0)
    return sorted(used)


def _check_stage(where: str, stage: dict) -> dict[str, float]:
    """Refuse a stage that is none; return its mixture."""
    example = "a mapping such as {tokens: 1000000, mixture: {en: 1}}"
    _check(where, stage, dict, example)
    if set(stage) not in [{budget, "mixture"} for budget in BUDGETS]:
        raise ValueError(
            f"{where} has the keys {sorted(stage)}; expected mixture, and "
            f"either {' or '.join(BUDGETS)}"
        )
    mixture = stage["mixture"]
    _check(f"{where}: mixture", mixture, dict, "source: weight")
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
    """Pick the stages of a run; YAML files call it."""
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
    """
    found = {k: v for k, v in settings.items() if k != "units_folder"}
    if found.get("aligned_share") == 1:
        del found["aligned_share"]  # as if it were not named
    for key, value in found.items():
        if isinstance(value, dict):  # a curriculum
            found[key] = {str(tokens): v for tokens, v in value.items()}
    return found
