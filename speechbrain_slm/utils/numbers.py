"""Numbers and names that a user sets: what they may be."""

import math
import numbers
import operator
from collections.abc import Iterable
from typing import Any

_BOUNDS = {
    "at_least": ("of at least", operator.ge),
    "above": ("above", operator.gt),
    "at_most": ("at most", operator.le),
    "below": ("below", operator.lt),
}


def check_number(
    name: str, value: Any, whole: bool = False, **bounds: float
) -> None:
    """Refuse a value that is no number, or out of its range.

    ``bounds``: some of ``at_least``, ``above``, ``at_most`` and ``below``.
    """
    kind = numbers.Integral if whole else numbers.Real
    # True is no number here; NaN and infinity are in no range.
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if (
        fits
        and -math.inf < value < math.inf
        and all(_BOUNDS[key][1](value, end) for key, end in bounds.items())
    ):
        return
    words = [f"{_BOUNDS[key][0]} {end}" for key, end in bounds.items()]
    expected = f"{'an integer' if whole else 'a number'} {' and '.join(words)}"
    raise ValueError(f"{name} is {value!r}; expected {expected.rstrip()}")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a value that is none of the names it may be."""
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected {' or '.join(known)}")
