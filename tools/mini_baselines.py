"""Score what needs no trained model, as small results of the mini experiment.

python tools/mini_baselines.py --folder results/evidence

Bags of units and unit n-grams, on the items and the sets of units that
tools/reproduce_mini.sh has made; see evaluation/cloze/baselines.py. They take
minutes on a CPU; there is one of each.
"""

import time
from pathlib import Path

from mini_jobs import read_experiment
from mini_results import write_small
from results_credits import credit_sums, groups_of
from results_files import FORMAT, VERSION

from speechbrain_slm.evaluation.cloze.accuracy import CROSS_LINGUAL
from speechbrain_slm.evaluation.cloze.baselines import evaluate_baseline
from speechbrain_slm.evaluation.cloze.items import read_items
from speechbrain_slm.evaluation.cloze.results import read_results
from speechbrain_slm.utils.running import run_script, script_parser

ROOT = Path(__file__).parents[1]
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


def main(arguments: list[str]) -> None:
    """Write a file a set of units and baseline."""
    parser = script_parser(__doc__)
    results = ROOT / "recipes/TinyStories/results"
    parser.add_argument("--folder", type=Path, default="results/evidence")
    parser.add_argument("--results", type=Path, default=results)
    names = [*BASELINES]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args(arguments)
    for units in read_experiment()["units"]:
        if not (options.folder / "units" / units / "cloze").is_dir():
            print(f"{options.folder} has no units of {units}")
            continue
        for name in options.only:
            path = options.results / units / f"{name}-0.json"
            write_small(path, score(name, units, options.folder))
            print(f"{path} is written")


if __name__ == "__main__":
    run_script(main)
