"""Attention over rows of stories: open, or blocked between the stories.

Both go through transformers' attention interface, so they serve every model
that does. No mask of the size of a row squared is made. Blocked, on the CPU
each document (a story, or the part of it in a row) is a call of its own; on
the GPU one kernel takes all documents of a batch by their lengths.

Example: with boundary 9, the row ``[4, 9, 1, 2, 9, 9, 9]`` holds the end of a
story, a whole one, and the closing boundary with padding: documents of 1, 3
and 3 positions, whose positions count ``[0, 0, 1, 2, 0, 1, 2]``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "speechbrain_slm_documents"
# Variants of attention that a configuration may ask for and that are not here.
UNSUPPORTED = ("softcap", "s_aux", "position_bias", "cache")
# What a configuration has whose layers make masks of their own (Doge's).
OWN_MASKS = ("keep_window_size", "index_topk")
# transformers hands a mask of four dimensions on as it is. A model that went
# around our attention would add it, and show NaN at once.
NO_MASK = torch.full((1, 1, 1, 1), torch.nan)


def open_inputs(length: int) -> dict:
    """Return what a model of :func:`open_attention` needs beside its ids.

    ``length``: of its rows.
    """
    # Some (OPT) would take positions from the mask.
    positions = torch.arange(length)[None]
    return {
        "position_ids": positions,
        "attention_mask": NO_MASK,
        "is_causal": True,
    }


def open_attention(model: PreTrainedModel) -> bool:
    """Let a model attend over whole rows without a mask, where it is able to.

    Changed in place; as by default where it gets no :func:`open_inputs`.
    """
    # Of itself, transformers looks whether positions start anew in a row: the
    # host waits for the answer, and a compiler, which cannot wait, has a mask
    # made of a row squared, and slower kernels with it.
    config = model.config
    kinds = {*(getattr(config, "layer_types", None) or ["full_attention"])}
    able = (
        model._supports_attention_backend
        and config._attn_implementation == "sdpa"
        and kinds == {"full_attention"}
        and not getattr(config, "sliding_window", None)
        and not any(getattr(config, name, None) for name in OWN_MASKS)
    )
    if able:
        model.set_attn_implementation(NAME)
    return able


def blocked_inputs(
    rows: torch.Tensor | np.ndarray, boundary: int, places: int = 0
) -> dict:
    """Return what a model needs beside its ``input_ids``, for rows ``[B, T]``.

    A document begins at column 0 and at each boundary that does not follow
    another one (those are padding). ``places``: how many documents there is
    room for, if that is enough.

    Returns
    -------
    Keyword arguments of a model that :func:`block_attention` has prepared,
    on the CPU: ``position_ids`` ``[B, T]``, which restart in every document;
    ``cu_seq_lens_q`` int32, where documents begin and end in the flattened
    rows, then empty ones up to ``places``, or to a multiple of 64 that leaves
    some room; and ``attention_mask``, which keeps transformers from building
    one.

    Example
    -------
    >>> rows = torch.tensor([[4, 9, 1, 2, 9, 9, 9], [9, 3, 3, 3, 3, 9, 3]])
    >>> inputs = blocked_inputs(rows, boundary=9)
    >>> inputs["cu_seq_lens_q"][:8].tolist()
    [0, 1, 4, 7, 12, 14, 14, 14]
    >>> inputs["position_ids"][0].tolist()
    [0, 0, 1, 2, 0, 1, 2]
    """
    rows = torch.as_tensor(rows)
    is_boundary = rows == boundary
    begins = is_boundary.clone()
    begins[:, 1:] &= ~is_boundary[:, :-1]
    begins[:, 0] = True
    starts = begins.flatten().nonzero().flatten()
    ends = torch.cat([starts, torch.tensor([rows.numel()])])
    lengths = ends.diff()
    positions = torch.arange(rows.numel()) - starts.repeat_interleave(lengths)
    # A compiled model is compiled anew for every shape that it meets.
    if len(starts) > places:
        places = -(-len(starts) * 5 // 4 // 64) * 64
    empty = ends.new_full((places - len(starts),), rows.numel())
    return {
        "position_ids": positions.view_as(rows),
        "cu_seq_lens_q": torch.cat([ends, empty]).int(),
        "attention_mask": NO_MASK,
    }


def block_attention(model: PreTrainedModel) -> None:
    """Make a model attend within documents; changed in place.

    Without :func:`blocked_inputs` it attends as by default, so that it can
    still generate. An export says nothing of it.
    """
    if not model._supports_attention_backend:
        raise ValueError(
            f"{type(model).__name__} does not use transformers' attention "
            "interface; set attention to open"
        )
    if torch.cuda.is_available():
        # Now, not while a compiler traces the model.
        import speechbrain_slm.models.cuda_attention  # noqa: F401
    model.set_attn_implementation(NAME)


def document_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within documents; called by transformers.

    Arguments
    ---------
    query, key, value : ``[B, heads, T, head_dim]``, each with its own heads.
    cu_seq_lens_q
        See :func:`blocked_inputs`; without it, plain attention, of whole rows
        and without a mask where ``is_causal`` says so.

    Returns
    -------
    ``[B, T, heads, head_dim]``, and no attention weights.
    """
    maskless = cu_seq_lens_q is not None or kwargs.get("is_causal")
    if maskless and attention_mask is not None and attention_mask.numel() > 1:
        raise ValueError(
            f"{type(module).__name__} makes a mask of its own, which would be "
            "without effect; set attention to open, or take another model"
        )
    if cu_seq_lens_q is None:
        mask = None if maskless else attention_mask
        given = module, query, key, value, mask
        # Dynamo of torch 2.7 knows no |= of dictionaries.
        kwargs = {**kwargs, "scaling": scaling, "dropout": dropout}
        return sdpa_attention_forward(*given, **kwargs)
    window = kwargs.get("sliding_window")
    other = [name for name in UNSUPPORTED if kwargs.get(name) is not None]
    if other or (window is not None and window < query.shape[2]):
        raise ValueError(
            f"{type(module).__name__} asks for {other or 'a sliding window'}, "
            "which attention within stories lacks; set attention to open"
        )
    query, key, value = _autocast(query, key, value)
    # The GPU's kernels know no dropout.
    if not query.is_cuda or dropout:
        out = each_document(query, key, value, cu_seq_lens_q, scaling, dropout)
    else:
        # Its import takes a second, which no other run need wait for.
        from speechbrain_slm.models.cuda_attention import attend_on_cuda

        out = attend_on_cuda(query, key, value, cu_seq_lens_q, scaling)
    return out, None


