"""Pretrain a speech LM on whole and interleaved stories.

python train.py hparams/mini_interleaved.yaml
torchrun --nproc_per_node=2 train.py hparams/mini_interleaved.yaml
"""

import sys

from speechbrain_slm.brains.lm import LMBrain
from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.utils.config import load_recipe

if __name__ == "__main__":
    hparams, run_opts = load_recipe(sys.argv[1:])
    plan = TokenPlan(
        UnitStore(f"{hparams['units_folder']}/train"),
        hparams["sources"],
        hparams["stages"],
        hparams["row_length"],
        hparams["rows_per_step"],
        hparams["seed"],
    )
    valid_store = UnitStore(f"{hparams['units_folder']}/valid")
    brain = LMBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.fit(plan, plan.valid_rows(valid_store, hparams["valid_rows"]))
