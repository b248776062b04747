"""The LM recipe with faults built in, for tests that start processes.

FAULT=nan:RANK:STEP makes the loss of one rank NaN at one step;
FAULT=kill:RANK:STEP:FILE kills one rank before it makes a step, unless the
file is there, which it makes first: a rank that starts again goes on.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from speechbrain_slm.brains.lm import LMBrain
from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.dataio.reader import open_stores
from speechbrain_slm.utils.config import call_with, load_recipe
from speechbrain_slm.utils.distributed import rank


class FaultyBrain(LMBrain):
    """An LMBrain that fails where it is told to."""

    def compute_objectives(self, predictions, batch, stage):
        loss = super().compute_objectives(predictions, batch, stage)
        kind, faulty_rank, step, *file = os.environ["FAULT"].split(":")
        here = rank() == int(faulty_rank) and self.optimizer_step == int(step)
        if here and kind == "kill" and not Path(*file).exists():
            Path(*file).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return loss * float("nan") if here and kind == "nan" else loss


if __name__ == "__main__":
    torch.set_num_threads(1)
    hparams, run_opts = load_recipe(sys.argv[1:])
    sources, folder = hparams["sources"], hparams["units_folder"]
    stores = open_stores(sources, folder, "train")
    plan = call_with(hparams, TokenPlan, stores=stores)
    brain = call_with(hparams, FaultyBrain, hparams=hparams, run_opts=run_opts)
    brain.fit(plan)
