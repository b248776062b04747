"""A model compiled layer by layer, and what to say where a card refuses."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch

from speechbrain_slm.brains.parallel import layers_of


def compile_layers(module: torch.nn.Module, **options: Any) -> None:
    """Compile the layers of a module, in place, into one graph for all.

    A module without such layers is compiled as a whole. ``options`` are those
    of ``torch.compile``.
    """
    # Layers of one class differ in their weights alone, which are inputs of
    # a graph: the first one compiles for all, in seconds where a whole model
    # takes minutes. Embeddings stay as they are: compiled, their gradient is
    # added up in an order that changes, and a resumed run would differ.
    import torch._dynamo.config as settings  # takes a second

    # Else whatever meets too many shapes goes on without a graph, at half the
    # speed, for the rest of the run.
    settings.fail_on_recompile_limit_hit = True
    # It would cut a layer's graph where DDP's buckets end.
    settings.optimize_ddp = False
    for part in layers_of(module) or [module]:
        part.compile(**options)


@contextlib.contextmanager
def explained(rows: int, row_length: int, factor: int) -> Iterator[None]:
    """Say what to do about memory that is full, and a model uncompiled.

    Arguments
    ---------
    rows : Of one rank and step.
    factor : ``grad_accumulation_factor``: micro-batches of these rows.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"A micro-batch of {rows // factor} rows of {row_length} tokens "
            f"does not fit the device's memory{_memory()}. "
            f"{_smaller(rows, factor)} --lm '{{activation_checkpointing: "
            "True}' stores less, too, and several devices share weights out "
            "by --parallel fsdp."
        ) from error
    except Exception as error:
        if not _of_compiler(error):
            raise
        said = " ".join(str(error).split("\n")[:2])
        raise RuntimeError(
            f"The model does not compile ({type(error).__name__}: "
            f"{said:.300}). --compile false trains without, at about half the "
            "speed on a GPU; --debug shows all that the compiler says."
        ) from error


def _memory() -> str:
    if not torch.cuda.is_available():
        return ""
    total = torch.cuda.get_device_properties().total_memory
    used = torch.cuda.max_memory_allocated()
    of = f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB were in use"
    return f" ({torch.cuda.get_device_name()}: {of})"


def _smaller(rows: int, factor: int) -> str:
    """Advise the next factor that at least halves a micro-batch."""
    larger = (n for n in range(2 * factor, rows + 1) if rows % n == 0)
    if number := next(larger, rows if rows > factor else None):
        at_once = rows // number
        return (
            f"Set --grad_accumulation_factor {number} ({at_once} "
            f"row{'s' if at_once > 1 else ''} at once, the same gradient)."
        )
    return "It is a single row: shorten row_length, or take a larger device."


def _of_compiler(error: Exception) -> bool:
    """Tell whether torch.compile raised it; its import takes a second."""
    faults = sys.modules.get("torch._dynamo.exc")
    if faults is None:
        return False
    kinds = faults.TorchDynamoException, faults.FailOnRecompileLimitHit
    return isinstance(error, kinds)
