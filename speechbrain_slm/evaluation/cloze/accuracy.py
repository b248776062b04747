"""From the scores of items to accuracies with intervals."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.evaluation.statistics import (
    bootstrap_interval,
    wilson_interval,
)

# Percent; of two endings a coin picks one.
CHANCE = 50.0
# The direction that stands for the mean of those that change the language.
CROSS_LINGUAL = "cross_lingual"


def direction_of(prompt_language: str, ending_language: str) -> str:
    """Name a direction: ``en``, or ``en>fr`` for a prompt in English."""
    if prompt_language == ending_language:
        return prompt_language
    return f"{prompt_language}>{ending_language}"


def split_scores(scores: pa.Table) -> dict[tuple[str, str], pa.Table]:
    """Split scores by (benchmark, direction), the rows in their order.

    A benchmark's monolingual directions come first; ``cross_lingual``, all
    rows of the directions that change the language, last, where there are any.
    """
    names = ("benchmark", "prompt_language", "ending_language")
    columns = (scores[name].to_pylist() for name in names)
    cells: dict[tuple, list[int]] = {}
    for row, (benchmark, *pair) in enumerate(zip(*columns, strict=True)):
        crosses = pair[0] != pair[1]
        key = benchmark, int(crosses), *pair
        cells.setdefault((*key, direction_of(*pair)), []).append(row)
        if crosses:
            mean = benchmark, 2, "", "", CROSS_LINGUAL
            cells.setdefault(mean, []).append(row)
    return {
        (key[0], key[-1]): scores.take(pa.array(rows))
        for key, rows in sorted(cells.items())
    }


def conventions_of(scores: pa.Table) -> list[str]:
    """List the conventions that a table of scores holds, as columns stand."""
    names = scores.column_names
    return [name for name in names if f"right_{name}" in names]


def group_credits(cell: pa.Table, convention: str) -> np.ndarray:
    """Return what each group of items of one benchmark scored, float64 [N].

    Items of a group (several voices of one pair of words, say) are not
    independent and count once: their credits are averaged in each direction,
    then over the directions. Groups stand in the order of their names.
    """
    # Weights, not means of means: of house in three voices en>fr (1, 1, 0) and
    # one fr>en (1), each of the three weighs 1/3 and the one 1, and the sum of
    # weights is the number of directions: (2/3 + 1) / 2.
    group, groups = _codes(cell["group"])
    prompt, _ = _codes(cell["prompt_language"])
    ending, endings = _codes(cell["ending_language"])
    direction = prompt * endings + ending
    _, member, size = np.unique(
        direction * groups + group, return_inverse=True, return_counts=True
    )
    weight = 1 / size[member]
    credits = cell[convention].to_numpy()
    sums = np.bincount(group, weight * credits) / np.bincount(group, weight)
    # Equal credits added in another order must stay equal: paired tests
    # count which of two is the larger.
    return sums.round(12)


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    values = np.asarray(column.to_pylist(), dtype=str)
    names, codes = np.unique(values, return_inverse=True)
    return codes, len(names)


def summarise(
    scores: pa.Table, seed: int
) -> tuple[list[dict], list[dict], list[dict]]:
    """Turn the content of ``scores.parquet`` into records of accuracies.

    Those of each metric, direction and convention; of all cross-lingual
    directions together (as they are not independent, a group's credit is its
    mean over them); and those of each subset. ``n`` counts groups, ``items``
    is there where it differs; ``ties`` counts items of equal scores, whatever
    credit a tie gets. Each interval is drawn anew from the seed, so it depends
    on nothing but its own credits.
    """
    records, cross_lingual, subsets = [], [], []
    for (metric, direction), cell in split_scores(scores).items():
        found = _records(metric, direction, cell, seed)
        if direction == CROSS_LINGUAL:
            cross_lingual += found
            continue
        records += found
        for subset in sorted(set(cell["subset"].to_pylist()) - {""}):
            rows = cell.filter(pc.equal(cell["subset"], subset))
            found = _records(metric, direction, rows, seed)
            subsets += [{**record, "subset": subset} for record in found]
    return records, cross_lingual, subsets


def _records(metric, direction, cell, seed):
    items = len(pc.unique(cell["item_id"]))
    records = []
    for convention in conventions_of(cell):
        credits = group_credits(cell, convention)
        right, wrong = cell[f"right_{convention}"], cell[f"wrong_{convention}"]
        ties = pc.sum(pc.equal(right, wrong)).as_py()
        record: dict = {"metric": metric, "direction": direction}
        record |= {"scoring": convention, "n": len(credits), "ties": ties}
        record |= {**accuracy_of(credits, seed), "chance": CHANCE}
        if items != len(credits):
            record["items"] = items
        records.append(record)
    return records


def accuracy_of(credits: np.ndarray, seed: int) -> dict[str, float]:
    """Return the mean of credits and its 95 % intervals, in percent.

    ``ci_low`` and ``ci_high`` are Wilson's, ``bootstrap_*`` are resampled.
    """
    total, n = float(credits.sum()), len(credits)
    ends = *wilson_interval(total, n), *bootstrap_interval(credits, seed)
    names = "ci_low", "ci_high", "bootstrap_low", "bootstrap_high"
    intervals = {name: 100 * end for name, end in zip(names, ends, strict=True)}
    return {"accuracy": 100 * total / n, **intervals}


def results_table(results: dict) -> str:
    """Lay out ``results.json`` under its main convention, for a log."""
    numbers = "{n:6}{accuracy:10.2f}  [{ci_low:.2f}, {ci_high:.2f}]".format_map
    how = f"95 % interval  ({results['scoring']}, chance {CHANCE:.0f})"
    rows = [("metric", "direction", f"{'n':>6}{'accuracy':>10}  {how}")]
    for one in itertools.chain(
        results["records"], results["cross_lingual"], results["subsets"]
    ):
        if one["scoring"] == results["scoring"]:
            subset = f", {one['subset']}" if "subset" in one else ""
            where = f"{one['direction']}{subset}"
            rows.append((one["metric"], where, numbers(one)))
    left, right = (2 + max(len(row[n]) for row in rows) for n in (0, 1))
    return "\n".join(f"{m:{left}}{d:{right}}{rest}" for m, d, rest in rows)
