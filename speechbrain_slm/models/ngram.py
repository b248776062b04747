"""A unit language model that counts: n-grams, Witten-Bell interpolated."""

from collections.abc import Sequence

import numpy as np


class UnitNgram:
    """An n-gram model of sequences of symbols, fitted when it is made.

    Of a symbol w behind a history h of up to ``order - 1`` symbols,

        p(w | h) = (c(h w) + t(h) p(w | h')) / (c(h) + t(h))

    where c counts, t(h) is how many different symbols came behind h, and h' is
    h without its first symbol; p(w | h) is p(w | h') where h was never gone on
    with, and behind nothing stands 1 / ``size`` (Witten and Bell 1991, as Chen
    and Goodman 1999 write it). No history reaches over a sequence's beginning.

    Arguments
    ---------
    sequences : Symbols in [0, ``size``); the first of each is not predicted.

    Example
    -------
    >>> model = UnitNgram([[2, 0, 1, 2], [2, 0, 0, 2]], order=2, size=3)
    >>> model.log_probs([np.array([2, 0])])[0].round(3).tolist()
    [-0.205]
    >>> # ln((2 + 1 * p) / (2 + 1)), where p(0) = (3 + 3 * 1/3) / (6 + 3)
    """

    def __init__(
        self, sequences: Sequence[np.ndarray], order: int, size: int
    ) -> None:
        self.size = size
        # Of each length, from 1 on: the n-grams that came, sorted, each
        # (number of its history among those one shorter) * size + its last
        # symbol; how often; and of each history, c and t.
        self._levels: list[tuple[np.ndarray, ...]] = []
        symbols, begins = _join(sequences)
        histories = np.zeros(len(symbols), np.int64)
        number = 1  # of histories: the empty one
        for _ in range(order):
            there = histories >= 0
            if not there.any():
                break  # no sequence is as long
            # A sequence's first symbol is a history, too, if it counts 0.
            predicted = np.ones(len(symbols), bool)
            predicted[begins] = False
            keys = histories[there] * size + symbols[there]
            known, places = np.unique(keys, return_inverse=True)
            counts = np.bincount(places, predicted[there])
            totals = np.bincount(known // size, counts, minlength=number)
            types = np.bincount(known // size, counts > 0, minlength=number)
            self._levels.append((known, counts, totals, types))
            number = len(known)
            grams = self._find(known, histories, symbols)
            histories = _behind(grams, begins)

    def log_probs(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return ln p of all symbols but each sequence's first, [T - 1]."""
        symbols, begins = _join(sequences)
        histories = np.zeros(len(symbols), np.int64)
        p = np.full(len(symbols), 1 / self.size)
        for known, counts, totals, types in self._levels:
            grams = self._find(known, histories, symbols)
            # A history that was never seen, or never gone on with, says
            # nothing; of one that was, a new n-gram counts 0.
            at = np.flatnonzero((histories >= 0) & (types[histories] > 0))
            h, g = histories[at], grams[at]
            count = np.where(g >= 0, counts[g], 0)
            p[at] = (count + types[h] * p[at]) / (totals[h] + types[h])
            histories = _behind(grams, begins)
        return [part[1:] for part in np.split(np.log(p), begins[1:])]

    def _find(self, known, histories, symbols):
        """Number the n-grams that end at each symbol; -1: never seen."""
        keys = histories * self.size + symbols
        place = np.searchsorted(known, keys).clip(max=len(known) - 1)
        return np.where((histories >= 0) & (known[place] == keys), place, -1)


def _join(sequences):
    """Return all symbols, int64 [T], and where each sequence begins."""
    lengths = np.array([len(one) for one in sequences])
    symbols = np.concatenate(sequences).astype(np.int64)
    return symbols, np.cumsum(lengths) - lengths


def _behind(grams, begins):
    """Make the n-gram that ends at a symbol the history of the next one."""
    histories = np.roll(grams, 1)
    histories[begins] = -1
    return histories
