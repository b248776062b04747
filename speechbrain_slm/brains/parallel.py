"""Several devices: whole copies (DDP) or slices (FSDP2) of the model."""

import contextlib

import speechbrain as sb
import torch
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from speechbrain_slm.utils.distributed import world_size

PARALLEL = ("ddp", "fsdp")


def check_division(rows_per_step: int, factor: int) -> None:
    """Refuse a global batch that ranks and micro-batches cannot divide.

    Arguments
    ---------
    rows_per_step : Rows in the global batch.
    factor : ``grad_accumulation_factor``.

    Raises
    ------
    ValueError
        Names the values and the nearest ones that fit.

    Example
    -------
    >>> check_division(8, 3)
    Traceback (most recent call last):
    ...
    ValueError: rows_per_step is 8; 1 rank(s) x grad_accumulation_factor 3
    cannot divide it. Set rows_per_step to 6 or 9, or change the ranks or the
    factor.
    """
    ranks = world_size()
    parts = ranks * factor
    if factor < 1 or rows_per_step % parts:
        parts = max(parts, ranks)
        below = rows_per_step // parts * parts
        fits = [str(n) for n in (below, below + parts) if n]
        raise ValueError(
            f"rows_per_step is {rows_per_step}; {ranks} rank(s) x "
            f"grad_accumulation_factor {factor} cannot divide it. Set "
            f"rows_per_step to {' or '.join(fits)}, or change the ranks or "
            "the factor."
        )


def layers_of(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Find the layers of a model that are compiled and sharded one by one.

    Arguments
    ---------
    module : Hugging Face models name the classes in ``_no_split_modules``.

    Returns
    -------
    Inner ones first; empty where the model names none.
    """
    classes = set(getattr(module, "_no_split_modules", None) or ())
    layers = [m for m in module.modules() if type(m).__name__ in classes]
    return layers[::-1]


def shard(module: torch.nn.Module, device_type: str, precision: str) -> None:
    """Leave each rank a slice of the parameters, the gradients and the rest.

    Arguments
    ---------
    module : Changed in place; its weights become those of the main process.
    device_type : ``"cpu"`` or ``"cuda"``.
    precision
        With ``"bf16"``, layers get their parameters as bf16; slices,
        gradients' sums and updates stay fp32.
    """
    # Their import takes a second.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    for tensor in (*module.parameters(), *module.buffers()):
        torch.distributed.broadcast(tensor.data, 0)
    options = {"mesh": init_device_mesh(device_type, (world_size(),))}
    if precision == "bf16":
        options["mp_policy"] = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32
        )
    for layer in layers_of(module):
        fully_shard(layer, **options)
    fully_shard(module, **options)


def clip_gradients(parameters, limit: float) -> torch.Tensor:
    """Scale all gradients together to a norm of at most ``limit``.

    Arguments
    ---------
    parameters : list of torch.nn.Parameter
        Of all groups of an optimizer, sharded or not.
    limit : Not positive: nothing is scaled.

    Returns
    -------
    The norm before, a scalar, the same on all ranks.

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
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if limit > 0:
        clip_grads_with_norm_(parameters, limit, norm)
    return norm


class ParallelBrain(sb.Brain):
    """Wrap the modules with DDP, or shard them, where there are ranks.

    ``parallel: fsdp`` without ``torchrun`` trains as it is: one process has
    nothing to share out.
    """

    @property
    def sharded(self):
        """Whether each rank holds a slice of the weights."""
        return self.distributed_launch and self.hparams.parallel == "fsdp"

    def _compile(self):
        if not self.sharded:
            super()._compile()
        elif self.compile:
            # Layer by layer: the hooks that gather the slices of a layer
            # stand between the graphs.
            for name in self.compile_module_keys or self.modules:
                for layer in layers_of(self.modules[name]):
                    layer.compile(
                        mode=self.compile_mode,
                        fullgraph=self.compile_using_fullgraph,
                        dynamic=self.compile_using_dynamic_shape_tracing,
                    )

    def _wrap_distributed(self):
        if not self.sharded:
            super()._wrap_distributed()
            return
        for module in self.modules.values():
            shard(module, self.device_type, self.precision)

    @contextlib.contextmanager
    def no_sync(self, use: bool = True):
        """Keep gradients on their rank, while they are accumulated.

        Arguments
        ---------
        use : False: synchronise them all the same.
        """
        if self.sharded:
            for module in self.modules.values():
                module.set_requires_gradient_sync(not use)
            yield
        else:
            with super().no_sync(use):
                yield

    def share_of(self, count: int) -> float | torch.Tensor:
        """Return what one scored position weighs, before ranks average.

        Arguments
        ---------
        count : Scored positions of this rank's rows.

        Returns
        -------
        Ranks times one over the scored positions of all of them.
        """
        if world_size() == 1:
            return 1 / max(1, count)
        # On the device, so that the host need not wait for it.
        total = torch.tensor(float(count), device=self.device)
        sb.utils.distributed.ddp_all_reduce(
            total, torch.distributed.ReduceOp.SUM
        )
        return world_size() / total.clamp(min=1)
