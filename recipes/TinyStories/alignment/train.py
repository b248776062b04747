"""Alignment of a speech LM's hidden states across languages.

python train.py hparams/mini.yaml --run interleaved_ft
"""

import logging
import sys
from pathlib import Path

from speechbrain_slm.utils.config import call_with, load_recipe

logger = logging.getLogger(__name__)


def main(hparams, run_opts):
    """Compare the states, and draw and print what comes out."""
    from speechbrain_slm.evaluation.alignment.evaluate import evaluate_alignment
    from speechbrain_slm.evaluation.alignment.figure import draw_alignment
    from speechbrain_slm.evaluation.alignment.report import alignment_table

    device = run_opts["device"]
    results = call_with(hparams, evaluate_alignment, device=device)
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


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
