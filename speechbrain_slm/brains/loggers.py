"""Where the curves of a run are shown, beside its own log."""

import inspect
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from speechbrain_slm.utils.atomic import write_atomic

logger = logging.getLogger(__name__)


class Board(Protocol):
    """Shows numbers and sounds; the main process alone has some."""

    def add(self, step: int, parts: dict[str, dict]) -> None:
        """Show the parts of an entry; see ``TrainLog.parts``."""

    def add_audio(
        self, step: int, name: str, waveform: torch.Tensor, sample_rate: int
    ) -> None:
        """Show a waveform, ``[T]``."""

    def close(self) -> None:
        """Write what is still to be written."""


class TensorBoard:
    """Curves in a folder that ``tensorboard --logdir`` shows.

    Arguments
    ---------
    first : The step at which the session begins.
    """

    def __init__(self, folder: str | Path, first: int) -> None:
        # Its import takes a second. Not SpeechBrain's TensorboardLogger: it
        # counts its own steps, from 1 in every session, so the curve of a
        # resumed run would begin anew.
        from torch.utils.tensorboard import SummaryWriter

        # What will be trained again is hidden, as it is in the log.
        self._writer = SummaryWriter(str(folder), purge_step=first + 1)

    def add(self, step: int, parts: dict[str, dict]) -> None:
        """Show the parts of an entry."""
        for kind, values in parts.items():
            for name, value in _numbers(values).items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)
        self._writer.flush()

    def add_audio(
        self, step: int, name: str, waveform: torch.Tensor, sample_rate: int
    ) -> None:
        """Show a waveform."""
        self._writer.add_audio(name, waveform[None], step, sample_rate)

    def close(self) -> None:
        """Write what is still to be written."""
        self._writer.close()


class TrainLoggerBoard:
    """One of SpeechBrain's loggers, ``speechbrain.utils.train_logger``.

    Arguments
    ---------
    make
        Makes the logger (``!name:`` in a YAML file), or a mapping, such as an
        included fragment, in which ``train_logger`` does. ValueError says
        why where it cannot.
    """

    def __init__(self, make: Callable | Mapping) -> None:
        maker: Any = make
        if isinstance(make, Mapping):
            maker = make["train_logger"]
        try:
            self._logger: Any = maker()
        except Exception as error:
            # SpeechBrain's WandBLogger fails at saying why it has failed.
            reason = error.__context__ or error
            raise ValueError(
                f"train_logger cannot be opened ({type(reason).__name__}: "
                f"{reason}). Set it right, or to null to train without it."
            ) from error

    def add(self, step: int, parts: dict[str, dict]) -> None:
        """Show the parts of an entry, those of ``seen`` among the training."""
        train = _numbers(parts.get("train", {}))
        seen = parts.get("seen", {}).items()
        train |= {f"seen_{name}": count for name, count in seen}
        valid = _numbers(parts.get("valid", {}))
        # Their word for where a training is; some of them take it for the
        # number of the step.
        self._alone("log_stats", {"epoch": step}, train or None, valid or None)

    def add_audio(
        self, step: int, name: str, waveform: torch.Tensor, sample_rate: int
    ) -> None:
        """Show a waveform, where the logger is able to."""
        run = getattr(self._logger, "run", None)
        if hasattr(self._logger, "log_audio"):
            self._alone("log_audio", name, waveform, sample_rate)
        elif run is not None:
            import wandb

            sound = wandb.Audio(waveform.numpy(), sample_rate=sample_rate)
            run.log({name: sound}, step=step)

    def close(self) -> None:
        """End a run of Weights & Biases, which uploads what is left."""
        run = getattr(self._logger, "run", None)
        if run is not None:
            run.finish()

    def _alone(self, name: str, *arguments: object) -> None:
        # Without main_process_only, in which the other ranks take part.
        method = inspect.unwrap(getattr(type(self._logger), name))
        method(self._logger, *arguments)


def wandb_run(folder: str | Path, **options: Any) -> Any:
    """Begin a run of Weights & Biases, or go on with the one of a folder.

    Arguments
    ---------
    folder : The run's own; ``wandb_id.txt`` in it names the run.
    **options : Further ones of ``wandb.init``.
    """
    import wandb

    path = Path(folder) / "wandb_id.txt"
    if not path.is_file():
        write_atomic(path, secrets.token_hex(8))
    identifier = path.read_text(encoding="utf-8").strip()
    how = {"dir": str(folder), "id": identifier, "resume": "allow"}
    return wandb.init(**how, **options)


def _numbers(values: dict) -> dict[str, int | float]:
    kinds = (int, float)
    return {k: v for k, v in values.items() if isinstance(v, kinds)}
