"""Cloze accuracies (sSC, sTC) of a speech LM in every direction.

python train.py hparams/mini.yaml --run interleaved
"""

import logging
import sys

from speechbrain_slm.evaluation.accuracy import results_table
from speechbrain_slm.evaluation.cloze import evaluate_cloze
from speechbrain_slm.utils.config import load_recipe
from speechbrain_slm.utils.distributed import is_main

logger = logging.getLogger(__name__)

if __name__ == "__main__":
    hparams, run_opts = load_recipe(sys.argv[1:])
    # One process scores; further ranks have nothing to do.
    if is_main():
        results = evaluate_cloze(
            model_folder=hparams["model_folder"],
            units_folder=hparams["units_folder"],
            items=hparams["items"],
            output_folder=hparams["output_folder"],
            scoring=hparams["scoring"],
            score_end=hparams["score_end"],
            batch_tokens=hparams["batch_tokens"],
            device=run_opts["device"],
        )
        logger.info("%s\n%s", hparams["output_folder"], results_table(results))
