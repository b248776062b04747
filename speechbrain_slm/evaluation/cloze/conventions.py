"""Which likelihoods are compared: what each is called and how it is taken.

The one place in code that knows them. The scorer, parts on disk, tables and
tests follow from ``LIKELIHOODS``: a further one is a line in it.
"""

from collections.abc import Callable

import numpy as np


def _sum(logs: np.ndarray) -> float:
    # One after the other. NumPy's sum adds in pairs, which gives other last
    # bits, and published scores are compared to the last one.
    return float(np.cumsum(logs)[-1]) if len(logs) else 0.0


def _mean(logs: np.ndarray) -> float:
    return _sum(logs) / len(logs)


# From the log-likelihoods (nats) of the scored units of a prompt [P], of its
# ending after it [E], and of that ending alone [E], in their order. P may be
# 0, E is not.
LIKELIHOODS: dict[
    str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]
] = {
    "whole_mean": lambda prompt, ending, _: (
        (_sum(prompt) + _sum(ending)) / (len(prompt) + len(ending))
    ),
    "whole_sum": lambda prompt, ending, _: _sum(prompt) + _sum(ending),
    "ending_mean": lambda prompt, ending, _: _mean(ending),
    "ending_sum": lambda prompt, ending, _: _sum(ending),
    # Where the two part: of the mini corpus, 99 % do within three BPE pieces
    # and all within six; 95 % of its endings (median 9) have six or more.
    "ending_first_5": lambda prompt, ending, _: _mean(ending[:5]),
    # How much likelier the prompt makes the ending: what the ending is worth
    # anywhere, for its words, its length or its language, is taken off (Brown
    # et al. 2020, section 2.4; PMI of Holtzman et al. 2021). By Bayes' rule it
    # is log p(prompt | ending) - log p(prompt), which two endings of unlike
    # lengths may be compared by.
    "normalised": lambda prompt, ending, alone: _sum(ending) - _sum(alone),
    # The same prior by itself: how many items need no prompt.
    "ending_alone": lambda prompt, ending, alone: _sum(alone),
}

# Those that need an ending alone, a sequence of its own behind the boundary.
OF_ENDINGS_ALONE = ("normalised", "ending_alone")
