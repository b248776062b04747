"""The LM recipe with faults built in, for tests that start processes.

FAULT=nan:RANK:STEP makes the loss of one rank NaN at one step. The others
happen before a rank makes a step, unless the file is there, which they make
first, so that a rank that starts again goes on: kill:RANK:STEP:FILE,
stop:RANK:STEP:FILE, slow:RANK:STEP:FILE:SECONDS, and pull:RANK:STEP:FILE:LINK,
which takes a network device down.
"""

import os
import runpy
import signal
import subprocess
import time
from pathlib import Path

import torch

from speechbrain_slm.brains import lm
from speechbrain_slm.utils.distributed import rank

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class FaultyBrain(lm.LMBrain):
    """An LMBrain that fails where it is told to."""

    def compute_objectives(self, predictions, batch, stage):
        loss = super().compute_objectives(predictions, batch, stage)
        kind, faulty_rank, step, *more = os.environ["FAULT"].split(":")
        if (rank(), self.optimizer_step) != (int(faulty_rank), int(step)):
            return loss
        if kind == "nan":
            return loss * float("nan")
        if more and not Path(more[0]).exists():
            Path(more[0]).touch()
            if kind == "pull":
                subprocess.run(
                    ["ip", "link", "set", more[1], "down"], check=True
                )
            elif kind == "slow":
                time.sleep(float(more[1]))
            else:
                os.kill(os.getpid(), SIGNALS[kind])
        return loss


if __name__ == "__main__":
    torch.set_num_threads(1)
    lm.LMBrain = FaultyBrain
    recipe = Path(__file__).parents[1] / "recipes" / "TinyStories" / "LM"
    runpy.run_path(str(recipe / "train.py"), run_name="__main__")
