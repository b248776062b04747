"""Weights and optimizer state on disk: the same files for any parallelism.

Under FSDP each rank holds a slice of every tensor. The slices are gathered
where a checkpoint is written and cut again where it is read, one tensor at a
time, so that a checkpoint can be resumed on another number of ranks and
without FSDP. Every rank must call each of these functions.
"""

from types import SimpleNamespace

import torch
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


def whole_weights(module):
    """Gather a module's weights.

    Arguments
    ---------
    module : torch.nn.Module
        Sharded or not.

    Returns
    -------
    dict
        Like ``state_dict()``, on the CPU; tied weights are one tensor. On
        other ranks than the main one its values are None.
    """
    state = module.state_dict(keep_vars=True)
    unique = {id(tensor): tensor for tensor in state.values()}
    whole = {number: _gather(tensor) for number, tensor in unique.items()}
    return {name: whole[id(tensor)] for name, tensor in state.items()}


def save_weights(module, path):
    """Write a module's weights as safetensors.

    Arguments
    ---------
    module : torch.nn.Module
        Sharded or not.
    path : str or Path
        The file.
    """
    weights = whole_weights(module)
    if is_main():
        save_model(SimpleNamespace(state_dict=lambda: weights), str(path))


def load_weights(module, path, end_of_epoch=False):
    """Read what :func:`save_weights` wrote.

    Arguments
    ---------
    module : torch.nn.Module
        Sharded or not, however it was when the file was written.
    path : str or Path
        The file.
    end_of_epoch : bool
        Not used; SpeechBrain's Checkpointer passes it.

    Raises
    ------
    RuntimeError
        If a weight is missing, too many, or of another shape.
    """
    saved = load_file(str(path))
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


def save_optimizer(optimizer, path):
    """Write an optimizer's state.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        Of sharded parameters or not.
    path : str or Path
        The file.
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
        torch.save(content, path)


def load_optimizer(optimizer, path, end_of_epoch=False):
    """Read what :func:`save_optimizer` wrote.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        Of sharded parameters or not.
    path : str or Path
        The file.
    end_of_epoch : bool
        Not used; SpeechBrain's Checkpointer passes it.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
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
