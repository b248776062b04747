"""Checkpoints that are whole or absent, and recovery that says what it did."""

import logging
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.checkpoints import Checkpoint, Checkpointer
from speechbrain.utils.distributed import ddp_broadcast

from speechbrain_slm.brains.state import (
    check_finite,
    load_optimizer,
    load_weights,
    read_optimizer,
    read_weights,
    save_optimizer,
    save_weights,
)
from speechbrain_slm.utils.atomic import (
    TEMPORARY,
    fsync_file,
    fsync_folder,
    remove_temporary,
)
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.sealing import FILES_JSON, seal, unsealed

logger = logging.getLogger(__name__)
_READERS = {load_weights: read_weights, load_optimizer: read_optimizer}


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, published with one rename.

    SpeechBrain writes ``CKPT.yaml``, by which it knows a checkpoint, before
    the payload; a process that is killed in between leaves a newest
    checkpoint that cannot be loaded. Here a checkpoint is written to a
    temporary folder with the SHA-256 of each file, reaches the disk, and is
    then renamed. Recovery takes the newest whole one. Modules are stored as
    safetensors, whole: a checkpoint can be resumed on any number of ranks,
    with DDP or FSDP.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> layer = torch.nn.Linear(2, 2)
    >>> checkpointer = AtomicCheckpointer(folder, {"layer": layer})
    >>> _ = checkpointer.save_checkpoint(name="step-1")
    >>> saved = layer.weight.detach().clone()
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> checkpointer.recover_if_possible().path.name
    'CKPT+step-1'
    >>> torch.equal(saved, layer.weight)
    True
    """

    checkpoints_dir: Path

    def __init__(
        self, checkpoints_dir: str | Path, recoverables: dict | None = None
    ) -> None:
        super().__init__(checkpoints_dir)
        for name, recoverable in (recoverables or {}).items():
            self.add_recoverable(name, recoverable)

    def add_recoverable(
        self, name: str, obj: object, *args: Any, **kwargs: Any
    ) -> None:
        """Register an object; modules and optimizers get our own hooks."""
        if not args and not kwargs:
            if isinstance(obj, torch.nn.Module):
                args = (load_weights, save_weights)
            elif isinstance(obj, torch.optim.Optimizer):
                args = (load_optimizer, save_optimizer)
        super().add_recoverable(name, obj, *args, **kwargs)

    def save_checkpoint(
        self,
        meta: dict | None = None,
        end_of_epoch: bool = False,
        name: str | None = None,
        verbosity: int = logging.INFO,
    ) -> Path:
        """Save all recoverables; every rank must call it, and gets the path.

        FloatingPointError if a value is not finite, RuntimeError if it cannot
        be written; nothing is published then.

        Arguments
        ---------
        meta : Kept in ``CKPT.yaml``.
        name : Put behind ``CKPT+``; a time stamp by default.
        """
        published, path = self.checkpoints_dir, None
        staging = published / _temporary()
        if is_main():
            # Only one process writes here, so what killed ones left can go.
            remove_temporary(published)
            staging.mkdir()
        self.checkpoints_dir = staging
        try:
            saved = super().save_checkpoint(
                meta or {}, end_of_epoch, name, verbosity=logging.DEBUG
            )
            barrier()
            if is_main():
                path = _publish(saved.path, published)
                logger.log(verbosity, "Saved a checkpoint in %s", path)
        except FloatingPointError as error:
            raise FloatingPointError(
                f"{published}: no checkpoint is made of what nobody could go "
                f"on from ({error}; the loss was finite until now). The "
                "earlier checkpoints are untouched; a lower learning_rate, in "
                "another output_folder, may help"
            ) from error
        except Exception as error:
            # Of a full disk, torch.save says no more than "unexpected pos".
            raise RuntimeError(
                f"{published}: a checkpoint could not be written ({error}). "
                "Is the disk full? The earlier checkpoints are untouched: "
                "make room and run the same command again."
            ) from error
        finally:
            self.checkpoints_dir = published
            if is_main():
                shutil.rmtree(staging, ignore_errors=True)
        return ddp_broadcast(path)

    def save_and_keep_only(
        self,
        meta: dict | None = None,
        name: str | None = None,
        num_to_keep: int = 2,
    ) -> None:
        """Save a checkpoint, then delete all but the newest ones.

        Every rank must call it. Later checkpoints need later names.
        """
        # SpeechBrain's own collects sort keys in a default argument from call
        # to call; nothing is shared here.
        newest = self.save_checkpoint(meta=meta, name=name)
        if is_main():
            # A later name can only be a torn checkpoint that recovery passed
            # over: this run has come to its place again.
            folders = self._newest_first()
            kept = [path for path in folders if path.name <= newest.name]
            for path in set(folders) - set(kept[: max(1, num_to_keep)]):
                if (path / FILES_JSON).is_file():  # published by this class
                    # Renamed first: a kill must not leave half a checkpoint.
                    doomed = path.rename(self.checkpoints_dir / _temporary())
                    shutil.rmtree(doomed)
        barrier()

    def give_up_after(self, checkpoint: Checkpoint) -> None:
        """Never find again the checkpoints that were passed over for one."""
        # A fault may go away (of a network disk, say). The training log of a
        # run that resumed earlier, and was killed soon, would have a gap then.
        if is_main():
            for path in self._newest_first():
                if path.name > checkpoint.path.name:  # the next save deletes it
                    path.rename(path.with_name(f"{TEMPORARY}{path.name}"))
        barrier()

    def _newest_first(self) -> list[Path]:
        return sorted(self.checkpoints_dir.glob("CKPT+*"), reverse=True)

    def find_checkpoint(self, *args: Any, **kwargs: Any) -> Checkpoint | None:
        """Return the newest whole checkpoint, the same on every rank.

        One that holds NaN or infinity is not. RuntimeError if there are some
        and none is whole: starting afresh would hide that work was lost.
        """
        if any(args) or any(kwargs.values()):
            raise ValueError("AtomicCheckpointer finds by recency alone")
        chosen, torn = None, []
        # The main process chooses for all: a disk may be torn for one node.
        for path in self._newest_first() if is_main() else ():
            fault = self._damage(path)
            if fault is None:
                chosen = path
                break
            torn.append(f"{path}: {fault}")
            logger.warning("Checkpoint passed over: %s", torn[-1])
        chosen, torn = ddp_broadcast((chosen, torn))
        if chosen is not None:
            return self._construct_checkpoint_objects([chosen])[0]
        if torn:
            raise RuntimeError(
                f"No checkpoint is whole: {'; '.join(torn)}. Restore one, or "
                "remove the folder to start afresh."
            )
        return None

    def _damage(self, path: Path) -> str | None:
        """Say what is wrong with a checkpoint; None where nothing is."""
        # What will be loaded is read: a sum is true, too, of what was damaged
        # before it was taken.
        fault = unsealed(path, ["CKPT.yaml"])
        for name, loader in self.custom_load_hooks.items():
            file = path / f"{name}.ckpt"
            try:
                if fault is None and loader in _READERS:
                    check_finite(_READERS[loader](file), file.name)
            except (OSError, ValueError, FloatingPointError) as error:
                fault = str(error)
        return fault


def _temporary() -> str:
    return f"{TEMPORARY}{uuid.uuid4().hex[:8]}"


def _publish(source: Path, folder: Path) -> Path:
    """Move a checkpoint to where it is found, once it is on the disk."""
    files = sorted(source.iterdir())
    seal(source, files)
    for file in files:
        fsync_file(file)
    fsync_folder(source)
    target = folder / source.name
    if target.exists():  # A torn one that recovery passed over.
        target.rename(source.parent / "replaced")
    source.rename(target)
    # The rename is an entry of the folder: without this a power failure may
    # leave the folder as it was before.
    fsync_folder(folder)
    return target
