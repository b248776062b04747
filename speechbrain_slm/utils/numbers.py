"""Numbers and names that a user sets: what they may be."""

import math
import numbers
import operator
from collections.abc import Iterable
from typing import Any


def check_number(
    name: str,
    value: Any,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> None:
    """Refuse a value that is no number, or out of its range.

    NaN and infinity are never in range, and True is no number.

    Example
    -------
    >>> check_number("warmup", 2, at_least=0, below=1)
    Traceback (most recent call last):
    ...
    ValueError: warmup is 2; expected a number of at least 0 and below 1
    """
    kind = numbers.Integral if whole else numbers.Real
    fits = isinstance(value, kind) and not isinstance(value, bool)
    fits = fits and -math.inf < value < math.inf
    words = []
    for word, bound, test in (
        ("of at least", at_least, operator.ge),
        ("above", above, operator.gt),
        ("at most", at_most, operator.le),
        ("below", below, operator.lt),
    ):
        if bound is not None:
            words.append(f"{word} {bound}")
            fits = fits and test(value, bound)
    if not fits:
        what = "an integer" if whole else "a number"
        expected = f"{what} {' and '.join(words)}".rstrip()
        raise ValueError(f"{name} is {value!r}; expected {expected}")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a value that is none of the names it may be."""
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected {' or '.join(known)}")
