"""Attention of endings that share a prompt, in any transformers decoder.

It goes through transformers' attention interface: one call for a prompt and
one for each of its endings. No mask of a row squared is made, and what an
ending does not attend to cannot touch it, be it NaN.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from speechbrain_slm.evaluation.cloze.prefixes import Batch, Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "speechbrain_slm_prefixes"
# Variants of attention that a configuration may ask for and that are not here.
UNSUPPORTED = ("softcap", "s_aux", "position_bias", "cache")
LAYER_TYPES = {"full_attention", "sliding_attention"}
ADVICE = "set share_prompts: False to score each ending with its own prompt"

# The batch that a model is computing; not every family of models hands unknown
# arguments on to its attention.
_batch: ContextVar[Batch] = ContextVar("prefixes")


def prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within the blocks of a batch; called by transformers.

    Arguments
    ---------
    query, key, value : ``[1, (key-value) heads, T, head_dim]``.
    attention_mask : Not used: the batch says what attends to what.
    """
    batch = _batch.get()
    window = kwargs.get("sliding_window")
    other = [name for name in UNSUPPORTED if kwargs.get(name) is not None]
    if window is not None and window < batch.longest:
        other.append(f"a sliding window of {window} positions")
    if other:
        raise ValueError(
            f"{type(module).__name__} asks for {', '.join(other)}, which "
            f"shared prompts do without; {ADVICE}"
        )
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    attend = partial(
        scaled_dot_product_attention, dropout_p=dropout, scale=scaling
    )
    out = []
    for (begin, end), endings in batch.blocks:
        q, k, v = (part[:, :, begin:end] for part in (query, key, value))
        out.append(attend(q, k, v, is_causal=True))
        for first, last in endings:
            # An ending of one symbol is predicted by the prompt, and not read.
            if first == last:
                continue
            keys = torch.cat([k, key[:, :, first:last]], dim=2)
            values = torch.cat([v, value[:, :, first:last]], dim=2)
            mask = batch.mask(end - begin, last - first, query)
            q = query[:, :, first:last]
            out.append(attend(q, keys, values, attn_mask=mask))
    return torch.cat(out, dim=2).transpose(1, 2), None


AttentionInterface.register(NAME, prefix_attention)


def check_model(model: PreTrainedModel) -> None:
    """Refuse a model that cannot compute a prompt once for several endings.

    An ending behind another one must get the logits that it gets in the plain
    model directly behind the prompt; this is tried on a few symbols.
    """
    types = set(getattr(model.config, "layer_types", None) or ()) - LAYER_TYPES
    if not model._supports_attention_backend:
        reason = "does not use transformers' attention interface"
    elif "position_ids" not in inspect.signature(model.forward).parameters:
        reason = "takes no position_ids"
    elif types:
        reason = f"has layers of the type {', '.join(sorted(types))}"
    elif not _trial(model):
        reason = "gives other logits behind another ending than directly"
    else:
        return
    raise ValueError(f"{type(model).__name__} {reason}; {ADVICE}")


@torch.inference_mode()
def _trial(model):
    symbols = np.arange(12) % model.get_input_embeddings().num_embeddings
    prompt, one, other = np.split(symbols, [4, 8])
    row = Row(prompt, [one, other], [[0], [0]])
    shared = run_batch(model, Batch([row], [np.ones(8, bool)])).logits
    alone = torch.from_numpy(np.concatenate([prompt, other[:-1]]))[None]
    plain = model(
        input_ids=alone.to(model.device),
        attention_mask=torch.ones_like(alone, device=model.device),
        use_cache=False,
    ).logits
    tail = len(other) - 1
    shared, plain = shared[0, -tail:].float(), plain[0, -tail:].float()
    if not plain.isfinite().all():
        return True  # Nothing to compare with; the scores will show it.
    # bf16 has 8 bits: logits of the two ways differ by some steps of it.
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.05
    scale = 1 + plain.abs().max()
    return bool(((shared - plain).abs() <= tolerance * scale).all())


@torch.inference_mode()
def run_batch(model: PreTrainedModel, batch: Batch, **arguments: Any) -> Any:
    """Return a model's output for a batch; restore its attention after."""
    before = model.config._attn_implementation
    # transformers hands a mask of four dimensions on as it is. A layer that
    # went around our attention would add it, and show NaN at once.
    no_mask = torch.full((1, 1, 1, 1), torch.nan, dtype=model.dtype)
    token = _batch.set(batch)
    model.set_attn_implementation(NAME)
    try:
        return model(
            input_ids=batch.input_ids.to(model.device),
            position_ids=batch.position_ids.to(model.device),
            attention_mask=no_mask.to(model.device),
            use_cache=False,
            **arguments,
        )
    finally:
        model.set_attn_implementation(before)
        _batch.reset(token)
