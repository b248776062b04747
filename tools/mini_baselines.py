"""Score what needs no trained model, as small results of the mini experiment.

Bags of units and unit n-grams; see evaluation/cloze/baselines.py.
"""

import time
from pathlib import Path

from results_credits import credit_sums, groups_of
from results_files import FORMAT, VERSION

from speechbrain_slm.evaluation.cloze.accuracy import CROSS_LINGUAL
from speechbrain_slm.evaluation.cloze.baselines import evaluate_baseline
from speechbrain_slm.evaluation.cloze.items import read_items
from speechbrain_slm.evaluation.cloze.results import read_results

# Name -> settings of the cloze recipe's baseline.yaml.
BASELINES: dict[str, dict] = {
    **{"bag": {"kind": "bag"}, "unigram": {"kind": "unigram"}},
    "ngram": {"kind": "ngram"},  # of whole stories in each language
    # The sentences of a story in two languages, as interleaved models see it.
    "interleaved-ngram": {"kind": "ngram_interleaved"},
}


def score(name: str, units: str, root: Path) -> dict:
    """Score a baseline, and return what its small result says."""
    begin = time.monotonic()
    items = root / "synthesis/items.parquet"
    folder = root / "cloze" / units / name / "0"
    stores = root / "units" / units
    evaluate_baseline(
        train_units_folder=stores / "train",
        units_folder=stores / "cloze",
        items=items,
        output_folder=folder,
        **BASELINES[name],
    )
    found, groups = read_results(folder), groups_of(read_items(items))
    scoring = found.info["scoring"]
    sums: dict[str, list[float]] = {
        f"{metric} {direction}": credit_sums(cell, scoring, groups[metric])
        for (metric, direction), cell in found.cells.items()
        if direction != CROSS_LINGUAL
    }
    kept = ("metric", "direction", "scoring", "n", "items", "accuracy")
    records = [
        {name: record[name] for name in kept if name in record}
        for record in (*found.info["records"], *found.info["cross_lingual"])
        if record["scoring"] == scoring
    ]
    return {
        **{"format": FORMAT, "version": VERSION, "set": units, "run": name},
        **{"seed": 0, "step": None, "kind": "baseline", "stages": ""},
        **{"tokens": 0, "tokens_by_language": {}, "parameters": 0},
        **{"seconds": round(time.monotonic() - begin, 1), "device": "cpu"},
        **{"commit": "", "versions": {}, "cloze": records, "subsets": []},
        "credit_sums": {scoring: sums},
        "groups": {name: groups[name]["identity"] for name in groups},
        "alignment": [],
    }
