"""Compare evaluated models, item by item.

A row of a table is what one or several evaluations found of a model, or of
several that differ in their seed. Rows are compared on the same items, in the
same units, under the same convention, or not at all.
"""

from dataclasses import dataclass
from itertools import chain
from statistics import stdev

import numpy as np

from speechbrain_slm.evaluation.cloze import accuracy
from speechbrain_slm.evaluation.cloze import results as written
from speechbrain_slm.evaluation.cloze.results import Results
from speechbrain_slm.evaluation.statistics import (
    holm,
    mcnemar,
    paired_bootstrap,
)
from speechbrain_slm.utils.hashing import difference
from speechbrain_slm.utils.numbers import check_choice

# The order of the paper's columns; other benchmarks follow by name.
FIRST = ("sSC", "sTC")
# Every convention that a row has, in place of the name of one.
ALL = "all"


@dataclass(frozen=True)
class Entry:
    """A row of a table: its name, and metric -> results for each seed."""

    name: str
    seeds: list[dict[str, Results]]


def read_run(argument: str) -> Entry:
    """Read a row of the command line: ``NAME=DIR[+DIR...][,DIR[+DIR...]...]``.

    A plus joins folders with different benchmarks of one model, a comma
    separates models that differ in their seed.
    """
    name, _, folders = argument.partition("=")
    seeds = [seed.split("+") for seed in folders.split(",")]
    if not name or not all(chain(*seeds)):
        raise ValueError(
            f"{argument!r}: expected NAME=DIR, with DIR+DIR for further "
            "benchmarks of one model and DIR,DIR for further seeds"
        )
    run = Entry(name, [_join(name, seed) for seed in seeds])
    models: dict[tuple, Results] = {}
    for seed in run.seeds:
        results = next(iter(seed.values()))
        where = f"run '{name}': {results.folder}"
        other = models.setdefault(_model(results), results)
        if other is not results:
            raise ValueError(
                f"{where} and {other.folder} are of the same model; expected "
                "models that differ in their seed"
            )
        held, first = (", ".join(sorted(one)) for one in (seed, run.seeds[0]))
        if held != first:
            raise ValueError(
                f"{where} holds {held}, the first seed {first}; evaluate all "
                "seeds on the same benchmarks"
            )
    return run


def _model(results: Results) -> tuple:
    # The same weights, read otherwise, are another model.
    return results.info["model"], results.info.get("configuration")


def _join(name: str, folders: list[str]) -> dict[str, Results]:
    joined: dict[str, Results] = {}
    found = [written.read_results(folder) for folder in folders]
    for results in found:
        where = f"run '{name}': {{}} and {results.folder}".format
        if _model(results) != _model(found[0]):
            raise ValueError(
                f"{where(found[0].folder)} are of different models; DIR+DIR "
                "joins benchmarks of one, a comma stands between seeds"
            )
        for metric, _ in results.cells:
            other = joined.setdefault(metric, results)
            if other is not results:
                raise ValueError(
                    f"{where(other.folder)} both hold {metric}; a benchmark "
                    "may stand in one of them"
                )
    return joined


def check_comparable(runs: list[Entry], scoring: str | None = None) -> None:
    """Refuse rows that were not scored alike on the same items.

    ``scoring`` is the convention to be compared, or ``ALL``; by default the one
    that each ``results.json`` names, which then has to be the same.
    """
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"a name stands twice in {', '.join(names)}")
    keys = [k for k in written.COMPARABLE if k != "scoring" or not scoring]
    firsts: dict[str, Results] = {}
    seeds = (seed for run in runs for seed in run.seeds)
    for metric, results in chain.from_iterable(map(dict.items, seeds)):
        first = firsts.setdefault(metric, results)
        one, other = ({k: r.info[k] for k in keys} for r in (first, results))
        lines = difference(one, other)
        if not lines and _items(first, metric) != _items(results, metric):
            lines = ["the rows of scores.parquet name other items"]
        if lines:
            raise ValueError(
                f"{metric} of {first.folder} and of {results.folder} "
                f"cannot be compared ({'; '.join(lines)}); evaluate both "
                "on the same units and items by the same convention"
            )
        known = accuracy.conventions_of(next(iter(results.cells.values())))
        if scoring not in (None, ALL, *known):
            raise ValueError(
                f"{results.folder} has no scores of '{scoring}'; expected one "
                f"of {', '.join(known)}, or evaluate with 'scoring' set to it"
            )


def _items(results: Results, metric: str) -> dict:
    return {
        key: cell.select(written.SCORES.names)
        for key, cell in results.cells.items()
        if key[0] == metric
    }


