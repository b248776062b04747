"""Small results: what was found of each trained model, and their reader.

A folder ``results/<set of units>`` holds a file ``<run>-<seed>.json`` a model
(``<run>-<seed>-<step>.json`` of a snapshot), in ``SHAPE``.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from results_credits import GROUPS_JSON, read_groups, unpack

from speechbrain_slm.evaluation.cloze.comparison import over_seeds
from speechbrain_slm.evaluation.inputs import read_report
from speechbrain_slm.evaluation.statistics import wilson_interval
from speechbrain_slm.utils.schema import (
    COUNT,
    NUMBER,
    PERCENT,
    TEXT,
    Kind,
    whole,
)

FORMAT = "speechbrain_slm.small_results"
VERSION = 1
BOOTSTRAP_SEED = 1986
# Accuracies are written with so many digits less than credits give.
ROUNDING = 0.02

MEASURES = ("cosine", "margin", "p1_forward", "p1_backward")
ENDS = ("", "_low", "_high")  # of a value, and of its 95 % interval
_CLOZE = {
    **dict.fromkeys(("metric", "direction", "scoring"), TEXT),
    **{"n": whole(1), "items?": whole(1), "accuracy": PERCENT},
}
_SUM = Kind("a number of 0 or more", lambda x: NUMBER.holds(x) and x >= 0)
_STEP = Kind("null or a step", lambda x: x is None or whole(0).holds(x))
SHAPE = {
    **{"set": TEXT, "run": TEXT, "seed": COUNT, "step": _STEP},
    # What the run belongs to: main, control, curve, scaling or baseline.
    "kind?": TEXT,
    **{"tokens": COUNT, "tokens_by_language": {str: COUNT}},
    **{"parameters": COUNT, "seconds": NUMBER, "device": TEXT},
    **{"commit": TEXT, "versions": {str: TEXT}},
    "cloze": [_CLOZE],  # all conventions, cross_lingual, too
    "subsets": [{**_CLOZE, "subset": TEXT}],
    # convention -> "<metric> <direction>" -> one a group
    "credit_sums": {str: {str: [_SUM]}},
    "groups": {str: TEXT},  # metric -> identity of its groups
    "alignment": [
        {
            **{"layer": COUNT, "voice": TEXT, "pooling": TEXT},
            **{f"{m}{e}": NUMBER for m in MEASURES for e in ENDS},
        }
    ],
}


# A column that no file has: the mean of the directions of one language.
MONOLINGUAL = "monolingual"
_MEANS = {MONOLINGUAL: ("en", "fr")}


@dataclass(frozen=True)
class Cell:
    """What the seeds of one run score on one metric in one direction."""

    seeds: int
    n: int  # groups
    accuracy: float  # percent, as all here
    deviation: float | None  # sample deviation over seeds
    # The ends of the 95 % interval over groups: a bootstrap's, or Wilson's
    # where the files have no credits, which is the wider one.
    low: float
    high: float
    credits: np.ndarray | None = None  # [N], a mean over seeds

    def apart(self, other: "Cell") -> bool:
        """Tell whether the intervals of two cells are disjoint."""
        return self.low > other.high or self.high < other.low


class Results:
    """All small results of a folder.

    ``expected``: (set of units, kind) -> runs that belong to the experiment.
    """

    def __init__(
        self, folder: str | Path, expected: dict[tuple[str, str], list[str]]
    ) -> None:
        self.folder, self.expected = Path(folder), expected
        self._models: dict[tuple, list[dict]] = {}
        self._cells: dict[tuple, Cell | None] = {}
        groups: dict[Path, dict] = {}
        for path in sorted(self.folder.glob("*/*.json")):
            if path.name == GROUPS_JSON:
                continue
            model = read_report(path, FORMAT, VERSION, SHAPE, "mini experiment")
            if path.parent not in groups:
                groups[path.parent] = read_groups(path.parent)
            model["credits"] = unpack(path, model, groups[path.parent])
            _check(path, model)
            key = model["set"], model["run"], model["step"]
            self._models.setdefault(key, []).append(model)
        for key, models in self._models.items():
            models.sort(key=lambda model: model["seed"])
            seeds = [model["seed"] for model in models]
            if len(set(seeds)) < len(seeds):
                raise ValueError(
                    f"{self.folder}: two files are of seed {seeds} of {key}; "
                    "remove one of them"
                )

    @property
    def sets(self) -> list[str]:
        """List the sets of units."""
        return sorted({key[0] for key in self._models})

    def runs(self, units: str, kind: str | None = None) -> list[str]:
        """List the runs of a set, of one kind."""
        return sorted(
            {
                run
                for (found, run, step), models in self._models.items()
                if found == units
                and step is None
                and kind in (None, models[0].get("kind", "main"))
            }
        )

    def steps(self, units: str, run: str) -> list[int]:
        """List the steps whose snapshots were evaluated."""
        keys = (key for key in self._models if key[:2] == (units, run))
        return sorted(step for *_, step in keys if step is not None)

    def models(
        self,
        units: str,
        run: str,
        step: int | None = None,
        seeds: Collection[int] | None = None,
    ) -> list[dict]:
        """Return what the files of a run say, a seed each; maybe nothing."""
        found = self._models.get((units, run, step), [])
        return [one for one in found if seeds is None or one["seed"] in seeds]

    def seeds(
        self, units: str, run: str, step: int | None = None
    ) -> frozenset[int]:
        """Return the seeds of a run."""
        return frozenset(m["seed"] for m in self.models(units, run, step))

    def cell(
        self,
        units: str,
        run: str,
        metric: str,
        direction: str,
        scoring: str,
        step: int | None = None,
        seeds: frozenset[int] | None = None,
    ) -> Cell | None:
        """Return what a run's seeds score together; None if nobody knows.

        ``seeds``: those alone.
        """
        key = units, run, metric, direction, scoring, step, seeds
        if key not in self._cells:
            models = self.models(units, run, step, seeds)
            self._cells[key] = _cell(models, metric, direction, scoring)
        return self._cells[key]

    def scoring(self, units: str, run: str, wanted: str) -> str:
        """Return the convention of a run: the only one that it has, if so.

        Bags of units know no likelihoods, but how alike two of them are.
        """
        models = self.models(units, run)[:1]
        found = {one["scoring"] for m in models for one in m["cloze"]}
        return found.pop() if len(found) == 1 else wanted


def deviation(values: list[float]) -> float | None:
    """Return the sample deviation; None of one value."""
    return stdev(values) if len(values) > 1 else None


def accuracy_record(
    model: dict, metric: str, direction: str, scoring: str, subset: str = ""
) -> dict | None:
    """Find the record of a model's file."""
    wanted = metric, direction, scoring
    for one in model["subsets" if subset else "cloze"]:
        found = one["metric"], one["direction"], one["scoring"]
        if found == wanted and one.get("subset", "") == subset:
            return one
    return None


