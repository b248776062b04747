"""How alike two languages' states are: cosines, CKA, retrieval, MEXA."""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from speechbrain_slm.evaluation.statistics import Z, wilson_interval

_TINY = np.finfo(np.float64).tiny


def unit_vectors(states: np.ndarray) -> np.ndarray:
    """Scale states ``[N, D]`` to length 1, in float64; zero stays zero."""
    states = np.asarray(states, np.float64)
    norms = np.linalg.norm(states, axis=-1, keepdims=True)
    return states / np.maximum(norms, _TINY)


class PairSums:
    """Sums over pairs, from which cosines, margins and CKA follow.

    Memory is five matrices ``[D, D]`` in fp64, whatever the number of pairs.
    With X and Y the centred states of sources and translations, linear CKA is

        ||Y'X||^2 / (||X'X|| ||Y'Y||)

    in Frobenius norms (S. Kornblith et al., "Similarity of neural network
    representations revisited", ICML 2019), and each product is a sum over
    pairs. Its value for mismatches is what lengths, voices and the few pairs
    (for N near D, CKA is high for anything) give without any meaning.

    Example
    -------
    >>> states = np.random.default_rng(0).normal(size=(3, 50, 4))
    >>> sums = PairSums()
    >>> sums.add(states[0], 2 * states[0], states[1])
    >>> {name: round(sums.summary()[name], 3) for name in ("cosine", "cka")}
    {'cosine': 1.0, 'cka': 1.0}
    """

    def __init__(self) -> None:
        self.count = 0
        self._scalars = np.zeros((3, 2))

    def add(
        self, sources: np.ndarray, targets: np.ndarray, mismatches: np.ndarray
    ) -> None:
        """Add pairs, and a translation of something else; each ``[N, D]``."""
        given = sources, targets, mismatches
        sides = [np.asarray(side, np.float64) for side in given]
        if not self.count:
            # CKA is the same for shifted states. States lie far from zero, so
            # without a shift most digits would go to their mean.
            self._shifts = [side.mean(axis=0) for side in sides]
            self._sums = [np.zeros_like(shift) for shift in self._shifts]
            size = len(self._shifts[0])
            pairs = (0, 0), (1, 1), (2, 2), (0, 1), (0, 2)
            self._products = {pair: np.zeros((size, size)) for pair in pairs}
        self.count += len(sides[0])
        source, target, mismatch = map(unit_vectors, sides)
        right = np.einsum("nd,nd->n", source, target)
        wrong = np.einsum("nd,nd->n", source, mismatch)
        for row, values in enumerate((right, wrong, right - wrong)):
            self._scalars[row] += values.sum(), values @ values
        for n, shift in enumerate(self._shifts):
            sides[n] = sides[n] - shift
            self._sums[n] += sides[n].sum(axis=0)
        for (one, other), product in self._products.items():
            product += sides[one].T @ sides[other]

    def summary(self) -> dict:
        """Return the means with the ends of their 95 % intervals, and CKA.

        ``margin`` is ``cosine`` (of translations) less ``mismatched``; CKA is
        0 where a side does not vary at all.
        """
        record: dict = {"n": self.count}
        names = ("cosine", "mismatched", "margin")
        for name, (total, squares) in zip(names, self._scalars, strict=True):
            mean = total / self.count
            # Rounding can put it below zero where all values are alike.
            variance = max(squares / self.count - mean**2, 0.0)
            reach = Z * sqrt(variance / max(self.count - 1, 1))
            record[name] = float(mean)
            record[f"{name}_low"] = float(mean - reach)
            record[f"{name}_high"] = float(mean + reach)
        record["cka"] = self._cka(1)
        record["cka_mismatched"] = self._cka(2)
        return record

    def _cka(self, other):
        norms = []
        for pair in ((0, other), (0, 0), (other, other)):
            means = np.outer(*(self._sums[n] for n in pair)) / self.count
            norms.append(np.linalg.norm(self._products[pair] - means))
        scale = norms[1] * norms[2]
        return float(norms[0] ** 2 / scale) if scale > 0 else 0.0


def matched_galleries(
    lengths: np.ndarray, speakers: Sequence[str], size: int, seed: int
) -> np.ndarray:
    """Choose for each text the others that length and voice do not tell apart.

    Returns bool ``[N, N]``: row i marks the ``size - 1`` others of its speaker
    (``size`` counts the right one) that are nearest in length to text i, drawn
    by the seed where several are; all of them where there are fewer.

    Example
    -------
    >>> galleries = matched_galleries(
    ...     np.array([5, 9, 6, 5]), ["a", "a", "a", "b"], size=2, seed=0)
    >>> [row.nonzero()[0].tolist() for row in galleries]
    [[2], [2], [0], []]
    """
    generator = np.random.default_rng(seed)
    _, voices = np.unique(speakers, return_inverse=True)
    galleries = np.zeros((len(lengths), len(lengths)), bool)
    for n, length in enumerate(lengths):
        others = np.flatnonzero(voices == voices[n])
        others = generator.permutation(others[others != n])
        # Drawn first and sorted stably, so that equal distances are at random.
        order = np.argsort(np.abs(lengths[others] - length), kind="stable")
        galleries[n, others[order[: size - 1]]] = True
    return galleries


def retrieval(
    similarity: np.ndarray,
    rows: np.ndarray | None = None,
    columns: np.ndarray | None = None,
) -> dict:
    """Look for each text's translation among others, both ways.

    A translation is found where it is strictly more similar than every other
    candidate. P@1 is the share that is found; MEXA (A. H. Kargaran et al.,
    "MEXA", Findings of ACL 2025) the share that is found both ways. Forward is
    source to target; ``_low`` and ``_high`` are Wilson's; ``chance`` is the P@1
    of a random choice. All are between 0 and 1.

    Arguments
    ---------
    similarity
        Of each source (row) to each target (column), ``[N, N]``; translations
        stand on the diagonal.
    rows, columns
        bool ``[N, N]``: row i marks the targets that source i, and the sources
        that target i is compared with, beside its own; by default all others.

    Example
    -------
    >>> scores = retrieval(np.array([[0.9, 0.1], [0.95, 0.2]]))
    >>> scores["p1_forward"], scores["p1_backward"], scores["mexa"]
    (0.5, 0.5, 0.0)
    """
    others = ~np.eye(len(similarity), dtype=bool)
    found, chance = [], []
    for values, mask in ((similarity, rows), (similarity.T, columns)):
        mask = others if mask is None else mask & others
        # Strictly above: a model whose states are all alike finds nothing.
        rivals = np.where(mask, values, -np.inf).max(axis=1)
        found.append(np.diagonal(values) > rivals)
        chance.append((1 / (1 + mask.sum(axis=1))).mean())
    found.append(found[0] & found[1])
    record: dict[str, float] = {}
    names = "p1_forward", "p1_backward", "mexa"
    for name, hits in zip(names, found, strict=True):
        record[name] = float(hits.mean())
        ends = wilson_interval(int(hits.sum()), len(hits))
        record[f"{name}_low"], record[f"{name}_high"] = ends
    return {**record, "chance": float(np.mean(chance))}
