"""Weights and optimizer state on disk: the same files for any parallelism.

Under FSDP each rank holds a slice of every tensor. The slices are gathered
where a checkpoint is written and cut again where it is read, one tensor at a
time, so that a checkpoint can be resumed on another number of ranks and
without FSDP. Every rank must call each of these functions.
"""

# Not by torch.distributed.checkpoint.state_dict. It copies tied weights apart,
# so that a file would hold the embeddings twice; a weight that a file lacks
# keeps what it had, without a word; and an optimizer's state is called by the
# names of the model's parameters, which the optimizer alone does not know, and
# is made ready for loading by a step with gradients of zero. What it would
# spare us are _gather and _cut.

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_model
from torch.distributed.tensor import DTensor, distribute_tensor

from speechbrain_slm.utils.distributed import is_main


def _gather(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return the whole tensor on the CPU of the main process, else None."""
    if not isinstance(tensor, DTensor):
        return tensor.detach().cpu() if is_main() else None
    whole = tensor.full_tensor()
    # Copied: it is a part of a buffer whose length the ranks divide.
    return whole.detach().to("cpu", copy=True) if is_main() else None


def _cut(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return this rank's slice of a tensor, cut as another one is."""
    # An optimizer's count of steps is a scalar beside a sharded parameter.
    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(
            tensor.to(like.device), like.device_mesh, like.placements
        )
    return tensor


def whole_weights(module: torch.nn.Module) -> dict[str, Any]:
    """Gather a module's weights on the CPU, named as in ``state_dict()``.

    Tied weights are one tensor; all are None on other ranks than the main one.
    """
    state = module.state_dict(keep_vars=True)
    unique = {id(tensor): tensor for tensor in state.values()}
    whole = {number: _gather(tensor) for number, tensor in unique.items()}
    return {name: whole[id(tensor)] for name, tensor in state.items()}


def check_finite(content: object, name: str, keys: tuple = ()) -> None:
    """Refuse tensors that hold NaN or infinity, in mappings of any depth.

    FloatingPointError names the first: what it is in, and its keys.

    Example
    -------
    >>> check_finite({"state": {0: {"step": torch.tensor(3.0)}}}, "optimizer")
    >>> check_finite({"bias": torch.tensor([1.0, torch.nan])}, "model")
    Traceback (most recent call last):
    ...
    FloatingPointError: model: bias holds values that are not finite
    """
    if torch.is_tensor(content):
        if not torch.isfinite(content).all():
            where = ".".join(map(str, keys))
            raise FloatingPointError(
                f"{name}: {where} holds values that are not finite"
            )
    elif isinstance(content, dict):
        for key, value in content.items():
            check_finite(value, name, (*keys, key))
    elif isinstance(content, list | tuple):
        check_finite(dict(enumerate(content)), name, keys)


def save_weights(module: torch.nn.Module, path: Path) -> None:
    """Write a module's weights as safetensors; they must be finite."""
    weights = whole_weights(module)
    if is_main():
        check_finite(weights, path.stem)
        # All that it takes of a module; of tied weights it then writes one.
        whole: Any = SimpleNamespace(state_dict=lambda: weights)
        save_model(whole, str(path))


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; a damaged one is a ValueError that names it."""
    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def load_weights(
    module: torch.nn.Module, path: str | Path, end_of_epoch: bool = False
) -> None:
    """Read what :func:`save_weights` wrote, for a module sharded or not.

    RuntimeError if a weight is missing, too many, or of another shape.
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


def _replace_state(content: dict, replace: Callable) -> None:
    """Replace the tensors of an optimizer's state, in place."""
    content["state"] = {
        number: {
            name: replace(number, value) if torch.is_tensor(value) else value
            for name, value in values.items()
        }
        for number, values in content["state"].items()
    }


def save_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Write an optimizer's state; it must be finite."""
    content = optimizer.state_dict()
    _replace_state(content, lambda number, value: _gather(value))
    if is_main():
        check_finite(content, path.stem)
        torch.save(content, path)


def read_optimizer(path: str | Path) -> dict:
    """Read an optimizer's state on the CPU; what could run code is refused."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    path: str | Path,
    end_of_epoch: bool = False,
) -> None:
    """Read what :func:`save_optimizer` wrote, for sharded parameters or not."""
    content = read_optimizer(path)
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    _replace_state(
        content, lambda number, value: _cut(value, parameters[number])
    )
    optimizer.load_state_dict(content)
