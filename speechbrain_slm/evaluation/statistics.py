"""Intervals for accuracies."""

from math import sqrt
from statistics import NormalDist


def wilson_interval(successes, n, confidence=0.95):
    """Return Wilson's score interval of a proportion.

    With z the normal quantile of the confidence and p = successes / n, the
    ends are

        (p + z^2 / 2n +- z * sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    (E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", JASA 22, 1927; without continuity correction). Unlike the
    normal approximation it stays inside [0, 1] and keeps its coverage near
    the ends.

    A tie is half a success. The formula takes that as it stands, and errs on
    the safe side: an item that can score one half varies less than a coin of
    the same mean, so the interval is never too narrow for it.

    Arguments
    ---------
    successes : float
        The sum of the items' credits, each in [0, 1].
    n : int
        How many items there are.
    confidence : float
        The coverage, between 0 and 1.

    Returns
    -------
    tuple of float
        The lower and the upper end, in [0, 1].

    Raises
    ------
    ValueError
        If there are no items, or more successes than items.

    Example
    -------
    >>> low, high = wilson_interval(0.5, 1)
    >>> round(low + high, 12)
    1.0
    >>> [round(end, 4) for end in wilson_interval(15, 20)]
    [0.5313, 0.8881]
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(
            f"{successes} successes of {n} items; expected at least one item "
            "and 0 <= successes <= items"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected 0 to 1, open")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / n
    centre = p + z**2 / (2 * n)
    reach = z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    # At the ends the formula gives 0 and 1, rounding a little beside them.
    low = (centre - reach) / scale if successes > 0 else 0.0
    high = (centre + reach) / scale if successes < n else 1.0
    return low, high
