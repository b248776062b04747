"""Cloze accuracies (sSC, sTC) of a speech LM in every direction.

python train.py hparams/mini.yaml --run interleaved
"""

import logging
import sys

from speechbrain_slm.evaluation.cloze.accuracy import results_table
from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze
from speechbrain_slm.utils.config import load_recipe
from speechbrain_slm.utils.distributed import is_main

logger = logging.getLogger(__name__)

if __name__ == "__main__":
    hparams, run_opts = load_recipe(sys.argv[1:])
    results = evaluate_cloze(
        model_folder=hparams["model_folder"],
        units_folder=hparams["units_folder"],
        items=hparams["items"],
        output_folder=hparams["output_folder"],
        convention={
            "scoring": hparams["convention"]["scoring"],
            "start": hparams["convention"]["start"],
            "score_end": hparams["convention"]["score_end"],
            "tie": hparams["convention"]["tie"],
        },
        endings=hparams["endings"],
        too_long=hparams["too_long"],
        share_prompts=hparams["share_prompts"],
        batch_tokens=hparams["batch_tokens"],
        pairs_per_shard=hparams["pairs_per_shard"],
        seed=hparams["seed"],
        device=run_opts["device"],
    )
    if is_main():
        logger.info("%s\n%s", hparams["output_folder"], results_table(results))
