"""What the experiment was to show, each claim held against its numbers."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from results_cells import (
    BASE,
    COMPARED,
    METRICS,
    SETS,
    TUNED,
    difference_text,
    differences,
    heading,
    table,
)
from results_files import Results

from speechbrain_slm.evaluation.cloze.accuracy import CROSS_LINGUAL

SCORINGS = ("whole_mean", "normalised")
GAIN = 8.0  # points that interleaving is to be worth
SEEDS = 3  # of each run that a claim is about
# The main benchmarks, and those beside them.
FURTHER = {
    "": "",
    "-voices": ", endings in another voice",
    "-plots": ", plots held out",
    "-speakers": ", unseen voices",
}
# The stages of interleaved_ft, and of interleaved.
NOT_ABOVE = ("switch0", "shuffled")
NOT_ABOVE += ("interleaved-switch0", "interleaved-shuffled")
UNKNOWN = "not measured"


class Claim(NamedTuple):
    """What is said of a run, beside the baseline, on some benchmarks."""

    words: str
    run: str
    columns: list[tuple[str, str]]  # (metric, direction)
    holds: Callable[[dict], bool]  # of a paired difference
    sets: tuple[str, ...] = SETS  # of units; of others it is measured, too


def _claims():
    gain = f"{GAIN:g} points or more above `{BASE}` across languages"
    for further, words in FURTHER.items():
        for run in COMPARED:
            yield Claim(
                f"`{run}` is {gain}, intervals apart{words}",
                run,
                [(f"{metric}{further}", CROSS_LINGUAL) for metric in METRICS],
                lambda one: one["difference"] >= GAIN and one["apart"],
                # Units of MFCC are not expected to pass to other voices.
                ("whisper",) if further else SETS,
            )
    yield Claim(
        f"`{TUNED}` loses nothing to `{BASE}` in one language beyond noise",
        TUNED,
        [(metric, language) for metric in METRICS for language in ("en", "fr")],
        # Beyond noise: not even the interval's better end reaches 0.
        lambda one: one["bootstrap_high"] >= 0,
    )
    for run in NOT_ABOVE:
        yield Claim(
            f"`{run}` is not above `{BASE}` across languages",
            run,
            [(metric, CROSS_LINGUAL) for metric in METRICS],
            lambda one: one["bootstrap_low"] <= 0,
        )


def claim_table(results: Results) -> str:
    """Judge every claim, for every set of units; a table a convention."""
    return "\n\n".join(_judged(results, scoring) for scoring in SCORINGS)


def _judged(results, scoring):
    rows, verdicts = [], Counter()
    for claim in _claims():
        cells = []
        for units in SETS:
            texts = []
            for column in claim.columns:
                verdict, text = _judge(results, units, claim, column, scoring)
                verdicts[verdict] += units in claim.sets
                texts.append(text)
            cell = "; ".join(dict.fromkeys(texts))
            cells.append(cell if units in claim.sets else f"({cell})")
        rows.append([claim.words, *cells])
    told = ", ".join(f"{n} {v}" for v, n in sorted(verdicts.items()) if n)
    header = ["claim", *(f"`{units}`" for units in SETS)]
    head = f"Verdicts under `{scoring}`: {told}."
    return f"{head}\n\n{table(header, rows)}"


def _judge(results, units, claim, column, scoring):
    """Return whether a claim holds, and that with its number."""
    runs = [claim.run]
    found = differences(results, units, BASE, runs, [column], scoring)
    if not found:
        return UNKNOWN, UNKNOWN
    verdict = "yes" if claim.holds(found[0]) else "no"
    seeds = found[0]["seeds"]
    # A claim is about three seeds; of fewer, the number says less.
    verdict += "" if seeds >= SEEDS else f" of {seeds} seed(s)"
    what = heading(*column).removesuffix(" cross-lingual")
    return verdict, f"{verdict}: {what} {difference_text(found[0])}"
