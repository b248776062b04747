"""What neural vocoders share: who speaks, in what language, and how long."""

from collections.abc import Sequence

import numpy as np
import torch
from speechbrain.lobes.models.HifiGAN import VariancePredictor
from torch import Tensor

_KERNEL = 3  # units that a layer of the duration predictor sees
LONGEST_UNIT = 100  # frames
_SPARE = 4  # units behind the last one, more than its two layers reach


class Conditioning(torch.nn.Module):
    """One vector, ``[B, dim]``, of a speaker and a language.

    The last language is that of which nothing is told.
    """

    def __init__(self, num_speakers: int, num_languages: int, dim: int) -> None:
        super().__init__()
        self.speaker = torch.nn.Embedding(num_speakers, dim)
        self.language = torch.nn.Embedding(num_languages + 1, dim)

    def forward(self, speakers: Tensor, languages: Tensor) -> Tensor:
        """Look up numbers, ``[B]`` each."""
        return self.speaker(speakers) + self.language(languages)


class Durations(torch.nn.Module):
    """How many frames each unit of a de-duplicated sequence lasts.

    SpeechBrain's predictor, over features ``[B, U, E]`` of units that
    :func:`pad_units` has padded.
    """

    def __init__(self, dim: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.predictor = VariancePredictor(dim, hidden_size, _KERNEL, dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logarithms of the durations, ``[B, U]``."""
        return self.predictor(features)

    @staticmethod
    def loss(
        predicted: Tensor, frames: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Return the mean squared error; where ``frames`` is 0, none.

        The mean over utterances of each one's mean, so that parts of a batch
        add up to it.

        Arguments
        ---------
        predicted, frames : ``[B, U]``; of each utterance one frame or more.
        weights : ``[B]``, what each utterance counts; None: all the same.
        """
        error = (predicted - frames.clamp(min=1).log()).square()
        there = frames > 0
        each = (error * there).sum(dim=1) / there.sum(dim=1)
        if weights is None:
            return each.mean()
        return (each * weights).sum() / weights.sum()


def pad_units(units: Sequence[np.ndarray], spare: int = _SPARE) -> Tensor:
    """Make a batch, ``[B, U]``: each goes on with its own last unit.

    So what follows an utterance is the same, whatever it is batched with.

    Arguments
    ---------
    spare : How often the last unit of the longest one is repeated.

    Example
    -------
    >>> pad_units([np.array([3, 4]), np.array([7])], spare=1).tolist()
    [[3, 4, 4], [7, 7, 7]]
    """
    length = max(map(len, units)) + spare
    rows = [
        np.pad(one.astype(np.int64), (0, length - len(one)), "edge")
        for one in units
    ]
    return torch.from_numpy(np.stack(rows))


def whole_durations(log_durations: Tensor) -> Tensor:
    """Round durations, ``[U]``, so that they end where their sum does.

    Example
    -------
    >>> whole_durations(torch.tensor([1.4, 1.4, 1.4, 0.2]).log()).tolist()
    [1, 2, 1, 1]
    """
    lengths = log_durations.double().exp().clamp(1, LONGEST_UNIT)
    ends = lengths.cumsum(dim=0).round()
    return torch.diff(ends.long(), prepend=ends.new_zeros(1).long())


def check_units(units: np.ndarray, vocabulary_size: int) -> None:
    """Refuse what cannot be units of the vocoder's tokenizer: ValueError."""
    if units.ndim != 1 or (len(units) and units.dtype.kind not in "iu"):
        raise ValueError(
            f"units are {units.dtype} of the shape {list(units.shape)}; "
            "expected integers, [U] of each utterance"
        )
    if len(units) and not 0 <= units.min() <= units.max() < vocabulary_size:
        raise ValueError(
            f"units from {units.min()} to {units.max()}; the vocoder's "
            f"tokenizer has {vocabulary_size}, from 0. Are these pieces of "
            "BPE? Decode them first."
        )


def numbers_of(
    names: Sequence[str] | None,
    known: Sequence[str],
    what: str,
    count: int,
    untold: int,
) -> list[int]:
    """Return the place of each of so many names; ``untold`` where none is told.

    >>> numbers_of(["fr", "en"], ["en", "fr"], "language", 2, untold=2)
    [1, 0]
    """
    if names is None:
        return [untold] * count
    for name in names:
        if name not in known:
            raise ValueError(
                f"{what} {name!r} is none that the vocoder has heard: expected "
                f"one of {', '.join(known) or 'none at all'}"
            )
    if len(names) != count:
        told = f"{len(names)} {what}s are named for {count} utterances"
        raise ValueError(f"{told}; expected one each, or None")
    return [known.index(name) for name in names]
