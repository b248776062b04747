"""Make pairs of what a model has said, ranked by a measure.

    python preference_prepare.py results/mini/said/en_fr same_course \
        --output results/mini/ranked/pairs.parquet

The folder is one of the continuation recipe, with several samples a prompt
(--samples 4) of stories that nothing is evaluated on (--units_folder of the
training store). ``left_out.jsonl`` beside the pairs says which prompts make
none. ``train.py ... --pairs results/mini/ranked/pairs.parquet`` trains on them.
"""

import argparse
import logging
from pathlib import Path

from speechbrain_slm.dataio.preference import write_ranked_pairs
from speechbrain_slm.utils.ranges import RANGES, check_value
from speechbrain_slm.utils.running import run_script, script_parser
from speechbrain_slm.utils.schema import TEXT, read_shaped


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("folder", type=Path, help="of the continuation recipe")
    parser.add_argument("measure", help="a column of continuations.parquet")
    lower = "the lower the measure, the better"
    parser.add_argument("--lower", action="store_true", help=lower)
    margin = "a prompt whose best and worst differ by no more makes no pair"
    parser.add_argument("--margin", type=float, default=0.0, help=margin)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Write the pairs."""
    options = parse(arguments)
    check_value("margin", options.margin, RANGES["margin"])
    results = read_shaped(options.folder / "results.json", {"tokenizer": TEXT})
    write_ranked_pairs(
        options.output,
        options.folder / "continuations.parquet",
        results["tokenizer"],
        options.measure,
        not options.lower,
        options.margin,
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_script(main)
