"""What continuations say, as numbers with intervals, and as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import exp, expm1
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from speechbrain_slm.evaluation.cloze.accuracy import CROSS_LINGUAL
from speechbrain_slm.evaluation.generation.measures import auto_bleu, distinct_n
from speechbrain_slm.evaluation.generation.recognizer import normalized
from speechbrain_slm.evaluation.inputs import read_report
from speechbrain_slm.evaluation.statistics import (
    bootstrap_interval,
    paired_bootstrap,
)
from speechbrain_slm.utils.hashing import difference, sha256_file
from speechbrain_slm.utils.schema import MAPPING, NUMBER, TEXT, whole
from speechbrain_slm.utils.tables import markdown_row

FORMAT = "speechbrain_slm.continuation"
VERSION = 1
RESULTS_JSON = "results.json"
CONTINUATIONS = "continuations.parquet"
_RECORD = {
    **dict.fromkeys(("direction", "measure"), TEXT),
    **{"n": whole(1), "value": NUMBER, "low?": NUMBER, "high?": NUMBER},
}
_SHAPE = {
    **dict.fromkeys(("model", "tokenizer", "units", "continuations"), TEXT),
    **dict.fromkeys(("prompts", "sampling"), MAPPING),
    "records": [_RECORD],
}
# In these, runs that are compared must agree.
_COMPARABLE = (
    *("tokenizer", "units", "items", "prompts", "sampling", "seed"),
    *("train_units", "train_manifest"),
)
_HEARD_BY = ("vocoder", "recognizer", "text_lm_identity")  # if both have them
Row = dict[str, Any]


def _share(*columns: str) -> Callable[[Row], float | None]:
    """Make 100 of a row in which all are true, 0 of another, None of none."""

    def measure(row):
        values = [row.get(name) for name in columns]
        return None if None in values else 100.0 * all(values)

    return measure


def _words(row):
    text = row.get("transcript")
    return None if text is None else normalized(text).split()


def _percent(
    of_row: Callable[[Row], float | None],
) -> Callable[[Row], float | None]:
    def measure(row):
        found = of_row(row)
        return None if found is None else 100.0 * found

    return measure


def _word_repeats(row):
    text = _words(row)
    return None if text is None else auto_bleu(text)


# The mean over continuations; what is None for one was not measured there.
# ``heard``: by the recogniser, in the audio; all else in the units.
MEASURES: dict[str, Callable[[Row], float | None]] = {
    "in_language": _share("in_language"),
    "same_plot": _share("same_plot"),
    "same_course": _share("same_course"),
    "same_course_in_language": _share("same_course", "in_language"),
    "course_of_another_story": _share("other_course"),
    "same_names": _share("same_names"),
    "continues_in_language": _share("continues", "in_language"),
    "edits": _percent(lambda row: row.get("nearest_distance")),
    "units": lambda row: float(len(row["units"])),
    "ended": _share("ended"),
    "seconds": lambda row: row.get("seconds"),
    "auto_bleu_2": _percent(lambda row: auto_bleu(row["units"])),
    "in_language_heard": _share("in_language_heard"),
    "same_course_heard": _share("same_course_heard"),
    "same_course_in_language_heard": _share(
        "same_course_heard", "in_language_heard"
    ),
    "course_of_another_story_heard": _share("other_course_heard"),
    "same_names_heard": _share("same_names_heard"),
    "edits_heard": _percent(lambda row: row.get("nearest_distance_heard")),
    "auto_bleu_2_words": _percent(_word_repeats),
}
_SEQUENCES = {"": lambda row: row["units"], "_words": _words}


def _nll(row):
    return row.get("nll")


def summarise(rows: Iterable[Row], seed: int) -> list[dict]:
    """Return a record a direction and measure, with a 95 % interval.

    Continuations of one story are not independent of each other: their mean
    counts, and stories are drawn. Shares and auto-BLEU are in percent.
    """
    cells: dict[str, list[Row]] = {}
    for row in rows:
        cells.setdefault(row["direction"], []).append(row)
        if ">" in row["direction"]:
            cells.setdefault(CROSS_LINGUAL, []).append(row)
    crossed = cells.pop(CROSS_LINGUAL, None)
    if crossed:
        cells[CROSS_LINGUAL] = crossed
    records = []
    for direction, cell in cells.items():
        for measure, found in _measured(cell, seed).items():
            records.append({"direction": direction, "measure": measure} | found)
    return records


def _measured(rows, seed):
    found = {}
    for name, of_row in MEASURES.items():
        if values := list(_by_story(rows, of_row).values()):
            low, high = bootstrap_interval(values, seed)
            told = {"value": float(np.mean(values)), "low": low, "high": high}
            found[name] = {"n": len(values), **told}
    # Of all continuations together: drawn with replacement, they would have
    # fewer distinct n-grams than they have, so there is no interval.
    for end, of_row in _SEQUENCES.items():
        sequences = [one for row in rows if (one := of_row(row)) is not None]
        for n in (1, 2):
            if (value := distinct_n(sequences, n)) is not None:
                told = {"n": len(sequences), "value": 100.0 * value}
                found[f"distinct_{n}{end}"] = told
    losses = list(_by_story(rows, _nll).values())
    if losses:
        # The exponential of the mean over texts, as SlamKit has it.
        ends = bootstrap_interval(losses, seed)
        low, value, high = map(exp, (ends[0], float(np.mean(losses)), ends[1]))
        told = {"value": value, "low": low, "high": high}
        found["gen_ppl"] = {"n": len(losses), **told}
    return found


def _by_story(rows, of_row):
    found: dict[str, list[float]] = {}
    for row in rows:
        if (value := of_row(row)) is not None:
            found.setdefault(row["story_id"], []).append(value)
    return {story: float(np.mean(found[story])) for story in sorted(found)}


def read_results(folder: str | Path) -> tuple[dict, list[Row]]:
    """Read ``results.json`` of a continuation recipe, and its continuations.

    ValueError if they are not what one run wrote.
    """
    path = Path(folder) / RESULTS_JSON
    info = read_report(path, FORMAT, VERSION, _SHAPE, "continuation")
    path = path.with_name(CONTINUATIONS)
    if not path.is_file() or sha256_file(path) != info["continuations"]:
        raise ValueError(
            f"{path} is not what {RESULTS_JSON} beside it says; run the "
            "continuation recipe again"
        )
    return info, pq.read_table(path).to_pylist()


def check_comparable(
    folder: str | Path, info: dict, baseline: str | Path, other: dict
) -> None:
    """Refuse two runs that went on, or were judged, in different ways."""
    both = [key for key in _HEARD_BY if info.get(key) and other.get(key)]
    expected, found = (
        {key: one.get(key) for key in (*_COMPARABLE, *both)}
        for one in (other, info)
    )
    if lines := difference(expected, found):
        raise ValueError(
            f"{folder} and {baseline} cannot be compared: {'; '.join(lines)}. "
            "Run both with the same YAML file and options."
        )


def compare(folder: str | Path, baseline: str | Path, seed: int) -> list[dict]:
    """Return a run's differences from another's, story by story.

    ValueError if the two have not gone on from the same prompts in one way.
    A record a direction and measure: ``n, difference, low, high, p`` (paired
    bootstrap; see ``evaluation.statistics``). ``gen_ppl`` differs by percent
    of the baseline's.
    """
    (info, rows), (other, others) = map(read_results, (folder, baseline))
    check_comparable(folder, info, baseline, other)
    records = []
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    crossed = [name for name in directions if ">" in name]
    groups = {name: [name] for name in directions}
    groups |= {CROSS_LINGUAL: crossed} if crossed else {}
    for name, group in groups.items():
        for measure, of_row in {**MEASURES, "gen_ppl": _nll}.items():
            found = [
                _by_story([r for r in one if r["direction"] in group], of_row)
                for one in (rows, others)
            ]
            stories = sorted(found[0].keys() & found[1].keys())
            if not stories:
                continue
            mine, theirs = ([one[s] for s in stories] for one in found)
            low, high, p = paired_bootstrap(mine, theirs, seed)
            shift = float(np.mean(mine) - np.mean(theirs))
            if of_row is _nll:
                shift, low, high = (
                    100 * expm1(one) for one in (shift, low, high)
                )
            told = {"low": low, "high": high, "p": p, "n": len(stories)}
            head = {"direction": name, "measure": measure}
            records.append({**head, "difference": shift, **told})
    return records


def results_table(records: list[dict], value: str = "value") -> str:
    """Lay out records: a row a measure, a column a direction (Markdown)."""
    directions = list(dict.fromkeys(one["direction"] for one in records))
    cells = {(one["measure"], one["direction"]): one for one in records}
    sign = "" if value == "value" else "+"
    lines = [
        markdown_row(["measure", *directions]),
        markdown_row(["---", *["---:"] * len(directions)]),
    ]
    for measure in dict.fromkeys(one["measure"] for one in records):
        row = [measure]
        for direction in directions:
            one = cells.get((measure, direction))
            text = "-" if one is None else f"{one[value]:{sign}.1f}"
            if one and "low" in one:
                text += f" [{one['low']:{sign}.1f}, {one['high']:{sign}.1f}]"
            row.append(text)
        lines.append(markdown_row(row))
    return "\n".join(lines)
