"""Pretrain a speech LM on whole and interleaved stories.

python train.py hparams/mini.yaml --run interleaved_ft
torchrun --nproc_per_node=2 train.py hparams/mini.yaml --run en_fr
"""

import sys

from speechbrain_slm.utils.config import call_with, load_recipe


def main(hparams, run_opts):
    """Lay out the tokens, and train on them."""
    from speechbrain_slm.brains.lm import LMBrain
    from speechbrain_slm.dataio.plan import TokenPlan
    from speechbrain_slm.dataio.reader import open_stores

    sources, folder = hparams["sources"], hparams["units_folder"]
    plan = call_with(
        hparams, TokenPlan, stores=open_stores(sources, folder, "train")
    )
    valid_rows = plan.valid_rows(
        open_stores(sources, folder, "valid"), hparams["valid_rows"]
    )
    brain = call_with(hparams, LMBrain, hparams=hparams, run_opts=run_opts)
    brain.fit(plan, valid_rows)


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
