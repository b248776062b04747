"""Compare evaluated runs, item by item.

A run is what one or several evaluations found of a model, or of several that
differ in their seed. Runs are compared on the same items, in the same units,
under the same convention, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import stdev

import numpy as np

from speechbrain_slm.evaluation.cloze.accuracy import (
    CROSS_LINGUAL,
    accuracy_of,
    conventions_of,
    group_credits,
)
from speechbrain_slm.evaluation.cloze.results import (
    COMPARABLE,
    SCORES,
    read_results,
)
from speechbrain_slm.evaluation.statistics import (
    holm,
    mcnemar,
    paired_bootstrap,
)
from speechbrain_slm.utils.hashing import difference

# The order of the paper's columns; other benchmarks follow by name.
FIRST = ("sSC", "sTC")


@dataclass(frozen=True)
class Run:
    """A row of a table.

    Arguments
    ---------
    name : str
        What the table calls it.
    seeds : list of dict
        One a model trained: metric -> its :class:`Results`.
    """

    name: str
    seeds: list


def read_run(argument: str) -> Run:
    """Read a run from the command line.

    Arguments
    ---------
    argument
        ``NAME=DIR[+DIR...][,DIR[+DIR...]...]``: a plus joins folders with
        different benchmarks of one model, a comma separates models that
        differ in their seed.

    Returns
    -------
    What the folders hold.

    Raises
    ------
    FileNotFoundError, ValueError
        If the argument or a folder is not as it should be, a benchmark
        stands in two joined folders, joined folders are of different models,
        or two seeds are of the same model or of different benchmarks.
    """
    name, _, folders = argument.partition("=")
    seeds = [seed.split("+") for seed in folders.split(",")]
    if not name or not all(folder for seed in seeds for folder in seed):
        raise ValueError(
            f"{argument!r}: expected NAME=DIR, with DIR+DIR for further "
            "benchmarks of one model and DIR,DIR for further seeds"
        )
    run = Run(name, [_join(name, seed) for seed in seeds])
    models = {}
    for seed in run.seeds:
        results = next(iter(seed.values()))
        other = models.setdefault(_model(results), results)
        if other is not results:
            raise ValueError(
                f"run '{name}': {other.folder} and {results.folder} are of "
                "the same model; expected models that differ in their seed"
            )
        if seed.keys() != run.seeds[0].keys():
            raise ValueError(
                f"run '{name}': {results.folder} holds "
                f"{', '.join(sorted(seed))}, the first seed "
                f"{', '.join(sorted(run.seeds[0]))}; evaluate all seeds on "
                "the same benchmarks"
            )
    return run


def _model(results):
    """Name a model: its weights, and what decides its scores beside them."""
    return results.info["model"], results.info.get("configuration")


def _join(name, folders):
    joined, first = {}, None
    for folder in folders:
        results = read_results(folder)
        first = first or results
        if _model(results) != _model(first):
            raise ValueError(
                f"run '{name}': {first.folder} and {results.folder} are of "
                "different models; DIR+DIR joins benchmarks of one model "
                "(seeds are separated by commas)"
            )
        for metric in dict.fromkeys(metric for metric, _ in results.cells):
            other = joined.setdefault(metric, results)
            if other is not results:
                raise ValueError(
                    f"run '{name}': {other.folder} and {results.folder} both "
                    f"hold {metric}; a benchmark may stand in one of them"
                )
    return joined


def check_comparable(runs: list[Run], scoring: str | None = None) -> None:
    """Refuse runs that were not scored alike on the same items.

    Arguments
    ---------
    scoring
        The convention to be compared; by default the one that each
        ``results.json`` names, which then has to be the same.

    Raises
    ------
    ValueError
        If two have one name, or a benchmark that both have differs in what
        ``COMPARABLE`` names or in its items.
    """
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"a name stands twice in {', '.join(names)}")
    keys = [key for key in COMPARABLE if key != "scoring" or not scoring]
    firsts = {}
    for run in runs:
        for metric, results in (
            pair for seed in run.seeds for pair in seed.items()
        ):
            first = firsts.setdefault(metric, results)
            expected, found = (
                {key: one.info[key] for key in keys} for one in (first, results)
            )
            lines = difference(expected, found)
            if not lines and _items(first, metric) != _items(results, metric):
                lines = ["the rows of scores.parquet name other items"]
            if lines:
                raise ValueError(
                    f"{metric} of {first.folder} and of {results.folder} "
                    f"cannot be compared ({'; '.join(lines)}); evaluate both "
                    "on the same units and items by the same convention"
                )
            known = conventions_of(next(iter(results.cells.values())))
            if scoring and scoring not in known:
                raise ValueError(
                    f"{results.folder} has no scores of '{scoring}'; "
                    f"expected one of {', '.join(known)}"
                )


def _items(results, metric):
    return {
        key: cell.select(SCORES.names)
        for key, cell in results.cells.items()
        if key[0] == metric
    }


def _columns(seed):
    """Order the columns as the paper does."""
    cells = {key for results in seed.values() for key in results.cells}
    crosses = [metric for metric, direction in cells if ">" in direction]

    def place(key):
        metric, direction = key
        kind = (">" in direction) + 2 * (direction == CROSS_LINGUAL)
        return metric not in FIRST, kind, metric, direction

    # The mean of one direction is that direction.
    return sorted(
        (k for k in cells if k[1] != CROSS_LINGUAL or crosses.count(k[0]) > 1),
        key=place,
    )


def compare(
    runs: list[Run],
    baseline: str | None = None,
    scoring: str | None = None,
    seed: int = 1986,
):
    """Give every run its accuracies and its differences to one of them.

    The seeds of a run are averaged item by item first. So intervals and
    tests say what other items would change, not what other seeds would;
    ``deviation`` says the latter.

    Arguments
    ---------
    baseline
        The name of the run that the others are compared with; by default
        the first.
    scoring : See :func:`check_comparable`.

    Returns
    -------
    accuracies : list of dict
        One a run, metric and direction, in the order of a table: ``run``,
        ``metric``, ``direction``, ``scoring``, ``n``, ``seeds``, what
        :func:`accuracy_of` returns, and ``deviation`` (the sample deviation
        of the seeds' accuracies; None where there is one seed).
    differences : list of dict
        One a run but the baseline, metric and direction that both have:
        ``difference`` and its paired bootstrap ``bootstrap_low``,
        ``bootstrap_high`` (95 %; percentage points) and ``bootstrap_p``;
        ``better``, ``worse`` (groups) and ``mcnemar_p``; ``holm_p``, which
        is ``mcnemar_p`` adjusted for all tests in the list.

    Raises
    ------
    ValueError
        If there is no such baseline, or the runs are not comparable.
    """
    check_comparable(runs, scoring)
    names = [run.name for run in runs]
    if baseline is not None and baseline not in names:
        raise ValueError(
            f"baseline '{baseline}' is no run; expected one of "
            f"{', '.join(names)}"
        )
    base = runs[names.index(baseline) if baseline is not None else 0]
    credits = {run.name: _credits(run, scoring) for run in runs}
    accuracies, differences = [], []
    for run in runs:
        for key, (convention, found) in credits[run.name].items():
            mean = found.mean(axis=0).round(12)
            record = {
                "run": run.name,
                "metric": key[0],
                "direction": key[1],
                "scoring": convention,
                "n": len(mean),
            }
            by_seed = (100 * found.mean(axis=1)).tolist()
            accuracies.append(
                {
                    **record,
                    "seeds": len(found),
                    **accuracy_of(mean, seed),
                    "deviation": stdev(by_seed) if len(found) > 1 else None,
                }
            )
            if run is not base and key in credits[base.name]:
                other = credits[base.name][key][1].mean(axis=0).round(12)
                tests = _tests(mean, other, seed)
                differences.append({**record, "baseline": base.name, **tests})
    adjusted = holm([record["mcnemar_p"] for record in differences])
    for record, p in zip(differences, adjusted, strict=True):
        record["holm_p"] = p
    return accuracies, differences


def _credits(run, scoring):
    """(metric, direction) -> its convention, credits [seeds, groups]."""
    found = {}
    for key in _columns(run.seeds[0]):
        results = [seed[key[0]] for seed in run.seeds]
        convention = scoring or results[0].info["scoring"]
        arrays = [group_credits(one.cells[key], convention) for one in results]
        found[key] = convention, np.stack(arrays)
    return found


def _tests(credits, baseline, seed):
    low, high, p = paired_bootstrap(credits, baseline, seed)
    better, worse, mcnemar_p = mcnemar(credits, baseline)
    return {
        "difference": 100 * float((credits - baseline).mean()),
        "bootstrap_low": 100 * low,
        "bootstrap_high": 100 * high,
        "bootstrap_p": p,
        "better": better,
        "worse": worse,
        "mcnemar_p": mcnemar_p,
    }