def _columns(seed: dict[str, Results]) -> list[tuple[str, str]]:
    """Order the columns as the paper does."""
    cells = {key for results in seed.values() for key in results.cells}
    crosses = [metric for metric, direction in cells if ">" in direction]
    columns = []
    for metric, direction in cells:
        mean = direction == accuracy.CROSS_LINGUAL
        # sSC EN, sSC FR, sTC EN, ...: monolingual, cross-lingual, the mean.
        kind = (">" in direction) + 2 * mean
        # The mean of one direction is that direction: it would stand twice.
        if not mean or crosses.count(metric) > 1:
            columns.append((metric not in FIRST, kind, metric, direction))
    return [(metric, direction) for *_, metric, direction in sorted(columns)]


def compare(
    runs: list[Entry],
    baseline: str | None = None,
    scoring: str | None = None,
    seed: int = 1986,
) -> tuple[list[dict], list[dict]]:
    """Give every row its accuracies and its differences to one of them.

    The accuracies have a record a row, metric and direction, in the order of
    a table, with what :func:`accuracy_of` returns and the sample ``deviation``
    of the seeds' accuracies (None of one seed). The differences, of what both
    have, are in percentage points, with a paired bootstrap (95 %), the groups
    that are ``better`` and ``worse``, McNemar's p, and that p adjusted for all
    tests in the list. ``baseline`` is by default the first row.
    """
    check_comparable(runs, scoring)
    names = [run.name for run in runs]
    base = names[0] if baseline is None else baseline
    check_choice("baseline", base, names)
    accuracies: list[dict] = []
    means: dict[tuple, np.ndarray] = {}
    for run in runs:
        for key in _columns(run.seeds[0]):
            results = [by_metric[key[0]] for by_metric in run.seeds]
            convention = scoring or results[0].info["scoring"]
            cells = [one.cells[key] for one in results]
            credits = [accuracy.group_credits(c, convention) for c in cells]
            mean, record = over_seeds(credits, seed)
            means[run.name, key] = mean
            what: dict = dict(run=run.name, metric=key[0], direction=key[1])
            what |= {"scoring": convention, **record}
            accuracies.append(what)
    return accuracies, differences_to(base, accuracies, means, seed)


def compare_conventions(runs: list[Entry], seed: int = 1986) -> list[dict]:
    """Give every row its accuracies under each convention that it has.

    As :func:`compare` has them, the conventions of a row one after another.
    """
    check_comparable(runs, ALL)
    records = []
    for run in runs:
        results = next(iter(run.seeds[0].values()))
        cell = next(iter(results.cells.values()))
        for scoring in accuracy.conventions_of(cell):
            records += compare([run], scoring=scoring, seed=seed)[0]
    return records


def over_seeds(credits: list[np.ndarray], seed: int) -> tuple[np.ndarray, dict]:
    """Return the mean credits [N] of a run's seeds, and their accuracy.

    Averaged item by item: intervals and tests say what other items would
    change, not what other seeds would; ``deviation`` says that.
    """
    mean = np.mean(credits, axis=0).round(12)
    by_seed = (100 * np.mean(credits, axis=1)).tolist()
    record: dict = {
        "n": len(mean),
        "seeds": len(credits),
        **accuracy.accuracy_of(mean, seed),
    }
    record["deviation"] = stdev(by_seed) if len(by_seed) > 1 else None
    return mean, record


def differences_to(
    base: str, accuracies: list[dict], means: dict[tuple, np.ndarray], seed: int
) -> list[dict]:
    """List the differences of rows to one of them, as :func:`compare` does.

    ``means``: (run, (metric, direction)) -> credits [N].
    """
    differences = []
    for record in accuracies:
        name, key = record["run"], (record["metric"], record["direction"])
        if name == base or (base, key) not in means:
            continue
        credits, other = means[name, key], means[base, key]
        low, high, p = paired_bootstrap(credits, other, seed)
        better, worse, mcnemar_p = mcnemar(credits, other)
        shared = ("run", "metric", "direction", "scoring", "n")
        differences.append(
            {
                **{name: record[name] for name in shared},
                "baseline": base,
                "difference": 100 * float((credits - other).mean()),
                "bootstrap_low": 100 * low,
                "bootstrap_high": 100 * high,
                "bootstrap_p": p,
                **{"better": better, "worse": worse, "mcnemar_p": mcnemar_p},
            }
        )
    adjusted = holm([record["mcnemar_p"] for record in differences])
    for record, holm_p in zip(differences, adjusted, strict=True):
        record["holm_p"] = holm_p
    return differences
