"""Several devices: whole copies (DDP) or slices (FSDP2) of the model."""

from collections.abc import Iterable

import torch
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from speechbrain_slm.utils.distributed import world_size


def layers_of(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Find the layers that are compiled and sharded one by one, inner first.

    Hugging Face models name their classes in ``_no_split_modules``.
    """
    classes = set(getattr(module, "_no_split_modules", None) or ())
    layers = [m for m in module.modules() if type(m).__name__ in classes]
    return layers[::-1]


def shard(module: torch.nn.Module, device_type: str, precision: str) -> None:
    """Leave each rank a slice of the parameters, the gradients and the rest.

    The weights become those of the main process. With ``precision`` bf16,
    layers get theirs as bf16; slices, sums of gradients and updates stay fp32.
    """
    # Their import takes a second.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # fully_shard cuts whatever each rank has: unlike DDP it does not start
    # from one rank's weights.
    for tensor in (*module.parameters(), *module.buffers()):
        torch.distributed.broadcast(tensor.data, 0)
    policy = MixedPrecisionPolicy()
    if precision == "bf16":
        # Sums of gradients in bf16 lose the small ones: with 8 bits of
        # mantissa, 256 + 1 is 256.
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32
        )
    mesh = init_device_mesh(device_type, (world_size(),))
    # Layer by layer, so that only one layer is whole at a time; the call for
    # the model takes what stands in no layer (embeddings, head, last norm).
    for part in (*layers_of(module), module):
        fully_shard(part, mesh=mesh, mp_policy=policy)


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Add up the tensors of all ranks, in place; every rank must call it."""
    if world_size() > 1:
        torch.distributed.all_reduce(tensor)
    return tensor


def clip_gradients(
    parameters: Iterable[torch.nn.Parameter], limit: float
) -> torch.Tensor:
    """Scale all gradients together to a norm of at most ``limit``.

    Not if it is 0 or less. Returns the norm before, a scalar, the same on all
    ranks. Parameters are sharded or not.

    Example
    -------
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_gradients([weight], 0.0), clip_gradients([weight], 1.0)
    (tensor(5.), tensor(5.))
    >>> weight.grad
    tensor([0.6000, 0.8000])
    """
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    # Of slices it is a norm of this rank's share until it is asked for whole.
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if limit > 0:
        clip_grads_with_norm_(parameters, limit, norm)
    return norm
