"""What a run shows of itself: its log, its speed, its curves."""

import json
import logging
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from speechbrain_slm.brains.loggers import (
    Board,
    TensorBoard,
    TrainLoggerBoard,
)
from speechbrain_slm.utils.atomic import atomic_path, fsync_file, write_atomic
from speechbrain_slm.utils.distributed import world_size

logger = logging.getLogger(__name__)
_NO_STATS = ("step", "seen", "valid")
_CURVES = {
    "loss": "training loss (nats a token)",
    "valid": "validation loss (nats a token)",
    "lr": "learning rate",
    "grad_norm": "gradient norm before clipping",
}


class TrainLog:
    """Losses of a run, which a restart continues instead of repeating.

    They stand in ``train_log.jsonl`` (for tools) and ``train_log.txt`` (in
    SpeechBrain's form).

    Example
    -------
    >>> log = TrainLog(getfixture("tmp_path"))
    >>> log.write({"step": 1, "loss": 2.5})
    >>> log.write({"step": 2, "loss": 2.25})
    >>> log.rewind(1)
    >>> log.entries()
    [{'step': 1, 'loss': 2.5}]
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "train_log.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.text_path = self.path.with_suffix(".txt")

    def entries(self) -> list[dict]:
        """Return what was written so far."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")
        entries = []
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                entry["step"] + 0
                entries.append(entry)
            except (ValueError, TypeError, KeyError):
                # A killed process may leave half of its last line. Elsewhere
                # a disk has lost something; the run need not stop for it.
                if number < len(lines):
                    where = f"{self.path}, line {number}"
                    found = f"is no entry and is left out: {line!r:.80}"
                    logger.warning("%s %s", where, found)
        return entries

    def rewind(self, step: int) -> None:
        """Drop the entries after a step, which will be trained again."""
        kept = [entry for entry in self.entries() if entry["step"] <= step]
        for path, line in self._files():
            write_atomic(path, "".join(f"{line(entry)}\n" for entry in kept))

    def write(self, entry: dict) -> None:
        """Append an entry to both files; it reaches the disk.

        It holds ``step`` and numbers, among them ``seen``: kind -> tokens; or
        ``step`` and ``valid``: name -> loss.
        """
        for path, line in self._files():
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{line(entry)}\n")
            # The checkpoint that follows is synced, too: after a power
            # failure a run resumes behind no line that is lost.
            fsync_file(path)
        logger.info(self._text(entry))

    def _files(self) -> list[tuple[Path, Callable]]:
        return [(self.path, json.dumps), (self.text_path, self._text)]

    @staticmethod
    def parts(entry: dict) -> dict[str, dict]:
        """Sort what an entry says: ``train``, ``seen`` and ``valid``."""
        train = {k: v for k, v in entry.items() if k not in _NO_STATS}
        rest = {kind: entry.get(kind, {}) for kind in ("seen", "valid")}
        parts = {"train": train, **rest}
        return {kind: values for kind, values in parts.items() if values}

    def _text(self, entry: dict) -> str:
        # Not by SpeechBrain's FileTrainLogger: its log_stats is a collective
        # call, which a log that the main process writes alone would wait in.
        line = f"step: {entry['step']}"
        for kind, values in self.parts(entry).items():
            shown = {
                k: f"{v:.4g}" if isinstance(v, float) else v
                for k, v in values.items()
            }
            line += " - " + ", ".join(f"{kind} {k}: {shown[k]}" for k in shown)
        return line


