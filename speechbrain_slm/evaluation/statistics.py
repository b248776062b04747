"""Intervals for accuracies, and tests of their differences.

Accuracies are means of credits, one a group of items: 1 (right), 0 (wrong) or
between (a tie, several voices, several seeds). Groups are taken as drawn
independently of each other; whatever is not independent belongs to one group.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr

RESAMPLES = 10_000
CONFIDENCE = 0.95  # of all intervals
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
# With more distinct values than these, of no more groups than those (16 MB a
# 200), the same resamples of the groups serve for all values.
FEW, SMALL = 16, 400
# Sums of equal credits in another order differ by less.
ROUNDING = 1e-12


def wilson_interval(successes: float, n: int) -> tuple[float, float]:
    """Return Wilson's score interval of p = successes / n, in [0, 1].

        (p + z^2 / 2n +- z * sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    (E. B. Wilson, JASA 22, 1927; without continuity correction). It keeps its
    coverage near the ends. ``successes`` is a sum of credits in [0, 1].

    Example
    -------
    >>> [round(end, 4) for end in wilson_interval(15, 20)]
    [0.5313, 0.8881]
    """
    # A tie is half a success (SciPy's binomtest takes whole ones only). The
    # formula errs on the safe side for it: an item that can score one half
    # varies less than a coin of the same mean.
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(
            f"{successes} successes of {n} items; expected at least one item "
            "and 0 <= successes <= items"
        )
    p, scale = successes / n, 1 + Z**2 / n
    centre = p + Z**2 / (2 * n)
    reach = Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    # At the ends the formula gives 0 and 1, rounding a little beside them.
    low = (centre - reach) / scale if successes > 0 else 0.0
    high = (centre + reach) / scale if successes < n else 1.0
    return low, high


def bootstrap_interval(credits: ArrayLike, seed: int) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean of credits [N].

    Wilson's is the safer one near 0 and 1 (of equal credits, this one is a
    point); this one knows ties and voices.
    """
    return _percentiles(_resampled_means(_finite(credits), seed))


def mcnemar(first: ArrayLike, second: ArrayLike) -> tuple[int, int, float]:
    """Test whether one of two runs does better on the same items.

    McNemar's test, exact and two-sided: where the runs differ, each is the
    better one as often as a fair coin says, if nothing sets them apart (Q.
    McNemar, Psychometrika 12, 1947). Where credits lie between 0 and 1, the
    larger one is the better, by however much (the sign test). This is exact
    for any credits, since under the null hypothesis the runs could change
    places in every group; a count of half wins would not be.

    Returns in how many groups the first of the runs, whose credits [N] are
    those of the same groups, is better and worse, and p.

    Example
    -------
    >>> mcnemar([1, 1, 1, 1, 0.5, 0], [0, 0, 0, 0.5, 0, 0])
    (5, 0, 0.0625)
    """
    differences = _differences(first, second)
    better = int((differences > ROUNDING).sum())
    worse = int((differences < -ROUNDING).sum())
    tail = bdtr(min(better, worse), better + worse, 0.5)
    return better, worse, min(1.0, 2 * float(tail))


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, seed: int
) -> tuple[float, float, float]:
    """Bootstrap the mean difference of two runs over the same items.

    Returns the ends of the interval of the mean of first - second, and the
    two-sided p of a difference of 0. Unlike McNemar's test this weighs by how
    much the credits differ. p inverts the interval: twice the smaller share of
    resampled means that are <= 0 or >= 0, the sample counted with the resamples
    so that p is never 0 (A. C. Davison and D. V. Hinkley, "Bootstrap methods
    and their application", 1997, section 4.2).

    Example
    -------
    >>> low, high, p = paired_bootstrap([1, 1, 1, 0] * 25, [0, 1] * 50, 0)
    >>> low < 0.25 < high
    True
    """
    means = _resampled_means(_differences(first, second), seed)
    below = (means <= ROUNDING).sum()
    above = (means >= -ROUNDING).sum()
    p = 2 * (1 + int(min(below, above))) / (1 + RESAMPLES)
    return *_percentiles(means), min(1.0, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for the number of tests.

    The k-th smallest of m is multiplied by m - k + 1, and is never below the
    one before it: errors in any of the tests keep their level, however these
    depend on each other (S. Holm, Scandinavian Journal of Statistics 6, 1979).

    Example
    -------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.array(p_values, np.float64)
    order = np.argsort(p)
    steps = p[order] * np.arange(len(p), 0, -1)
    p[order] = np.maximum.accumulate(steps).clip(max=1)
    return p.tolist()


def _finite(credits: ArrayLike) -> np.ndarray:
    credits = np.asarray(credits, dtype=np.float64)
    if credits.ndim != 1 or not len(credits) or not np.isfinite(credits).all():
        raise ValueError(
            f"credits of shape {list(credits.shape)}; expected one finite "
            "number a group, and at least one group"
        )
    return credits


def _differences(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    first, second = _finite(first), _finite(second)
    if len(first) != len(second):
        raise ValueError(
            f"{len(first)} and {len(second)} credits; a paired test needs "
            "both of the same groups, in the same order"
        )
    return first - second


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    # How often each *distinct* value occurs among n draws with replacement is
    # multinomial. Drawing these counts costs resamples x distinct values: for
    # 3,000 items of 3 credits a thousandth of scipy.stats.bootstrap's draws.
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) > FEW and n <= SMALL:
        return _counts_of_groups(n, seed) @ np.sort(values) / n
    draws = np.random.default_rng(seed).multinomial(
        n, counts / n, size=RESAMPLES
    )
    return draws @ distinct / n


@lru_cache(maxsize=4)
def _counts_of_groups(n: int, seed: int) -> np.ndarray:
    """Draw how often each of n groups is in a resample."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n, np.full(n, 1 / n), RESAMPLES) * 1.0


def _percentiles(means: np.ndarray) -> tuple[float, float]:
    tails = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low, high = np.quantile(means, tails)
    return float(low), float(high)
