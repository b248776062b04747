"""Pretrain a speech LM on whole and interleaved stories.

python train.py hparams/mini.yaml --run interleaved_ft
torchrun --nproc_per_node=2 train.py hparams/mini.yaml --run en_fr
"""

import sys

from speechbrain_slm.brains.lm import LMBrain
from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.dataio.reader import open_stores
from speechbrain_slm.utils.config import load_recipe

if __name__ == "__main__":
    hparams, run_opts = load_recipe(sys.argv[1:])
    sources, folder = hparams["sources"], hparams["units_folder"]
    plan = TokenPlan(
        open_stores(sources, folder, "train"),
        sources,
        hparams["stages"],
        row_length=hparams["row_length"],
        rows_per_step=hparams["rows_per_step"],
        seed=hparams["seed"],
        packing=hparams["packing"],
        language_tags=hparams["language_tags"],
    )
    valid_rows = plan.valid_rows(
        open_stores(sources, folder, "valid"), hparams["valid_rows"]
    )
    brain = LMBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.fit(plan, valid_rows)
