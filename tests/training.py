"""The LM recipe with faults built in, for tests that start processes.

FAULT=nan:RANK:STEP makes the loss of one rank NaN at one step;
FAULT=kill:RANK:STEP:FILE kills one rank before it makes a step, unless the
file is there, which it makes first: a rank that starts again goes on.
"""

import os
import runpy
import signal
from pathlib import Path

import torch

from speechbrain_slm.brains import lm
from speechbrain_slm.utils.distributed import rank


class FaultyBrain(lm.LMBrain):
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
    lm.LMBrain = FaultyBrain
    recipe = Path(__file__).parents[1] / "recipes" / "TinyStories" / "LM"
    runpy.run_path(str(recipe / "train.py"), run_name="__main__")
