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


# From the log-likelihoods (nats) of the scored units of a prompt [P] and of
# its ending [E], in their order. P may be 0, E is not. The mean over, say, the
# ending's first 25 units would be
#     "ending_mean_25": lambda _, ending: _sum(ending[:25]) / len(ending[:25])
LIKELIHOODS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "whole_mean": lambda prompt, ending: (
        (_sum(prompt) + _sum(ending)) / (len(prompt) + len(ending))
    ),
    "whole_sum": lambda prompt, ending: _sum(prompt) + _sum(ending),
    "ending_mean": lambda prompt, ending: _sum(ending) / len(ending),
    "ending_sum": lambda prompt, ending: _sum(ending),
}
