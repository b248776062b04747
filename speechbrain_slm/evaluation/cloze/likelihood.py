"""Log-likelihoods of endings after prompts, under a causal language model.

Every benchmark scores through this module, so that they agree on what is
counted. A sequence is

    (boundary, if it starts so) | prompt | ending | (boundary, if ``score_end``)

Its first symbol is read and never scored, and neither are language tags,
which stand in the prompt and the ending of a model that was trained with
them. *Whole* means every scored unit, *ending* those after the prompt. Nothing
else depends on a sequence's length: there is no penalty and no calibration.
"""

import inspect
from collections.abc import Sequence

import numpy as np
import torch

from speechbrain_slm.evaluation.cloze.conventions import (
    CONVENTIONS,
    Likelihoods,
    check_convention,
)
from speechbrain_slm.evaluation.cloze.padding import make_padded_batches
from speechbrain_slm.evaluation.cloze.prefix_attention import (
    check_model,
    run_batch,
)
from speechbrain_slm.evaluation.cloze.prefixes import (
    Batch,
    make_batches,
    make_rows,
)

__all__ = [
    "CONVENTIONS",
    "LikelihoodScorer",
    "Likelihoods",
    "check_convention",
]

# Positions whose fp32 log-softmax [POSITIONS, V] is in memory at a time.
POSITIONS = 1024

STARTS = ("boundary", "first_unit")


