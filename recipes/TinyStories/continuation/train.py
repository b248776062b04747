"""Continuations of a speech LM in every direction, and their measures.

python train.py hparams/mini.yaml --run interleaved_ft
"""

import logging
import sys

from speechbrain_slm.utils.config import call_with, load_recipe

logger = logging.getLogger(__name__)


def main(hparams, run_opts):
    """Continue the prompts, and print what came out."""
    from speechbrain_slm.evaluation.generation.results import (
        compare,
        results_table,
    )
    from speechbrain_slm.inference.continuation import continue_prompts
    from speechbrain_slm.utils.distributed import is_main

    results = call_with(hparams, continue_prompts, device=run_opts["device"])
    folder, baseline = hparams["output_folder"], hparams["baseline"]
    if is_main():
        logger.info("%s\n%s", folder, results_table(results["records"]))
    if is_main() and baseline is not None:
        found = compare(folder, baseline, hparams["seed"])
        table = results_table(found, "difference")
        logger.info("%s, less %s\n%s", folder, baseline, table)


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
