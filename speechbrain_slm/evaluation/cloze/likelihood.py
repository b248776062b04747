"""Log-likelihoods of endings after prompts, under a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from speechbrain_slm.evaluation.cloze import prefixes
from speechbrain_slm.evaluation.cloze.prefix_attention import (
    check_model,
    run_batch,
)
from speechbrain_slm.evaluation.cloze.prefixes import Batch, PaddedBatch
from speechbrain_slm.evaluation.cloze.scorer import Scorer
from speechbrain_slm.evaluation.inputs import (
    batches,
    by_length,
    check_evaluating,
    context_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Positions whose fp32 log-softmax [POSITIONS, V] is in memory at a time.
POSITIONS = 1024


class LikelihoodScorer(Scorer):
    """Score (prompt, ending) pairs with a Hugging Face causal LM.

    Neither batches, padding, the order of the pairs nor shared prompts change
    a score by more than the rounding of the model's own arithmetic (1e-5 a
    unit in fp32). The softmax is taken in fp32 and sums in fp64, whatever the
    model's dtype.

    Arguments
    ---------
    model
        In eval mode; called as ``model(input_ids, attention_mask).logits``,
        and for shared prompts with ``position_ids`` and other attention.
    batch_tokens
        Positions a batch, padding included; bounds the memory, which is that
        of the logits ``[B, T, V]``. A longer sequence goes alone.
    share_prompts
        Compute a prompt once for all its endings, and equal pairs once. Else
        each pair goes through the model by itself.
    vocabulary_size, boundary, start, score_end, language_tags, endings_alone
        See :class:`Scorer`.

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
        endings_alone: bool = False,
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
        how = start, score_end, tags, endings_alone
        super().__init__(vocabulary_size, boundary, *how)
        self.model = model
        self.batch_tokens = batch_tokens
        self.share_prompts = share_prompts
        self.context = context_of(model)
        self._checked = False  # whether the model can share prompts

    def _logs(self, ids, lengths, scored):
        # Of each pair, the log-likelihoods of its prompt and of its ending: 8
        # bytes a unit, kept until all conventions have been taken from them.
        logs = [[np.zeros(0), np.zeros(0)] for _ in ids]
        for batch in self._batches(ids, lengths, scored):
            ends = np.cumsum([count for *_, count in batch.members])
            parts = np.split(self._score_batch(batch), ends[:-1])
            for (same, side, _), part in zip(batch.members, parts, strict=True):
                for index in same:
                    logs[index][side] = part
        return logs

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
