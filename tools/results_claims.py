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
# Beside the main benchmarks: plots held out of training, and other voices.
FURTHER = ("", "-plots", "-voices", "-speakers")
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
    gain = f"`{{}}` is {GAIN:g} points or more above `{BASE}`, intervals apart"
    for further in FURTHER:
        for run in COMPARED:
            yield Claim(
                gain.format(run),
                run,
                [(f"{metric}{further}", CROSS_LINGUAL) for metric in METRICS],
                lambda one: one["difference"] >= GAIN and one["apart"],
                # Units of MFCC are not expected to pass to other voices.
                ("whisper",) if further else SETS,
            )
    yield Claim(
        f"`{TUNED}` loses nothing to `{BASE}` beyond noise",
        TUNED,
        [(metric, language) for metric in METRICS for language in ("en", "fr")],
        # Beyond noise: not even the interval's better end reaches 0.
        lambda one: one["bootstrap_high"] >= 0,
    )
    for run in NOT_ABOVE:
        yield Claim(
            f"`{run}` is not above `{BASE}`",
            run,
            [(metric, CROSS_LINGUAL) for metric in METRICS],
            lambda one: one["bootstrap_low"] <= 0,
        )


def claim_table(results: Results) -> str:
    """Judge every claim, for every set of units and both conventions."""
    places = [(units, scoring) for units in SETS for scoring in SCORINGS]
    rows, verdicts = [], Counter()
    for claim in _claims():
        for column in claim.columns:
            cells = []
            for units, scoring in places:
                number, verdict = _judge(results, units, claim, column, scoring)
                if units in claim.sets:
                    verdicts[scoring, verdict.split(",")[0]] += 1
                else:
                    verdict = f"({verdict})"
                cells.append(f"{number}: {verdict}")
            rows.append([claim.words, heading(*column), *cells])
    told = [
        ", ".join(f"{verdicts[s, v]} {v}" for v in ("yes", "no", UNKNOWN))
        + f" under `{s}`"
        for s in SCORINGS
    ]
    header = ["claim", "on", *(f"`{u}`, `{s}`" for u, s in places)]
    return f"Claims that hold: {'; '.join(told)}.\n\n{table(header, rows)}"


def _judge(results, units, claim, column, scoring):
    """Return the number of a claim and whether it holds."""
    runs = [claim.run]
    found = differences(results, units, BASE, runs, [column], scoring)
    if not found:
        return "-", UNKNOWN
    verdict = "yes" if claim.holds(found[0]) else "no"
    seeds = min(
        results.cell(units, run, *column, scoring).seeds
        for run in (BASE, claim.run)
    )
    # A claim is about three seeds; of fewer, the number says less.
    verdict += "" if seeds >= SEEDS else f", of {seeds} seed(s)"
    return difference_text(found[0]), verdict
