"""What the tables of results share: names, cells and differences."""

from collections.abc import Callable, Iterable, Sequence

from results_files import BOOTSTRAP_SEED, MONOLINGUAL, Cell, Results

from speechbrain_slm.evaluation.cloze.accuracy import CROSS_LINGUAL
from speechbrain_slm.evaluation.cloze.comparison import differences_to
from speechbrain_slm.utils.tables import markdown_row

BASE, TUNED = "en_fr", "interleaved_ft"
COMPARED = ("interleaved", TUNED)
LOCAL = "interleaved-ngram"  # knows the last few units, and no more
MAIN = ("en", "fr", BASE, *COMPARED)
METRICS = ("sSC", "sTC")
DIRECTIONS = ("en", "fr", "en>fr", "fr>en", CROSS_LINGUAL)
# In the paper's order, and the two means behind them.
COLUMNS = [
    (metric, direction)
    for kind in (("en", "fr"), ("en>fr", "fr>en"), (CROSS_LINGUAL,))
    for metric in METRICS
    for direction in kind
]
SCORING = "whole_mean"
# Of units; a page without one says so. Others, of a larger corpus, are in the
# table of sizes alone.
SETS = ("mfcc", "whisper")
PAPER = "reported by a digest of the paper"


def heading(metric: str, direction: str) -> str:
    """Name a column as the paper does: ``sSC EN>FR``."""
    names = {CROSS_LINGUAL: "cross-lingual", MONOLINGUAL: MONOLINGUAL}
    return f"{metric} {names.get(direction, direction.upper())}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table whose first column is to the left."""
    ruler = ["---", *("---:" for _ in header[1:])]
    return "\n".join(map(markdown_row, (header, ruler, *rows)))


def shown(cell: Cell | None, seeds: int = 0) -> str:
    """Write a cell; how many seeds it has where its row has others."""
    if cell is None:
        return "-"
    other = f" ({cell.seeds} seeds)" if seeds not in (0, cell.seeds) else ""
    mean = spread(cell.accuracy, cell.deviation)
    return f"{mean} [{cell.low:.1f}, {cell.high:.1f}]{other}"


def spread(value: float, over_seeds: float | None, form: str = ".1f") -> str:
    """Write a mean and, of several seeds, their deviation."""
    text = f"{value:{form}}"
    return text if over_seeds is None else f"{text} ± {over_seeds:{form}}"


def by_set(
    results: Results, draw: Callable[[str], str], sets: Iterable[str] = SETS
) -> str:
    """Draw a block a set of units."""
    blocks = [
        f"**Units: `{units}`**\n\n"
        + (draw(units) if units in results.sets else "No results yet.")
        for units in sets
    ]
    return "\n\n".join(blocks)


def missing(results: Results, units: str, kind: str) -> str:
    """Name the runs of a kind that should be there and are not."""
    runs = results.expected.get((units, kind), [])
    gone = [f"`{run}`" for run in runs if not results.models(units, run)]
    return f"\n\nMissing: {', '.join(gone)}." if gone else ""


def differences(
    results: Results,
    units: str,
    base: str,
    runs: Iterable[str],
    columns: Iterable[tuple[str, str]],
    scoring: str = SCORING,
) -> list[dict]:
    """List paired differences of runs to one of them, where both are there."""
    found = [
        _difference(results, units, base, run, column, scoring)
        for column in columns
        for run in runs
        if run != base
    ]
    return [one for one in found if one]


def _difference(results, units, base, run, column, scoring):
    """Compare over the seeds that both runs have; None if there is nothing."""
    # What counts alone, a baseline, has no seed: it meets the mean of all.
    common = common_seeds(results, units, base, run)
    cells = [
        results.cell(
            *(units, one, *column, results.scoring(units, one, scoring)),
            seeds=common or None,
        )
        for one in (base, run)
    ]
    if any(one is None or one.credits is None for one in cells):
        return None
    other, cell = cells
    record = dict(run=run, metric=column[0], direction=column[1])
    record |= {"scoring": scoring, "n": cell.n}
    means = {(base, column): other.credits, (run, column): cell.credits}
    (one,) = differences_to(base, [record], means, BOOTSTRAP_SEED)
    return one | {"apart": cell.apart(other), "seeds": cell.seeds}


def common_seeds(
    results: Results, units: str, base: str, run: str
) -> frozenset[int]:
    """Return the seeds that two runs have in common."""
    return results.seeds(units, base) & results.seeds(units, run)


def difference_text(one: dict) -> str:
    """Write a difference and its interval, in points."""
    form = "{difference:+.1f} [{bootstrap_low:+.1f}, {bootstrap_high:+.1f}]"
    return form.format_map(one)
