"""Which known sentence does a continuation begin with, or nearly so?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_FREE = 2.0  # so many times as long as the longest sentence is looked at


class Match(NamedTuple):
    """The known sentence that is the nearest to a sequence's beginning."""

    number: int  # of the sentence; the first of equally near ones
    end: int  # symbols of the sequence that it stands for
    distance: float  # edits, over the length of the sentence


class NearestSentence:
    """Finds it by the edit distance, all known sentences at a time.

    ``distance(s, x) = min over e of Levenshtein(s, x[:e]) / len(s)``: what
    comes behind the sentence costs nothing.

    Arguments
    ---------
    sentences : Symbols (units, or the letters of a text) of each, not empty.

    Example
    -------
    >>> nearest = NearestSentence([[1, 2, 3, 4], [7, 8, 9, 7, 8]])
    >>> nearest([7, 8, 7, 8, 1, 2])
    Match(number=1, end=4, distance=0.2)
    """

    def __init__(self, sentences: Sequence[Sequence[int] | np.ndarray]) -> None:
        if not sentences or not all(map(len, sentences)):
            raise ValueError(
                f"{len(sentences)} known sentences, some of them empty; "
                "expected one or more, each of a symbol or more"
            )
        self._lengths = np.array(list(map(len, sentences)))
        shape = len(sentences), self._lengths.max()
        # Padded with what stands in no sequence.
        self._known = np.full(shape, -1, np.int32)
        for row, sentence in zip(self._known, sentences, strict=True):
            row[: len(sentence)] = sentence

    def __call__(self, sequence: Sequence[int] | np.ndarray) -> Match | None:
        """Return the nearest sentence; None of an empty sequence."""
        if not len(sequence):
            return None
        count, width = self._known.shape
        places = np.arange(width + 1, dtype=np.int16)
        everyone, last = np.arange(count), self._lengths
        # Row e: the distances of x[:e] from each sentence's first symbols.
        row = np.broadcast_to(places, (count, width + 1))
        best, ends = row[everyone, last].copy(), np.zeros(count, int)
        for end, symbol in enumerate(sequence[: int(_FREE * width)], 1):
            new = np.empty((count, width + 1), np.int16)
            new[:, 0] = end
            changed = row[:, :-1] + (self._known != symbol)
            np.minimum(row[:, 1:] + 1, changed, out=new[:, 1:])
            # Symbols of the sentence that are not there, all at once.
            row = np.minimum.accumulate(new - places, axis=1) + places
            found = row[everyone, last]
            better = found < best
            best[better], ends[better] = found[better], end
        distance = best / last
        number = int(distance.argmin())
        return Match(number, int(ends[number]), float(distance[number]))
