"""Log-likelihoods of endings after prompts, under a causal language model.

Every benchmark scores through this module, so that they agree on what is
counted. A sequence is

    boundary | prompt units | ending units | (boundary, if ``score_end``)

The first boundary is read and never scored, and neither are language tags,
which stand in the prompt and the ending of a model that was trained with
them. *Whole* means every unit, *ending* the units after the prompt. Nothing
else depends on a sequence's length: there is no penalty and no calibration.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

# Positions whose fp32 log-softmax [POSITIONS, V] is in memory at a time.
POSITIONS = 1024

CONVENTIONS = ("whole_mean", "ending_mean", "ending_sum")


@dataclass(frozen=True)
class Likelihoods:
    """Log-likelihoods (nats, base e) of N sequences, in the caller's order.

    Arguments
    ---------
    whole_sum : np.ndarray
        Of the prompt and the ending, float64 [N].
    whole_units : np.ndarray
        How many units that sum is over, int64 [N].
    ending_sum : np.ndarray
        Of the ending given the prompt, float64 [N].
    ending_units : np.ndarray
        How many units that sum is over, int64 [N].
    """

    whole_sum: np.ndarray
    whole_units: np.ndarray
    ending_sum: np.ndarray
    ending_units: np.ndarray

    def score(self, convention):
        """Return one number a sequence; the higher, the likelier.

        Arguments
        ---------
        convention : str
            ``whole_mean``: mean over the whole sequence, prompt included.
            ``ending_mean``: mean over the ending. ``ending_sum``: sum over
            the ending.

        Returns
        -------
        np.ndarray
            Float64 [N].
        """
        check_convention(convention)
        if convention == "whole_mean":
            return self.whole_sum / self.whole_units
        if convention == "ending_mean":
            return self.ending_sum / self.ending_units
        return self.ending_sum


def check_convention(name):
    """Refuse a scoring convention that does not exist.

    Arguments
    ---------
    name : str
        One of ``CONVENTIONS``.

    Raises
    ------
    ValueError
        If it is not.
    """
    if name not in CONVENTIONS:
        raise ValueError(
            f"scoring convention '{name}' is unknown; expected one of "
            f"{', '.join(CONVENTIONS)}"
        )


class LikelihoodScorer:
    """Score (prompt, ending) pairs with a Hugging Face causal LM.

    Neither the size of a batch, nor the padding in it, nor the order of the
    pairs changes a score by more than the rounding of the model's own
    arithmetic (1e-5 a unit in fp32). The softmax is taken in fp32 and sums in
    fp64, whatever the model's dtype.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        In eval mode; called as ``model(input_ids, attention_mask).logits``.
    vocabulary_size : int
        Units are in ``[0, vocabulary_size)``.
    boundary : int
        The symbol before and after a story.
    batch_tokens : int
        Positions a batch, padding included; bounds the memory, which is that
        of the logits ``[B, T, V]``. A longer sequence goes alone.
    score_end : bool
        Whether the closing boundary is a part of the ending.
    language_tags : dict, optional
        Language -> its symbol, of a model that was trained with tags.

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
        vocabulary_size,
        boundary,
        batch_tokens=4096,
        score_end=False,
        language_tags=None,
    ):
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
        self.model = model
        self.vocabulary_size = vocabulary_size
        self.boundary = boundary
        self.batch_tokens = batch_tokens
        self.score_end = score_end
        self.language_tags = tags
        self._tags = np.array(sorted(tags.values()), np.int64)

    def count_units(self, symbols):
        """Count the symbols that are not language tags.

        Arguments
        ---------
        symbols : sequence of int
            A prompt or an ending.

        Returns
        -------
        int
            How many of them are scored.
        """
        return len(symbols) - int(np.isin(symbols, self._tags).sum())

    def score(self, pairs, names=None):
        """Return the log-likelihoods of all pairs.

        Arguments
        ---------
        pairs : sequence of tuple
            ``(prompt, ending)``, each a sequence of units, with language
            tags where training has them. A prompt may be empty, an ending
            not.
        names : sequence of str
            What to call each pair in an error; its position by default.

        Returns
        -------
        Likelihoods
            One entry a pair, in the order of ``pairs``.

        Raises
        ------
        ValueError
            If an ending is empty, a unit is outside the vocabulary, a
            sequence exceeds the model's context, or a score is not a finite
            number. The message names the pair.
        """
        if names is None:
            names = [f"pair {index}" for index in range(len(pairs))]
        prompts = np.array([len(prompt) for prompt, _ in pairs], np.int64)
        sequences = [
            self._sequence(*pair, name)
            for pair, name in zip(pairs, names, strict=True)
        ]
        prompt_units, ending_units = (
            np.array([self.count_units(pair[side]) for pair in pairs], np.int64)
            for side in (0, 1)
        )
        ending_units += self.score_end
        sums = np.zeros((2, len(pairs)))
        for batch in self._batches(sequences):
            scores = self._positions([sequences[index] for index in batch])
            # scores[:, t] is of the symbol at position t + 1; a prompt of
            # length P fills positions 1 to P.
            position = np.arange(scores.shape[1])
            in_ending = position >= prompts[batch, None]
            sums[0, batch] = scores.sum(axis=1)
            sums[1, batch] = np.where(in_ending, scores, 0.0).sum(axis=1)
            wrong = [
                index for index in batch if not np.isfinite(sums[0, index])
            ]
            if wrong:
                raise ValueError(
                    f"{names[wrong[0]]}: its log-likelihood is "
                    f"{sums[0, wrong[0]]}, expected a finite number; the "
                    "model's weights or activations are broken"
                )
        return Likelihoods(
            whole_sum=sums[0],
            whole_units=prompt_units + ending_units,
            ending_sum=sums[1],
            ending_units=ending_units,
        )

    def _sequence(self, prompt, ending, name):
        if self.count_units(ending) == 0:
            raise ValueError(f"{name}: the ending has no units")
        end = [self.boundary] if self.score_end else []
        units = np.concatenate([prompt, ending]).astype(np.int64)
        outside = units[(units < 0) | (units >= self.vocabulary_size)]
        outside = outside[~np.isin(outside, self._tags)]
        if len(outside):
            raise ValueError(
                f"{name}: unit {outside[0]} is outside "
                f"[0, {self.vocabulary_size}), the model's vocabulary; it was "
                "trained on units of another tokenizer"
            )
        ids = np.concatenate([[self.boundary], units, end]).astype(np.int64)
        context = getattr(self.model.config, "max_position_embeddings", None)
        if context is not None and len(ids) > context:
            raise ValueError(
                f"{name}: {len(ids)} symbols exceed the model's context of "
                f"{context}; shorten the prompt, or score it with a model of "
                "a longer context"
            )
        return ids

    def _batches(self, sequences):
        """Group indexes by length, so that little is padded.

        Equal lengths are ordered by content: the same set of sequences makes
        the same batches in whatever order it comes.
        """
        order = sorted(
            range(len(sequences)),
            key=lambda index: (
                len(sequences[index]),
                sequences[index].tobytes(),
            ),
        )
        batch = []
        for index in order:
            longest = len(sequences[index])
            if batch and (len(batch) + 1) * longest > self.batch_tokens:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    @torch.inference_mode()
    def _positions(self, sequences):
        """Return log p(symbol t + 1 | symbols 0..t), float64 [B, T - 1].

        Padding and language tags score 0.
        """
        lengths = torch.tensor([len(ids) for ids in sequences])
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(ids) for ids in sequences],
            batch_first=True,
            padding_value=self.boundary,
        )
        real = torch.arange(ids.shape[1]) < lengths[:, None]
        device = self.model.device
        logits = self.model(
            input_ids=ids.to(device),
            attention_mask=real.long().to(device),
            use_cache=False,
        ).logits
        # The last position of a row predicts nothing that is there.
        scored = real & ~torch.isin(ids, torch.from_numpy(self._tags))
        rows, columns = scored[:, 1:].nonzero(as_tuple=True)
        targets = ids[rows, columns + 1].to(device)
        chunks = [
            -cross_entropy(
                logits[rows[part], columns[part]].float(),
                targets[part],
                reduction="none",
            )
            for part in torch.arange(len(rows), device="cpu").split(POSITIONS)
        ]
        scores = torch.zeros(len(ids), ids.shape[1] - 1, dtype=torch.float64)
        scores[rows, columns] = torch.cat(chunks).double().cpu()
        return scores.numpy()
