"""Folders of an evaluation, as the cloze recipe leaves them."""

import numpy as np
import pyarrow as pa

from speechbrain_slm.evaluation.cloze.conventions import LIKELIHOODS
from speechbrain_slm.utils.atomic import write_json
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.tables import ITEMS, write_table

GRID = (("en", "en"), ("fr", "fr"), ("en", "fr"), ("fr", "en"))
INFO = {
    "format": "speechbrain_slm.cloze",
    "version": 2,
    "scoring": "whole_mean",
    "start": "boundary",
    "score_end": False,
    "tie": 0.5,
    "endings": "apart",
    "too_long": "refuse",
    "tokenizer": "codebook",
    "units": "store",
    "items": "items",
    "truncated": 0,
    "records": [],
    "cross_lingual": [],
    "subsets": [],
}


def scores_table(credits, groups=None, subsets=None):
    """Make scores from {(item, benchmark, prompt, ending): credit}.

    The credits are those of ``whole_mean``; under ``ending_sum`` every item
    is right, under the others every item is wrong.
    """
    rows = []
    for (item, benchmark, prompt, ending), credit in credits.items():
        parts = (f"{item}.{part}" for part in ("prompt", "right", "wrong"))
        row = (item, benchmark, prompt, ending, *parts)
        row = dict(zip(ITEMS.names, row, strict=True))
        row["group"] = (groups or {}).get(item, item)
        row["subset"] = (subsets or {}).get(item, "")
        for convention in LIKELIHOODS:
            value = {"whole_mean": credit, "ending_sum": 1.0}
            value = value.get(convention, 0.0)
            row[f"right_{convention}"] = value - 2.0
            row[f"wrong_{convention}"] = -1.0 - value
            row[convention] = value
        rows.append(row)
    return pa.Table.from_pylist(rows)


def drawn_credits(
    share, benchmarks=("sSC", "sTC"), count=60, seed=0, grid=GRID
):
    """Draw credits; ``share`` of the items are right in every direction."""
    generator = np.random.default_rng(seed)
    return {
        (f"test-{number:03d}", benchmark, *languages): float(
            generator.random() < share
        )
        for benchmark in benchmarks
        for languages in grid
        for number in range(count)
    }


def write_results(folder, scores, **changes):
    """Write scores.parquet and results.json, keys replaced by ``changes``."""
    write_table(folder / "scores.parquet", scores)
    info = {
        **INFO,
        "model": f"weights of {folder.name}",
        "scores": sha256_file(folder / "scores.parquet"),
        **changes,
    }
    write_json(folder / "results.json", info)
    return folder
