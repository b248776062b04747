"""Measures of sequences alone: how much one repeats itself, how many differ.

They take units as well as words.
"""

from collections.abc import Hashable, Iterable, Sequence

Sequences = Iterable[Sequence[Hashable]]


def _ngrams(sequence, n):
    return list(zip(*(sequence[i:] for i in range(n)), strict=False))


def auto_bleu(sequence: Sequence[Hashable], n: int = 2) -> float | None:
    """Measure how much a sequence repeats itself, 0 to 1.

    The share of its k-grams that stand in it once more, and of these shares,
    for k from 1 to n, the geometric mean (Lakhotia et al. 2021,
    https://arxiv.org/abs/2102.01192, section 4.1). None of a sequence that is
    shorter than n.

    Example
    -------
    >>> round(auto_bleu("the dog and the dog ran".split()), 3)
    0.516
    """
    product = 1.0
    for k in range(1, n + 1):
        grams = _ngrams(sequence, k)
        if not grams:
            return None
        counts: dict[tuple, int] = {}
        for gram in grams:
            counts[gram] = counts.get(gram, 0) + 1
        again = sum(count for count in counts.values() if count > 1)
        product *= again / len(grams)
    return product ** (1 / n)


def distinct_n(sequences: Sequences, n: int) -> float | None:
    """Return the distinct n-grams over all n-grams of many sequences, 0 to 1.

    (Li et al. 2016, https://arxiv.org/abs/1510.03055.) It falls with the
    number of sequences: compare sets of one size.

    Example
    -------
    >>> distinct_n([[1, 2, 3], [1, 2, 4]], 2)
    0.75
    """
    grams = [gram for one in sequences for gram in _ngrams(one, n)]
    return len(set(grams)) / len(grams) if grams else None
