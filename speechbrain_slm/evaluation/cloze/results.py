"""What an evaluation writes, read and checked."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.evaluation.cloze import accuracy
from speechbrain_slm.evaluation.inputs import read_report, unchanged
from speechbrain_slm.utils import schema
from speechbrain_slm.utils.schema import COUNT, PERCENT, TEXT
from speechbrain_slm.utils.tables import ITEMS_KEY, read_table

FORMAT = "speechbrain_slm.cloze"
VERSION = 2
RESULTS_JSON = "results.json"
SCORES_PARQUET = "scores.parquet"

# What was scored and how. Results that differ in one of these do not belong
# in one table.
CONVENTION = ("scoring", "start", "score_end", "tie", "endings", "too_long")
COMPARABLE = (*CONVENTION, "tokenizer", "units", "items")

_RECORD = {
    **dict.fromkeys(("metric", "direction", "scoring", "subset?"), TEXT),
    **{"n": schema.whole(1), "items?": schema.whole(1), "ties": COUNT},
    **dict.fromkeys(("accuracy", "ci_low", "ci_high", "chance"), PERCENT),
    **dict.fromkeys(("bootstrap_low?", "bootstrap_high?"), PERCENT),
}
_TEXTS = ("scoring", "start", "endings", "too_long", "model", "configuration?")
_SHAPE = {
    **dict.fromkeys((*_TEXTS, "tokenizer", "units", "items", "scores"), TEXT),
    **{"score_end": schema.FLAG, "tie": schema.NUMBER, "truncated": COUNT},
    **{key: [_RECORD] for key in ("records", "cross_lingual?", "subsets?")},
}

SCORES = pa.schema([(name, pa.string()) for name in (*ITEMS_KEY, "group")])


@dataclass(frozen=True)
class Results:
    """What one evaluation wrote."""

    folder: Path
    info: dict  # the content of results.json
    # As split_scores, the rows in an order that depends on the items alone.
    cells: dict[tuple[str, str], pa.Table]


def read_info(folder: str | Path) -> dict:
    """Return the content of ``results.json`` in a cloze recipe's folder."""
    path = Path(folder) / RESULTS_JSON
    return read_report(path, FORMAT, VERSION, _SHAPE, "cloze")


def read_results(folder: str | Path) -> Results:
    """Read the results and the scores, refused where they do not fit."""
    folder = Path(folder)
    info, path = read_info(folder), folder / SCORES_PARQUET
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; paired tests need the scores of every "
            f"item. Copy it from beside {RESULTS_JSON}, or evaluate again."
        )
    with unchanged(path) as found:
        scores = read_table(path, SCORES, ITEMS_KEY)
    if found != info["scores"]:
        raise ValueError(
            f"{path} has the SHA-256 {found}; {RESULTS_JSON} beside it says "
            f"{info['scores']}. They are not of one run: evaluate again."
        )
    _check_credits(path, scores, info["scoring"])
    scores = scores.sort_by([(name, "ascending") for name in ITEMS_KEY])
    return Results(folder, info, accuracy.split_scores(scores))


def _check_credits(path: Path, scores: pa.Table, scoring: str) -> None:
    known = accuracy.conventions_of(scores)
    if scoring not in known:
        raise ValueError(
            f"{path} has no scores of '{scoring}', which {RESULTS_JSON} names; "
            f"it has those of {', '.join(known) or 'no convention'}"
        )
    for name in known:
        column = scores[name]
        if not pa.types.is_floating(column.type) or column.null_count:
            raise ValueError(
                f"{path}: column '{name}' is {column.type} with "
                f"{column.null_count} holes; expected a number in each row"
            )
        credits = column.to_numpy()
        # Said so that NaN, which is in no range, is found.
        for row in np.flatnonzero(~((credits >= 0) & (credits <= 1))):
            raise ValueError(
                f"{path}, row {row}: '{name}' is {credits[row]}; expected a "
                "credit from 0 to 1"
            )
