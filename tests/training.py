"""The LM recipe with faults built in, for tests that start processes.

FAULT=nan:RANK:STEP makes the loss of one rank NaN at one step.
"""

import os
import sys

import torch

from speechbrain_slm.brains.lm import LMBrain
from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.utils.config import load_recipe
from speechbrain_slm.utils.distributed import rank


class FaultyBrain(LMBrain):
    """An LMBrain that fails where it is told to."""

    def compute_objectives(self, predictions, batch, stage):
        loss = super().compute_objectives(predictions, batch, stage)
        kind, faulty_rank, step = os.environ["FAULT"].split(":")
        here = rank() == int(faulty_rank) and self.optimizer_step == int(step)
        return loss * float("nan") if here and kind == "nan" else loss


if __name__ == "__main__":
    torch.set_num_threads(1)
    hparams, run_opts = load_recipe(sys.argv[1:])
    plan = TokenPlan(
        UnitStore(f"{hparams['units_folder']}/train"),
        hparams["sources"],
        hparams["stages"],
        hparams["row_length"],
        hparams["rows_per_step"],
        hparams["seed"],
    )
    brain = FaultyBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.fit(plan)
