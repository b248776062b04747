"""Cloze accuracies (sSC, sTC) of a speech LM in every direction.

python train.py hparams/mini.yaml --run interleaved

The same of counts of units, without a model:

python train.py hparams/baseline.yaml --kind bag
"""

import logging
import sys

from speechbrain_slm.utils.config import call_with, load_recipe

logger = logging.getLogger(__name__)


def main(hparams, run_opts):
    """Score the items, and print the accuracies."""
    from speechbrain_slm.evaluation.cloze.accuracy import results_table
    from speechbrain_slm.evaluation.cloze.baselines import evaluate_baseline
    from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze
    from speechbrain_slm.utils.distributed import is_main

    if "kind" in hparams:
        results = call_with(hparams, evaluate_baseline)
    else:
        results = call_with(hparams, evaluate_cloze, device=run_opts["device"])
    if is_main():
        logger.info("%s\n%s", hparams["output_folder"], results_table(results))


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
