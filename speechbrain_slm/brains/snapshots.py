"""Models of a training that goes on: where they stand, and which are due."""

import shutil
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import ddp_broadcast

from speechbrain_slm.utils.atomic import remove_temporary
from speechbrain_slm.utils.distributed import is_main

SNAPSHOTS = "snapshots"


class Snapshots:
    """The folders ``snapshots/step-000200`` of a run, one a step.

    Arguments
    ---------
    hparams
        Of a Brain: ``output_folder`` and, where there is one,
        ``snapshot_steps``. ValueError if a step is not one of the run's.
    num_steps : The run's last step.
    """

    def __init__(self, hparams: Any, num_steps: int) -> None:
        steps = getattr(hparams, "snapshot_steps", [])
        if not isinstance(steps, list) or not all(
            type(step) is int and 0 < step <= num_steps for step in steps
        ):
            raise ValueError(
                f"snapshot_steps is {steps!r}; expected a list of steps from 1 "
                f"to {num_steps}, the last one of this run"
            )
        self.folder = Path(hparams.output_folder) / SNAPSHOTS
        self.folders = {
            step: self.folder / f"step-{step:06d}" for step in sorted(steps)
        }

    def there(self) -> list[Path]:
        """List the snapshots that stand there, of this run or another one."""
        found = sorted(self.folder.glob("step-*"))
        return [one for one in found if one.name[5:].isdigit()]

    def begin(self, step: int) -> None:
        """Begin at a step, 0 or where a checkpoint was; every rank calls it.

        A run that begins anew does away with what another one left.
        ValueError if the step of a snapshot that is not there has passed.
        """
        passed = []
        if is_main():
            remove_temporary(self.folder)
            if step == 0:
                for folder in self.there():
                    shutil.rmtree(folder)
            passed = [
                due
                for due, folder in self.folders.items()
                if due <= step and not folder.exists()
            ]
        if passed := ddp_broadcast(passed):
            raise ValueError(
                f"snapshot_steps asks for {passed}, and this run resumes at "
                f"step {step} without these in {self.folder}: leave them out, "
                "or choose another output_folder"
            )

    def due(self, step: int) -> Path | None:
        """Return where the model of a step goes; None: nowhere.

        A run that was killed behind a snapshot comes to its step again, and
        keeps it: its model is the same. Every rank calls it, since other nodes
        may not see the main one's files.
        """
        folder = self.folders.get(step)
        if folder is None or ddp_broadcast(folder.exists()):
            return None
        return folder
