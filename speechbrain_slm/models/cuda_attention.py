"""The kernels that attend within the documents of a batch, on a GPU.

Which is taken where:

- ``varlen_attn`` (FlashAttention) for fp16 and bf16, from torch 2.10 on. There
  and in 2.11 it takes grouped heads as they come; later it wants to be told
  so by ``enable_gqa``, which the older ones do not know. A form before these
  has neither ``scale`` nor ``window_size`` and is passed over.
- ``flex_attention``, compiled by Triton, for fp32, and for all types where the
  former is not there, or the card (before Ampere) or the build lacks it.

The first import takes 1.3 s (of torch.compile and of the kernels' own
modules), so it is left to the first model that needs it.
"""

import contextlib
import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

varlen_attn: Any = None
with contextlib.suppress(ImportError):
    from torch.nn.attention.varlen import varlen_attn

compiled_flex = torch.compile(flex_attention)


def varlen_options(function: Callable | None) -> set[str] | None:
    """Return the keywords that a ``varlen_attn`` knows, None if too old."""
    names = {*inspect.signature(function).parameters} if function else set()
    return names if {"scale", "window_size"} <= names else None


def has_flash() -> bool:
    """Tell whether this build and this card can run FlashAttention."""
    built = torch.backends.cuda.is_flash_attention_available()
    return built and torch.cuda.get_device_capability() >= (8, 0)


# Read once: a compiled graph cannot look at signatures, nor at cards.
VARLEN = varlen_options(varlen_attn)
if torch.cuda.is_available() and not has_flash():
    VARLEN = None
TRITON = importlib.util.find_spec("triton") is not None


def attend_on_cuda(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    scaling: float | None,
) -> torch.Tensor:
    """Attend within documents by the kernel that torch and the type allow.

    RuntimeError if there is none.
    """
    if VARLEN is not None and query.dtype != torch.float32:
        return varlen_documents(query, key, value, bounds, scaling)
    if not TRITON:
        raise RuntimeError(
            f"attention: blocked has no kernel for {query.dtype} here: "
            "varlen_attn takes bf16 and fp16, from torch 2.10 and Ampere cards "
            f"on (this is torch {torch.__version__}), and flex_attention "
            "needs the package triton. pip install triton, or set attention "
            "to open."
        )
    return flex_documents(query, key, value, bounds, scaling)


def varlen_documents(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    scaling: float | None,
) -> torch.Tensor:
    """Attend by FlashAttention over sequences of several lengths."""
    batch, _, length, _ = query.shape
    # [B, H, T, D] -> [B * T, H, D]
    query, key, value = (
        tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value)
    )
    options: dict = {"scale": scaling, "window_size": (-1, 0)}
    if query.shape[1] != key.shape[1] and "enable_gqa" in (VARLEN or ()):
        options["enable_gqa"] = True
    out = varlen_attn(
        query, key, value, bounds, bounds, length, length, **options
    )
    return out.view(batch, length, *out.shape[1:])


def flex_documents(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    scaling: float | None,
) -> torch.Tensor:
    """Attend by FlexAttention, which skips blocks that no document spans."""
    batch, _, length, _ = query.shape
    places = torch.arange(batch * length, device=query.device)
    document = torch.searchsorted(bounds, places, right=True)
    document = document.view(batch, length)

    def within(row, head, at, to):
        return (at >= to) & (document[row, at] == document[row, to])

    size = (batch, None, length, length)
    mask = create_block_mask(within, *size, device=query.device)
    grouped = query.shape[1] != key.shape[1]
    options: Any = {"block_mask": mask, "scale": scaling}
    out = compiled_flex(query, key, value, **options, enable_gqa=grouped)
    return out.transpose(1, 2)
