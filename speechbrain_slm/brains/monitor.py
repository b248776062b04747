"""Early information on a run: speed, use of the device, memory, curves."""

import logging
import resource
import sys
import time

import torch

from speechbrain_slm.brains.progress import format_seconds
from speechbrain_slm.utils.distributed import world_size

logger = logging.getLogger(__name__)


def memory_gb(device_type: str) -> float:
    """Return the most memory that this process has used so far.

    Arguments
    ---------
    device_type
        ``"cuda"``: tensors on the GPU; else the process's resident memory.

    Returns
    -------
    In units of 2**30 bytes.
    """
    if device_type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In kibibytes; on macOS in bytes.
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


class Monitor:
    """Measure a training session, and write to TensorBoard beside the log.

    Arguments
    ---------
    log : speechbrain_slm.brains.progress.TrainLog
        Gets every entry; it continues where the session begins.
    step : The optimizer step at which the session begins.
    num_steps : The step at which it ends.
    step_tokens : Tokens of a global batch.
    device_type : ``"cpu"`` or ``"cuda"``.
    flops
        Floating point operations a token, forward and backward. Where they
        are not known, no MFU is given.
    peak_tflops
        Of one device, in 10**12 operations a second. Without it no MFU (model
        FLOPs utilisation) is given.

    Example
    -------
    >>> from speechbrain_slm.brains.progress import TrainLog
    >>> log = TrainLog(getfixture("tmp_path"))
    >>> monitor = Monitor(log, 0, 10, 512, "cpu", 6e6, 0.1)
    >>> monitor.after_step()
    >>> list(monitor.progress(1))
    ['tokens', 'tokens_per_second', 'mfu', 'memory_GB', 'eta']
    """

    def __init__(
        self,
        log,
        step: int,
        num_steps: int,
        step_tokens: int,
        device_type: str,
        flops: float | None = None,
        peak_tflops: float | None = None,
    ) -> None:
        self.log = log
        self.first = step
        self.began = self._mark = time.time()
        self._num_steps = num_steps
        self._step_tokens = step_tokens
        self._device_type = device_type
        self._flops = flops
        self._peak = peak_tflops
        self._writer = None
        self._seconds, self._steps = 0.0, 0

    def open(self, tensorboard: bool) -> None:
        """Continue the files; for the main process alone.

        Arguments
        ---------
        tensorboard : Whether to write for TensorBoard, too.
        """
        if tensorboard:
            # Its import takes a second.
            from torch.utils.tensorboard import SummaryWriter

            folder = self.log.path.with_name("tensorboard")
            # What will be trained again is hidden, as it is in the log.
            self._writer = SummaryWriter(folder, purge_step=self.first + 1)
        self.log.rewind(self.first)

    def close(self) -> None:
        """Flush the files."""
        if self._writer is not None:
            self._show(self._writer.close)

    def after_step(self) -> None:
        """Count a step; the time since the last mark was spent on it."""
        now = time.time()
        self._seconds += now - self._mark
        self._mark = now
        self._steps += 1

    def skip(self) -> None:
        """Leave out of the speed what was done since the last step."""
        self._mark = time.time()

    def progress(self, step: int) -> dict:
        """Say how training goes, and begin to measure anew.

        Returns
        -------
        ``tokens`` so far, ``tokens_per_second`` since the last call,
        ``mfu``, ``memory_GB`` and ``eta``.
        """
        speed = self._steps * self._step_tokens / max(self._seconds, 1e-9)
        self._seconds, self._steps = 0.0, 0
        entry = {
            "tokens": step * self._step_tokens,
            "tokens_per_second": round(speed, 1),
        }
        if self._peak and self._flops:
            peak = self._peak * 1e12 * world_size()
            entry["mfu"] = round(speed * self._flops / peak, 4)
        entry["memory_GB"] = round(memory_gb(self._device_type), 2)
        # Of the whole session: validation and checkpoints take time as well.
        pace = (time.time() - self.began) / max(1, step - self.first)
        entry["eta"] = format_seconds((self._num_steps - step) * pace)
        return entry

    def write(self, entry: dict) -> None:
        """Write an entry; for the main process alone.

        Arguments
        ---------
        entry : See :meth:`TrainLog.write`.
        """
        self.log.write(entry)
        if self._writer is not None:
            self._show(self._add, entry)

    def _add(self, entry):
        for kind, values in self.log.parts(entry).items():
            for name, value in values.items():
                if isinstance(value, int | float):
                    name = f"{kind}/{name}"
                    self._writer.add_scalar(name, value, entry["step"])
        self._writer.flush()

    def _show(self, function, *arguments):
        """Do what concerns TensorBoard; training goes on without it."""
        try:
            function(*arguments)
        except Exception as error:
            self._writer = None
            logger.warning("TensorBoard gets no more curves: %s", error)
