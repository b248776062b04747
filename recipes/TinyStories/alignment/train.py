"""Alignment of a speech LM's hidden states across languages.

python train.py hparams/mini.yaml --run interleaved_ft
"""

import logging
import sys
from pathlib import Path

from speechbrain_slm.evaluation.alignment.evaluate import evaluate_alignment
from speechbrain_slm.evaluation.alignment.figure import draw_alignment
from speechbrain_slm.evaluation.alignment.report import alignment_table
from speechbrain_slm.utils.config import load_recipe

logger = logging.getLogger(__name__)

if __name__ == "__main__":
    hparams, run_opts = load_recipe(sys.argv[1:])
    results = evaluate_alignment(
        model_folder=hparams["model_folder"],
        units_folder=hparams["units_folder"],
        output_folder=hparams["output_folder"],
        languages=hparams["languages"],
        manifest=hparams["manifest"],
        level=hparams["level"],
        voices=hparams["voices"],
        poolings=hparams["poolings"],
        max_retrieval=hparams["max_retrieval"],
        gallery=hparams["gallery"],
        pairs_per_shard=hparams["pairs_per_shard"],
        batch_tokens=hparams["batch_tokens"],
        seed=hparams["seed"],
        device=run_opts["device"],
    )
    if results is not None:  # the main process
        runs = {hparams["run"]: results}
        folder = Path(hparams["output_folder"])
        # The first pair of languages as alignment.png.
        for number, summary in enumerate(results["languages"]):
            pair = summary["languages"]
            name = "-".join(["alignment", *(pair if number else ())])
            draw_alignment(runs, folder / f"{name}.png", pair)
        pooling = hparams["poolings"][-1]
        table = alignment_table(runs, pooling)
        logger.info("%s, pooling: %s\n%s", folder, pooling, table)