def _cell(models, metric, direction, scoring):
    found = []
    for model in models:
        parts = [
            _scored(model, metric, one, scoring)
            for one in _MEANS.get(direction, (direction,))
        ]
        if all(parts):
            found.append([*zip(*parts, strict=True)])
    if not found:
        return None
    values = [fmean(accuracies) for accuracies, *_ in found]
    n = found[0][1][0]
    if any(one is None for *_, credits in found for one in credits):
        mean = fmean(values)
        ends = wilson_interval(mean / 100 * n, n)
        low, high = (100 * end for end in ends)
        return Cell(len(values), n, mean, deviation(values), low, high)
    credits = [np.mean(one, axis=0) for *_, one in found]
    mean, record = over_seeds(credits, BOOTSTRAP_SEED)
    names = "seeds", "n", "accuracy", "deviation"
    names += "bootstrap_low", "bootstrap_high"
    return Cell(*(record[name] for name in names), mean)


def _scored(model, metric, direction, scoring):
    """Return accuracy, number of groups and their credits, or None."""
    record = accuracy_record(model, metric, direction, scoring)
    if record is None:
        return None
    credits = model["credits"].get(scoring, {}).get(f"{metric} {direction}")
    return record["accuracy"], record["n"], credits


def _check(path, model):
    """Refuse a file that contradicts its name or itself."""
    step = model["step"]
    name = f"{model['run']}-{model['seed']}"
    name += "" if step is None else f"-{step}"
    if (path.parent.name, path.stem) != (model["set"], name):
        raise ValueError(
            f"{path} says that it is {model['set']}/{name}.json; give it that "
            "name"
        )
    for scoring, cells in model["credits"].items():
        for cell, credits in cells.items():
            record = accuracy_record(model, *cell.split(" "), scoring)
            mean = 100 * fmean(credits) if credits else None
            said = record and record["accuracy"]
            if None in (mean, said) or abs(mean - said) > ROUNDING:
                raise ValueError(
                    f"{path}: credits of '{scoring}', '{cell}' have the mean "
                    f"{mean}, its accuracy is {said}; write the file anew"
                )