@dataclass
class Monitor:
    """Measure a training session, and show it beside the log.

    Example
    -------
    >>> log = TrainLog(getfixture("tmp_path"))
    >>> monitor = Monitor(log, 0, 10, 512, "cpu", 6e6, 0.1)
    >>> monitor.after_step()
    >>> list(monitor.progress(1))
    ['tokens', 'tokens_per_second', 'mfu', 'memory_GB', 'eta']
    """

    log: TrainLog  # gets every entry
    first: int  # the optimizer step at which the session begins
    num_steps: int  # the one at which it ends
    step_tokens: int  # of a global batch
    device_type: str
    # Operations a token, and 10**12 operations a second that one device can
    # do; without both, no MFU (model FLOPs utilisation) is given.
    flops: float | None = None
    peak_tflops: float | None = None

    def __post_init__(self) -> None:
        if self.peak_tflops and self.flops is None:
            logger.warning(
                "The operations a token costs are not known: the log gets no "
                "MFU, though peak_tflops is set"
            )
        self.began = self._mark = time.time()
        self._seconds, self._steps = 0.0, 0
        self._boards: list[Board] = []
        self._taken = False  # whether there was a step

    def open(
        self, tensorboard: bool, train_logger: Callable | Mapping | None = None
    ) -> None:
        """Continue the files; for the main process alone.

        ``train_logger``: see :class:`TrainLoggerBoard`.
        """
        if train_logger is not None:
            self._boards.append(TrainLoggerBoard(train_logger))
        if tensorboard:
            folder = self.log.path.with_name("tensorboard")
            self._boards.append(TensorBoard(folder, self.first))
        self.log.rewind(self.first)

    def close(self) -> None:
        """Flush the files."""
        self._show(lambda board: board.close())

    def after_step(self) -> None:
        """Count a step; the time since the last mark was spent on it."""
        if not self._taken:
            self._taken = True
            # With what is compiled, and loaded, at first use.
            logger.info("First step after %.1f s", time.time() - self.began)
        self._seconds += time.time() - self._mark
        self._steps += 1
        self.skip()

    def skip(self) -> None:
        """Leave out of the speed what was done since the last step."""
        self._mark = time.time()

    def progress(self, step: int) -> dict:
        """Say how training goes since the last call, and measure anew."""
        speed = self._steps * self.step_tokens / max(self._seconds, 1e-9)
        self._seconds, self._steps = 0.0, 0
        entry: dict[str, float | str] = {
            "tokens": step * self.step_tokens,
            "tokens_per_second": round(speed, 1),
        }
        if self.peak_tflops and self.flops:
            peak = self.peak_tflops * 1e12 * world_size()
            entry["mfu"] = round(speed * self.flops / peak, 4)
        entry["memory_GB"] = round(memory_gb(self.device_type), 2)
        # Of the whole session: validation and checkpoints take time as well.
        pace = (time.time() - self.began) / max(1, step - self.first)
        minutes, seconds = divmod(round((self.num_steps - step) * pace), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
        entry["eta"] = f"{clock}:{seconds:02d}"
        return entry

    def write(self, entry: dict) -> None:
        """Write an entry, see :meth:`TrainLog.write`; main process alone."""
        self.log.write(entry)
        step, parts = entry["step"], self.log.parts(entry)
        self._show(lambda board: board.add(step, parts))

    def add_audio(self, step: int, name: str, *sound: Any) -> None:
        """Show a waveform and its sample rate; main process alone."""
        self._show(lambda board: board.add_audio(step, name, *sound))

    def _show(self, function: Callable[[Board], None]) -> None:
        """Do what concerns the boards; training goes on without them."""
        for board in list(self._boards):
            try:
                function(board)
            except Exception as error:
                self._boards.remove(board)
                name = type(board).__name__
                logger.warning("%s gets no more curves: %s", name, error)


def memory_gb(device_type: str) -> float:
    """Return the most memory used so far, in units of 2**30 bytes.

    On ``cuda`` that of tensors, else the process's resident memory.
    """
    if device_type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In kibibytes; on macOS in bytes.
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def draw_curves(entries: list[dict], path: str | Path) -> None:
    """Draw losses, learning rate and gradient norm over the steps."""
    # Not pyplot, which keeps figures and asks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True)
    for axis, (name, label) in zip(axes.flat, _CURVES.items(), strict=True):
        curves = defaultdict(list)
        for entry in entries:
            value = entry.get(name, {})
            named = value if isinstance(value, dict) else {"": value}
            for source, number in named.items():
                curves[source].append((entry["step"], number))
        for source, points in sorted(curves.items()):
            marker = "." if source else None  # validation has few points
            axis.plot(*zip(*points, strict=True), marker=marker, label=source)
        if any(curves):
            axis.legend()
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("optimizer step")
    with atomic_path(path) as temporary:
        canvas.print_png(temporary)