def _autocast(*tensors: torch.Tensor) -> Sequence[torch.Tensor]:
    """Give the tensors the type that autocast gives to attention."""
    # Rotary embeddings have made some of them float32 again, and autocast
    # knows nothing of the GPU's kernels.
    device = tensors[0].device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        return [tensor.to(dtype) for tensor in tensors]
    return tensors


@torch.compiler.disable  # the documents differ in every batch
def each_document(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    """Attend by one call a document, on any device."""
    batch, length = query.shape[0], query.shape[2]
    lengths = [number for number in bounds.diff().tolist() if number]
    documents = [
        # [B, H, T, D] -> [1, H, B * T, D] -> one [1, H, L, D] a document
        tensor.transpose(0, 1).flatten(1, 2)[None].split(lengths, dim=2)
        for tensor in (query, key, value)
    ]
    options: Any = {"dropout_p": dropout, "is_causal": True}
    options |= {"scale": scaling, "enable_gqa": True}
    attended = [
        scaled_dot_product_attention(*one, **options)
        for one in zip(*documents, strict=True)
    ]
    # Back in the memory layout [B, T, H, D].
    out = torch.cat([document[0].transpose(0, 1) for document in attended])
    return out.view(batch, length, *out.shape[1:])


AttentionInterface.register(NAME, document_attention)
# What builds the mask wherever there are no documents.
AttentionMaskInterface.register(NAME, sdpa_mask)
