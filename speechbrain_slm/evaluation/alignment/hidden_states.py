"""Pooled hidden states of unit sequences, at every layer of a causal LM.

A sequence is read as training has it, ``boundary | (language tag) | units``,
and only its units are pooled: every sequence begins with the same boundary, so
its states would make all of them alike. Layer 0 is the embeddings; the last
layer is taken after the final norm, as Hugging Face models return it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from speechbrain_slm.evaluation.inputs import (
    by_length,
    check_evaluating,
    check_units,
    context_of,
    tag_of,
)
from speechbrain_slm.utils.numbers import check_choice

if TYPE_CHECKING:
    from transformers import PreTrainedModel

POOLINGS = ("mean", "weighted", "last")


def pooling_weights(length: int, pooling: str) -> np.ndarray:
    """Return the weight of each unit of a sequence, float64 ``[length]``.

    ``weighted`` grows with the position, because under a causal mask late
    states have seen more (N. Muennighoff, "SGPT", arXiv:2202.08904; the
    default of MEXA, arXiv:2410.05873).

    Example
    -------
    >>> pooling_weights(3, "weighted").round(3).tolist()
    [0.167, 0.333, 0.5]
    """
    check_choice("pooling", pooling, POOLINGS)
    if pooling == "mean":
        return np.full(length, 1 / length)
    if pooling == "weighted":
        position = np.arange(1.0, length + 1)
        return position / position.sum()
    return (np.arange(length) == length - 1).astype(float)


class StatePooler:
    """Pool the hidden states of unit sequences.

    Batches, padding and the order of the sequences change a state by no more
    than the rounding of the model's own arithmetic.

    Arguments
    ---------
    boundary : The symbol that begins a story.
    language_tags : Language -> its symbol, where training had tags.
    batch_tokens
        Positions a batch, padding included; bounds the memory, which is that
        of ``[L + 1, B, T, D]``. A longer sequence goes alone.

    Example
    -------
    >>> from transformers import AutoModelForCausalLM, Qwen2Config
    >>> config = Qwen2Config(
    ...     vocab_size=11, hidden_size=8, intermediate_size=8,
    ...     num_hidden_layers=2, num_attention_heads=1, num_key_value_heads=1)
    >>> model = AutoModelForCausalLM.from_config(config).eval()
    >>> pooler = StatePooler(model, vocabulary_size=10, boundary=10)
    >>> pooler.states([([1, 2, 3], "en"), ([4], "fr")]).shape
    (2, 3, 3, 8)
    """

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary_size: int,
        boundary: int,
        language_tags: dict[str, int] | None = None,
        poolings: Sequence[str] = POOLINGS,
        batch_tokens: int = 4096,
    ) -> None:
        check_evaluating(model, batch_tokens)
        if not poolings:
            raise ValueError("poolings is empty; expected one or more")
        for pooling in poolings:
            pooling_weights(1, pooling)
        self.model = model
        self.vocabulary_size = vocabulary_size
        self.boundary = boundary
        self.language_tags = dict(language_tags or {})
        self.poolings = tuple(poolings)
        self.batch_tokens = batch_tokens

    def states(
        self, sequences: Sequence[tuple], names: Sequence[str] | None = None
    ) -> np.ndarray:
        """Return pooled states of (units, language), [N, poolings, L + 1, D].

        Equal sequences are run once; ``names`` are for errors.
        """
        if names is None:
            names = [f"sequence {n}" for n in range(len(sequences))]
        rows = [
            self._symbols(units, language, name)
            for (units, language), name in zip(sequences, names, strict=True)
        ]
        keys = [ids.tobytes() for ids in rows]
        # Of what is equal the first one runs, and is blamed.
        first = {key: n for n, key in reversed([*enumerate(keys)])}
        pooled: dict[bytes, np.ndarray] = {}
        for batch in by_length(rows, self.batch_tokens, [*first.values()]):
            found = self._pool([rows[n] for n in batch])
            for n, states in zip(batch, found, strict=True):
                if not np.isfinite(states).all():
                    raise ValueError(
                        f"{names[n]}: its hidden states are not finite; the "
                        "model's weights or activations are broken"
                    )
                pooled[keys[n]] = states
        return np.stack([pooled[key] for key in keys])

    def _symbols(self, units, language, name):
        units = np.asarray(units, np.int64)
        if not len(units):
            raise ValueError(f"{name}: no units; expected at least one")
        head = [self.boundary]
        if self.language_tags:
            head.append(tag_of(self.language_tags, language, name))
        size, context = self.vocabulary_size, context_of(self.model)
        check_units(name, units, size, context, len(head))
        return np.concatenate([head, units])

    @torch.inference_mode()
    def _pool(self, rows):
        shape = len(rows), max(map(len, rows))
        # What is padded is read as boundaries, seen by nothing before it under
        # the causal mask, and weighs nothing.
        tokens = np.full(shape, self.boundary, np.int64)
        real = np.zeros(shape, np.int64)
        weights = np.zeros((len(self.poolings), *shape))
        first = 2 if self.language_tags else 1  # where the units begin
        for n, ids in enumerate(rows):
            tokens[n, : len(ids)] = ids
            real[n, : len(ids)] = 1
            for p, pooling in enumerate(self.poolings):
                own = pooling_weights(len(ids) - first, pooling)
                weights[p, n, first : len(ids)] = own
        device = self.model.device
        # The decoder alone: logits [B, T, V] would be thrown away.
        layers = self.model.base_model(
            input_ids=torch.from_numpy(tokens).to(device),
            attention_mask=torch.from_numpy(real).to(device),
            use_cache=False,
            output_hidden_states=True,
        ).hidden_states
        # In fp64: a padded row must add up to what it does alone.
        weighted = torch.from_numpy(weights).to(device)
        add_up = partial(torch.einsum, "pbt,btd->bpd", weighted)
        pooled = [add_up(layer.double()) for layer in layers]
        return torch.stack(pooled, dim=2).float().cpu().numpy()