class LikelihoodScorer:
    """Score (prompt, ending) pairs with a Hugging Face causal LM.

    Neither batches, padding, the order of the pairs nor shared prompts change
    a score by more than the rounding of the model's own arithmetic (1e-5 a
    unit in fp32). The softmax is taken in fp32 and sums in fp64, whatever the
    model's dtype.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        In eval mode; called as ``model(input_ids, attention_mask).logits``,
        and for shared prompts with ``position_ids`` and other attention.
    vocabulary_size : Units are in ``[0, vocabulary_size)``.
    boundary : The symbol before and after a story.
    batch_tokens
        Positions a batch, padding included; bounds the memory, which is that
        of the logits ``[B, T, V]``. A longer sequence goes alone.
    start
        ``boundary``: it is read first, and every unit is scored.
        ``first_unit``: the first unit is read first, and not scored.
    score_end : Whether the closing boundary is a part of the ending.
    language_tags
        Language -> its symbol, of a model that was trained with tags.
    share_prompts
        Compute a prompt once for all its endings, and equal pairs once. Else
        each pair goes through the model by itself.

    Attributes
    ----------
    context : int or None
        Symbols that the model can read at most; None where it knows no limit.

    Raises
    ------
    ValueError
        If the model is in training mode or does not know the boundary or a
        tag.

    Example
    -------
    >>> from transformers import AutoModelForCausalLM, Qwen2Config
    >>> config = Qwen2Config(
    ...     vocab_size=11, hidden_size=8, intermediate_size=8,
    ...     num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
    >>> model = AutoModelForCausalLM.from_config(config).eval()
    >>> scorer = LikelihoodScorer(model, vocabulary_size=10, boundary=10)
    >>> scores = scorer.score([([1, 2, 3], [4, 5]), ([1, 2, 3], [6])])
    >>> scores.whole_units.tolist(), scores.ending_units.tolist()
    ([5, 4], [2, 1])
    """

    def __init__(
        self,
        model,
        vocabulary_size: int,
        boundary: int,
        batch_tokens: int = 4096,
        start: str = "boundary",
        score_end: bool = False,
        language_tags: dict | None = None,
        share_prompts: bool = True,
    ) -> None:
        rows = model.get_input_embeddings().num_embeddings
        tags = dict(language_tags or {})
        symbols = [boundary, *tags.values()]
        if min(symbols) < 0 or max(*symbols, vocabulary_size - 1) >= rows:
            raise ValueError(
                f"the model embeds {rows} symbols, which does not hold "
                f"{vocabulary_size} units, the boundary {boundary} and the "
                f"language tags {tags}"
            )
        if model.training:
            raise ValueError(
                "the model is in training mode, where dropout makes scores "
                "random; call model.eval() first"
            )
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens is {batch_tokens}; expected >= 1")
        if start not in STARTS:
            raise ValueError(
                f"start is '{start}'; expected one of {', '.join(STARTS)}"
            )
        self.model = model
        self.vocabulary_size = vocabulary_size
        self.boundary = boundary
        self.batch_tokens = batch_tokens
        self.start = [boundary] if start == "boundary" else []
        self.end = [boundary] if score_end else []
        self.language_tags = tags
        self.share_prompts = share_prompts
        self.context = getattr(model.config, "max_position_embeddings", None)
        self._tags = np.array(sorted(tags.values()), np.int64)
        arguments = inspect.signature(model.forward).parameters
        self._selects = "logits_to_keep" in arguments
        self._checked = False  # whether the model can share prompts

    def count_units(self, symbols: Sequence[int]) -> int:
        """Count the symbols that are not language tags.

        Arguments
        ---------
        symbols : A prompt or an ending.

        Returns
        -------
        How many of them are units.
        """
        return len(symbols) - int(np.isin(symbols, self._tags).sum())

    def count_symbols(self, length: int) -> int:
        """Count what takes a place in the model's context.

        Arguments
        ---------
        length : Units and language tags of a prompt and an ending, together.

        Returns
        -------
        These and the boundaries; at most ``context``.
        """
        return length + len(self.start) + len(self.end)

    def score(
        self, pairs: Sequence[tuple], names: Sequence[str] | None = None
    ) -> Likelihoods:
        """Return the log-likelihoods of all pairs.

        Arguments
        ---------
        pairs
            ``(prompt, ending)``, each a sequence of units, with language
            tags where training has them. A prompt may be empty, an ending
            not.
        names : What to call each pair in an error; its position by default.

        Returns
        -------
        One entry a pair, in the order of ``pairs``.

        Raises
        ------
        ValueError
            If an ending is empty, a unit is outside the vocabulary, a
            sequence exceeds the model's context, or a score is not a finite
            number (the message names the pair); or if prompts are to be
            shared in a model that cannot.
        """
        if names is None:
            names = [f"pair {index}" for index in range(len(pairs))]
        named = zip(pairs, names, strict=True)
        ids = [self._sequence(*pair, name) for pair, name in named]
        lengths = [len(self.start) + len(prompt) for prompt, _ in pairs]
        scored = [self._scored(symbols) for symbols in ids]
        units = np.zeros((len(pairs), 2), np.int64)
        for index, (mask, length) in enumerate(
            zip(scored, lengths, strict=True)
        ):
            units[index] = mask[:length].sum(), mask[length:].sum()
            if not units[index, 1]:
                raise ValueError(
                    f"{names[index]}: the ending's only unit is the first of "
                    "all, which is not scored; set start to boundary"
                )
        # Log-likelihoods of each prompt and of each ending.
        sums = np.zeros((len(pairs), 2))
        for batch in self._batches(ids, lengths, scored, units):
            totals = self._score_batch(batch)
            for place, total in zip(batch.members, totals, strict=True):
                sums[place] = total
        for name, value in zip(names, sums.sum(axis=1), strict=True):
            if not np.isfinite(value):
                raise ValueError(
                    f"{name}: its log-likelihood is {value}, expected a "
                    "finite number; the model's weights or activations are "
                    "broken"
                )
        return Likelihoods(
            sums.sum(axis=1), units.sum(axis=1), sums[:, 1], units[:, 1]
        )

    def _sequence(self, prompt, ending, name):
        if self.count_units(ending) == 0:
            raise ValueError(f"{name}: the ending has no units")
        units = np.concatenate([prompt, ending]).astype(np.int64)
        outside = units[(units < 0) | (units >= self.vocabulary_size)]
        outside = outside[~np.isin(outside, self._tags)]
        if len(outside):
            raise ValueError(
                f"{name}: unit {outside[0]} is outside "
                f"[0, {self.vocabulary_size}), the model's vocabulary; it was "
                "trained on units of another tokenizer"
            )
        ids = np.concatenate([self.start, units, self.end]).astype(np.int64)
        if self.context is not None and len(ids) > self.context:
            raise ValueError(
                f"{name}: {len(ids)} symbols exceed the model's context of "
                f"{self.context}; shorten the prompt, or score it with a "
                "model of a longer context"
            )
        return ids

    def _scored(self, ids):
        """Mark what is scored: all but tags and the first other symbol."""
        mask = ~np.isin(ids, self._tags)
        mask[: mask.argmax() + 1] = False
        return mask

    def _batches(self, ids, lengths, scored, units):
        """Yield batches that hold each sequence once."""
        alone = range(len(ids))
        if self.share_prompts:
            # A prompt without a scored unit is no work that could be saved.
            shared = np.where(units[:, 0] > 0, lengths, 0)
            rows, alone = make_rows(ids, shared, self.batch_tokens)
            if rows and not self._checked:
                check_model(self.model)
                self._checked = True
            for part in make_batches(rows, self.batch_tokens):
                yield Batch(part, scored)
        yield from make_padded_batches(
            alone, ids, lengths, scored, self.batch_tokens
        )

    @torch.inference_mode()
    def _score_batch(self, batch):
        """Return the log-likelihoods of a batch's members, float64 [M]."""
        sources, keep = batch.sources, {}
        if isinstance(batch, Batch):
            if self._selects:
                # Other positions need not go through the output head.
                columns, sources = np.unique(sources, return_inverse=True)
                columns = torch.from_numpy(columns).to(self.model.device)
                keep = {"logits_to_keep": columns}
            logits = run_batch(self.model, batch, **keep).logits
        else:
            logits = self.model(
                input_ids=batch.input_ids.to(self.model.device),
                attention_mask=batch.attention_mask.to(self.model.device),
                use_cache=False,
            ).logits
        logits = logits.flatten(0, 1)
        scores = _log_probabilities(logits, sources, batch.targets)
        return np.bincount(batch.owners, scores, minlength=len(batch.members))


def _log_probabilities(logits, rows, targets):
    """Return log p of targets, float64 [N], at rows of logits [T, V]."""
    parts = logits.split(POSITIONS)
    norms = torch.cat([part.float().logsumexp(dim=-1) for part in parts])
    rows = torch.from_numpy(rows).to(logits.device)
    targets = torch.from_numpy(targets).to(logits.device)
    scores = logits[rows, targets].float() - norms[rows]
    return scores.double().cpu().numpy()
