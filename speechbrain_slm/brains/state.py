"""Weights and optimizer state on disk: the same files for any parallelism.

Under FSDP each rank holds a slice of every tensor. The slices are gathered
where a checkpoint is written and cut again where it is read, one tensor at a
time, so that a checkpoint can be resumed on another number of ranks and
without FSDP. Every rank must call each of these functions.
"""

import pickle
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_model
from torch.distributed.tensor import DTensor, distribute_tensor

from speechbrain_slm.utils.distributed import is_main


def _gather(tensor):
    """Return the whole tensor on the CPU of the main process, else None."""
    if not isinstance(tensor, DTensor):
        return tensor.detach().cpu() if is_main() else None
    whole = tensor.full_tensor()
    # Copied: it is a part of a buffer whose length the ranks divide.
    return whole.detach().to("cpu", copy=True) if is_main() else None


def _cut(tensor, like):
    """Return this rank's slice of a tensor, cut as another one is."""
    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(
            tensor.to(like.device), like.device_mesh, like.placements
        )
    return tensor


def whole_weights(module: torch.nn.Module) -> dict:
    """Gather a module's weights.

    Returns
    -------
    Like ``state_dict()``, on the CPU; tied weights are one tensor. On
    other ranks than the main one its values are None.
    """
    state = module.state_dict(keep_vars=True)
    unique = {id(tensor): tensor for tensor in state.values()}
    whole = {number: _gather(tensor) for number, tensor in unique.items()}
    return {name: whole[id(tensor)] for name, tensor in state.items()}


def check_finite(content: object, name: str) -> None:
    """Refuse tensors that hold NaN or infinity.

    Arguments
    ---------
    content
        Tensors in dictionaries and lists of any depth; the rest is passed
        over.

    Raises
    ------
    FloatingPointError
        Names the first such tensor.

    Example
    -------
    >>> check_finite({"state": {0: {"step": torch.tensor(3.0)}}}, "optimizer")
    >>> check_finite({"bias": torch.tensor([1.0, torch.nan])}, "model")
    Traceback (most recent call last):
    ...
    FloatingPointError: model: bias holds values that are not finite
    """
    found = _not_finite(content)
    if found is not None:
        where = ".".join(map(str, found))
        raise FloatingPointError(
            f"{name}: {where} holds values that are not finite"
        )


def _not_finite(content):
    """Return the keys that lead to a tensor that is not finite, or None."""
    if torch.is_tensor(content):
        return None if torch.isfinite(content).all() else ()
    pairs = ()
    if isinstance(content, dict):
        pairs = content.items()
    elif isinstance(content, list | tuple):
        pairs = enumerate(content)
    for key, value in pairs:
        found = _not_finite(value)
        if found is not None:
            return (key, *found)
    return None


def save_weights(module: torch.nn.Module, path: Path) -> None:
    """Write a module's weights as safetensors.

    Raises
    ------
    FloatingPointError
        If a weight is not finite: nobody could go on from there.
    """
    weights = whole_weights(module)
    if is_main():
        check_finite(weights, path.stem)
        save_model(SimpleNamespace(state_dict=lambda: weights), str(path))


def read_weights(path: str | Path) -> dict:
    """Read a safetensors file whole.

    Returns
    -------
    Name -> tensor, on the CPU.

    Raises
    ------
    ValueError
        If it is damaged; safetensors would not name it.
    """
    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def read_optimizer(path: str | Path) -> dict:
    """Read an optimizer's state; what could run code is refused.

    Returns
    -------
    Its tensors on the CPU.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def load_weights(
    module: torch.nn.Module, path: str | Path, end_of_epoch: bool = False
) -> None:
    """Read what :func:`save_weights` wrote.

    Arguments
    ---------
    module : Sharded or not, however it was when the file was written.
    end_of_epoch : Not used; SpeechBrain's Checkpointer passes it.

    Raises
    ------
    RuntimeError
        If a weight is missing, too many, or of another shape.
    """
    saved = read_weights(path)
    state = module.state_dict(keep_vars=True)
    # Of tied weights the file holds one name.
    by_tensor = {
        id(state[name]): saved[name] for name in saved if name in state
    }
    found = {
        name: _cut(by_tensor[id(tensor)], tensor)
        for name, tensor in state.items()
        if id(tensor) in by_tensor
    }
    module.load_state_dict({**saved, **found})


def save_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Write an optimizer's state.

    Arguments
    ---------
    optimizer : Of sharded parameters or not.

    Raises
    ------
    FloatingPointError
        If a value is not finite.
    """
    content = optimizer.state_dict()
    content["state"] = {
        number: {
            name: _gather(value) if torch.is_tensor(value) else value
            for name, value in values.items()
        }
        for number, values in content["state"].items()
    }
    if is_main():
        check_finite(content, path.stem)
        torch.save(content, path)


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    path: str | Path,
    end_of_epoch: bool = False,
) -> None:
    """Read what :func:`save_optimizer` wrote.

    Arguments
    ---------
    optimizer : Of sharded parameters or not.
    end_of_epoch : Not used; SpeechBrain's Checkpointer passes it.
    """
    content = read_optimizer(path)
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    content["state"] = {
        number: {
            name: _cut(value, parameters[number])
            if torch.is_tensor(value)
            else value
            for name, value in values.items()
        }
        for number, values in content["state"].items()
    }
    optimizer.load_state_dict(content)
