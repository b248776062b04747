"""The runs of a report: what they were trained on, and how they score."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from speechbrain_slm.evaluation.cloze.results import COMPARABLE, read_info
from speechbrain_slm.utils import schema
from speechbrain_slm.utils.hashing import difference
from speechbrain_slm.utils.schema import NUMBER, whole
from speechbrain_slm.utils.tables import markdown_row

# Tokens that belong to no language.
NO_UNITS = ("boundary", "tag", "padding")


@dataclass(frozen=True)
class Model:
    """One trained and evaluated model: a column of the table."""

    name: str
    log: list[dict]  # of train_log.jsonl
    training: dict  # of run.json
    results: dict  # of results.json
    folders: dict[str, Path]  # of stages

    @property
    def tokens(self) -> dict[str, int]:
        """Units seen in training, by language."""
        counts = self.training["tokens"]
        return {name: counts[name] for name in counts if name not in NO_UNITS}

    @property
    def preference(self) -> bool:
        """Tell whether it was trained to prefer, not to continue."""
        return "beta" in self.training.get("identity", {})

    def records(self, kind: str = "records") -> dict[tuple[str, str], dict]:
        """Return (metric, direction) -> record under the main convention."""
        return {
            (record["metric"], record["direction"]): record
            for record in self.results.get(kind, ())
            if record["scoring"] == self.results["scoring"]
        }


# What can be drawn.
_STEP = whole(0, 10**12)
_LOSS = schema.Kind(
    "a number from -1e9 to 1e9", lambda x: NUMBER.holds(x) and abs(x) <= 1e9
)
_LINE = {"step": _STEP, "loss?": _LOSS, "valid?": {str: _LOSS}}
_TRAINING = {
    "tokens": {str: whole(0, 10**18)},
    "steps": _STEP,
    "parameters": whole(0, 10**15),
    "seconds": NUMBER,
    "seconds_from_step?": _STEP,
    "identity?": schema.MAPPING,
}


def read_log(path: Path) -> list[dict]:
    """Read a training log, each line checked."""
    entries = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: expected a JSON object, found "
                f"{line[:40]!r} ({error})"
            ) from None
        schema.check_shape(entries[-1], _LINE, f"{path}, line {number}")
    return entries


def read_model(argument: str) -> Model:
    """Read what the folders of ``NAME=LM_FOLDER:CLOZE_FOLDER`` say."""
    name, _, folders = argument.partition("=")
    lm_folder, _, cloze_folder = folders.partition(":")
    if not (name and lm_folder and cloze_folder) or ":" in cloze_folder:
        raise ValueError(
            f"--runs {argument!r}: expected NAME=LM_FOLDER:CLOZE_FOLDER"
        )
    results = read_info(cloze_folder)
    log, run = (Path(lm_folder) / f for f in ("train_log.jsonl", "run.json"))
    for path in (log, run):
        if not path.is_file():
            raise ValueError(
                f"{path} does not exist; run the LM recipe to the end first"
            )
    training = schema.read_shaped(run, _TRAINING)
    folders = {"LM": Path(lm_folder), "cloze": Path(cloze_folder)}
    model = Model(name, read_log(log), training, results, folders)
    if not model.records():
        raise ValueError(
            f"{cloze_folder} has no record of the scoring "
            f"'{results['scoring']}' of its results.json; evaluate again"
        )
    return model


def check_comparable(models: list[Model]) -> None:
    """Refuse models that were not scored alike."""
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f"--runs: a name stands twice in {', '.join(names)}")
    expected, *found = (
        {key: model.results[key] for key in COMPARABLE} for model in models
    )
    for name, other in zip(names[1:], found, strict=True):
        lines = difference(expected, other)
        if lines:
            raise ValueError(
                f"runs '{names[0]}' and '{name}' were not scored alike "
                f"({'; '.join(lines)}); evaluate both on the same units and "
                "items"
            )


def table_rows(models: list[Model]) -> list[tuple[str, str, dict]]:
    """Order the rows: (metric, direction, {name: record}), the mean last."""
    rows: dict[tuple, dict] = {}
    for model in models:
        for kind in ("records", "cross_lingual"):
            for key, record in model.records(kind).items():
                rows.setdefault(key, {})[model.name] = record
    # Stable: within a metric, directions stay in their order.
    place = list(dict.fromkeys(metric for metric, _ in rows)).index
    return [
        (metric, direction.replace("cross_lingual", "cross-lingual"), found)
        for (metric, direction), found in sorted(
            rows.items(), key=lambda row: place(row[0][0])
        )
    ]


def span_of(numbers: Iterable[int]) -> str:
    """Write what runs count, which may not be the same for all.

    >>> span_of([200, 200]), span_of([200, 198])
    ('200', '198 to 200')
    """
    found = sorted({*numbers})
    return " to ".join(map(str, (found[0], found[-1])[: len(found)]))


def markdown(models: list[Model]) -> str:
    """Lay out accuracies and intervals, in percent."""
    names = [model.name for model in models]
    lines = [
        markdown_row(["metric", "direction", "n", *names]),
        f"| --- | --- | ---: |{' --- |' * len(names)}",
    ]
    for metric, direction, found in table_rows(models):
        cell = "{accuracy:.1f} [{ci_low:.1f}, {ci_high:.1f}]".format_map
        cells = [cell(found[name]) if name in found else "" for name in names]
        n = span_of(one["n"] for one in found.values())
        lines.append(markdown_row([metric, direction, n, *cells]))
    return "\n".join(lines)
