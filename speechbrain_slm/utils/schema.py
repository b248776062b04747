"""What a JSON file of somebody else must hold, checked before it is used.

A shape is a :class:`Kind`, a mapping of keys to shapes (a key that ends in
``?`` may be absent, further keys are passed over), ``{str: shape}`` for a
mapping whose keys are names, or ``[shape]`` for a list.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from speechbrain_slm.utils.atomic import read_json


class Kind(NamedTuple):
    """What to call a kind of value in an error, and how to tell one."""

    words: str
    holds: Callable[[Any], object]


def _is_number(value, kinds=(int, float)):
    # True is a number for Python; NaN and infinity are none here. An integer of
    # hundreds of digits is none either: no float holds it.
    is_one = isinstance(value, kinds) and not isinstance(value, bool)
    return is_one and abs(value) <= sys.float_info.max


def whole(low: int, high: float = sys.float_info.max) -> Kind:
    """Make the kind of an integer in a range."""
    words = f"an integer from {low} to {high}"
    if high == sys.float_info.max:
        words = f"an integer of {low} or more"
    return Kind(words, lambda n: _is_number(n, int) and low <= n <= high)


def matching(pattern: str, words: str) -> Kind:
    """Make the kind of a text, all of which fits a regular expression."""
    form = re.compile(pattern)
    return Kind(
        words, lambda value: isinstance(value, str) and form.fullmatch(value)
    )


# Half of a surrogate pair is in JSON, and can be written nowhere.
TEXT = matching("[^\ud800-\udfff]*", "text")
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a number", _is_number)
POSITIVE = Kind(
    "a number above 0", lambda value: _is_number(value) and value > 0
)
COUNT = whole(0)
# Sums of floats end a little beside their bounds.
PERCENT = Kind(
    "a number from 0 to 100",
    lambda value: _is_number(value) and -1e-6 <= value <= 100 + 1e-6,
)
MAPPING = Kind("an object", lambda value: isinstance(value, dict))


def check_shape(value: object, shape: object, where: str | Path) -> None:
    """Refuse a value of another shape; name the file, the place, what is there.

    Example
    -------
    >>> check_shape({"a": [1, 2]}, {"a": [COUNT], "b?": TEXT}, "x.json")
    >>> check_shape({"a": [1, "2"]}, {"a": [COUNT]}, "x.json")
    Traceback (most recent call last):
    ...
    ValueError: x.json: a[1] is '2'; expected an integer of 0 or more
    """
    for place, found, expected in _faults(value, shape, ""):
        shown = f"is {found}" if found else "is missing"
        raise ValueError(
            f"{where}: {place or 'its content'} {shown}; expected {expected}"
        )


def read_shaped(path: str | Path, shape: object) -> Any:
    """Read a JSON file of a known shape; ValueError if it is of another."""
    content = read_json(path)
    check_shape(content, shape, path)
    return content


def _faults(value, shape, place):
    """Yield (place, what is there, what was expected)."""
    kind = _kind(shape)
    if not kind.holds(value):
        text = repr(value)
        yield place, text if len(text) <= 60 else f"{text[:57]}...", kind.words
    elif isinstance(shape, list):
        for number, one in enumerate(value):
            yield from _faults(one, shape[0], f"{place}[{number}]")
    elif isinstance(shape, dict):
        inside = f"{place}." if place else ""
        if str in shape:
            shape = dict.fromkeys(value, shape[str])
        for key, inner in shape.items():
            name = key.removesuffix("?") if key not in value else key
            if name in value:
                yield from _faults(value[name], inner, f"{inside}{name}")
            elif name == key:
                yield f"{inside}{name}", "", _kind(inner).words


def _kind(shape):
    if isinstance(shape, list):
        return Kind("a list", lambda value: isinstance(value, list))
    return MAPPING if isinstance(shape, dict) else shape
