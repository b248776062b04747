"""Log-likelihoods of endings after prompts, under a causal language model.

Every benchmark scores through this module, so that they agree on what is
counted. A sequence is

    (boundary, if it starts so) | prompt | ending | (boundary, if ``score_end``)

Its first symbol is read and never scored, and neither are language tags,
which stand in the prompt and the ending of a model that was trained with
them. What is made of the others' log-likelihoods stands in ``conventions``;
there is no penalty and no calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from speechbrain_slm.evaluation.cloze import prefixes
from speechbrain_slm.evaluation.cloze.conventions import LIKELIHOODS
from speechbrain_slm.evaluation.cloze.prefix_attention import (
    check_model,
    run_batch,
)
from speechbrain_slm.evaluation.cloze.prefixes import Batch, PaddedBatch
from speechbrain_slm.evaluation.inputs import (
    batches,
    by_length,
    check_evaluating,
    check_units,
)
from speechbrain_slm.utils.numbers import check_choice

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Positions whose fp32 log-softmax [POSITIONS, V] is in memory at a time.
POSITIONS = 1024

STARTS = ("boundary", "first_unit")


class LikelihoodScorer:
    """Score (prompt, ending) pairs with a Hugging Face causal LM.

    Neither batches, padding, the order of the pairs nor shared prompts change
    a score by more than the rounding of the model's own arithmetic (1e-5 a
    unit in fp32). The softmax is taken in fp32 and sums in fp64, whatever the
    model's dtype. ``context`` is how many symbols the model can read at most,
    None where it knows no limit.

    Arguments
    ---------
    model
        In eval mode; called as ``model(input_ids, attention_mask).logits``,
        and for shared prompts with ``position_ids`` and other attention.
    boundary : The symbol before and after a story.
    batch_tokens
        Positions a batch, padding included; bounds the memory, which is that
        of the logits ``[B, T, V]``. A longer sequence goes alone.
    start
        ``boundary``: it is read first, and every unit is scored.
        ``first_unit``: the first unit is read first, and not scored.
    score_end : Whether the closing boundary is a part of the ending.
    language_tags : Language -> its symbol, where training had tags.
    share_prompts
        Compute a prompt once for all its endings, and equal pairs once. Else
        each pair goes through the model by itself.

    Example
    -------
    >>> from transformers import AutoModelForCausalLM, Qwen2Config
    >>> config = Qwen2Config(
    ...     vocab_size=11, hidden_size=8, intermediate_size=8,
    ...     num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
    >>> model = AutoModelForCausalLM.from_config(config).eval()
    >>> scorer = LikelihoodScorer(model, vocabulary_size=10, boundary=10)
    >>> scores = scorer.score([([1, 2, 3], [4, 5]), ([1, 2, 3], [6])])
    >>> (scores["whole_sum"] / scores["whole_mean"]).round().tolist()
    [5.0, 4.0]
    """

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary_size: int,
        boundary: int,
        batch_tokens: int = 4096,
        start: str = "boundary",
        score_end: bool = False,
        language_tags: dict[str, int] | None = None,
        share_prompts: bool = True,
    ) -> None:
        rows: Any = model.get_input_embeddings().num_embeddings
        tags = dict(language_tags or {})
        symbols = [boundary, *tags.values()]
        if min(symbols) < 0 or max(*symbols, vocabulary_size - 1) >= rows:
            raise ValueError(
                f"the model embeds {rows} symbols, which does not hold "
                f"{vocabulary_size} units, the boundary {boundary} and the "
                f"language tags {tags}"
            )
        check_evaluating(model, batch_tokens)
        check_choice("start", start, STARTS)
        self.model = model
        self.vocabulary_size = vocabulary_size
        self.batch_tokens = batch_tokens
        self.start = [boundary] if start == "boundary" else []
        self.end = [boundary] if score_end else []
        self.language_tags = tags
        self.share_prompts = share_prompts
        self.context = getattr(model.config, "max_position_embeddings", None)
        self._tags = np.array(sorted(tags.values()), np.int64)
        self._checked = False  # whether the model can share prompts

    def count_units(self, symbols: Sequence[int] | np.ndarray) -> int:
        """Count the symbols that are not language tags."""
        return len(symbols) - int(np.isin(symbols, self._tags).sum())

    def count_symbols(self, length: int) -> int:
        """Add the boundaries to the units and tags of a prompt and ending."""
        return length + len(self.start) + len(self.end)

    def score(
        self, pairs: Sequence[tuple], names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return for each name of ``LIKELIHOODS`` those of all pairs, [N].

        ``pairs`` are (prompt, ending), sequences of units, with language tags
        where training has them; a prompt may be empty, an ending not.
        ``names`` are for errors.
        """
        if names is None:
            names = [f"pair {index}" for index in range(len(pairs))]
        ids = [
            self._sequence(prompt, ending, name)
            for (prompt, ending), name in zip(pairs, names, strict=True)
        ]
        lengths = [len(self.start) + len(prompt) for prompt, _ in pairs]
        scored = [self._scored(symbols) for symbols in ids]
        for mask, length, name in zip(scored, lengths, names, strict=True):
            if not mask[length:].any():
                raise ValueError(
                    f"{name}: the ending's only unit is the first of all, "
                    "which is not scored; set start to boundary"
                )
        # Of each pair, the log-likelihoods of its prompt and of its ending: 8
        # bytes a unit, kept until all conventions have been taken from them.
        logs = [[np.zeros(0), np.zeros(0)] for _ in pairs]
        for batch in self._batches(ids, lengths, scored):
            ends = np.cumsum([count for *_, count in batch.members])
            parts = np.split(self._score_batch(batch), ends[:-1])
            for (same, side, _), part in zip(batch.members, parts, strict=True):
                for index in same:
                    logs[index][side] = part
        scores = {
            name: np.array([take(*parts) for parts in logs])
            for name, take in LIKELIHOODS.items()
        }
        for name, value in zip(names, scores["whole_sum"], strict=True):
            if not np.isfinite(value):
                raise ValueError(
                    f"{name}: its log-likelihood is {value}, expected a finite "
                    "number; the model's weights or activations are broken"
                )
        return scores

    def _sequence(self, prompt, ending, name):
        if self.count_units(ending) == 0:
            raise ValueError(f"{name}: the ending has no units")
        units = np.concatenate([prompt, ending]).astype(np.int64)
        what = name, units, self.vocabulary_size, self.model
        check_units(*what, self.count_symbols(0), self._tags)
        return np.concatenate([self.start, units, self.end]).astype(np.int64)

    def _scored(self, ids: np.ndarray) -> np.ndarray:
        """Mark what is scored: all but tags and the first other symbol."""
        mask = ~np.isin(ids, self._tags)
        # Of [b, en, 7, fr, 9] with tags en and fr: 7 and 9. (argmax finds the
        # first True.)
        mask[: mask.argmax() + 1] = False
        return mask

    def _batches(self, ids, lengths, scored):
        """Yield batches that hold each sequence once."""
        alone: Sequence[int] = range(len(ids))
        if self.share_prompts:
            # A prompt without a scored unit is no work that could be saved.
            shared = [
                length if mask[:length].any() else 0
                for mask, length in zip(scored, lengths, strict=True)
            ]
            rows, alone = prefixes.make_rows(ids, shared, self.batch_tokens)
            if rows and not self._checked:
                check_model(self.model)
                self._checked = True

            def positions(rows):
                return sum(row.size for row in rows)

            for part in batches(rows, positions, self.batch_tokens):
                yield Batch(part, scored)
        for indexes in by_length(ids, self.batch_tokens, alone, unread=1):
            yield PaddedBatch(indexes, ids, lengths, scored)

    @torch.inference_mode()
    def _score_batch(self, batch: Batch | PaddedBatch) -> np.ndarray:
        """Return the log-likelihoods of a batch's targets, float64 [N]."""
        sources, device = batch.sources, self.model.device
        if isinstance(batch, PaddedBatch):
            logits = self.model(
                input_ids=batch.input_ids.to(device),
                attention_mask=batch.attention_mask.to(device),
                use_cache=False,
            ).logits
        else:
            keep = {}
            if "logits_to_keep" in signature(self.model.forward).parameters:
                # Other positions need not go through the output head.
                columns, sources = np.unique(sources, return_inverse=True)
                keep["logits_to_keep"] = torch.from_numpy(columns).to(device)
            logits = run_batch(self.model, batch, **keep).logits
        logits = logits.flatten(0, 1)
        # The fp32 copy of a chunk at a time: of all logits at once it would
        # be the largest thing in memory.
        norms = torch.cat(
            [part.float().logsumexp(dim=-1) for part in logits.split(POSITIONS)]
        )
        rows = torch.from_numpy(sources).to(logits.device)
        targets = torch.from_numpy(batch.targets).to(logits.device)
        logs = logits[rows, targets].float() - norms[rows]
        return logs.double().cpu().numpy()
