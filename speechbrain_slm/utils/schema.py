"""What a JSON file of somebody else must hold, checked before it is used.

A shape is a :class:`Kind`, a mapping of keys to shapes (a key that ends in
``?`` may be absent, further keys are passed over), ``{str: shape}`` for a
mapping whose keys are names, or ``[shape]`` for a list.
"""

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from speechbrain_slm.utils.atomic import read_json

_MOST = sys.float_info.max


class Kind(NamedTuple):
    """What to call a kind of value in an error, and how to tell one."""

    words: str
    holds: Callable[[Any], object]


def _number(words, low=-_MOST, high=_MOST, kinds=(int, float)):
    # True is a number for Python; NaN and infinity are none here. An integer of
    # hundreds of digits is none either: no float holds it.
    return Kind(
        words,
        lambda value: (
            isinstance(value, kinds)
            and not isinstance(value, bool)
            and low <= value <= high
        ),
    )


def whole(low: int, high: float = _MOST) -> Kind:
    """Make the kind of an integer in a range."""
    end = "or more" if high == _MOST else f"to {high}"
    begin = "of" if high == _MOST else "from"
    return _number(f"an integer {begin} {low} {end}", low, high, int)


def matching(pattern: str, words: str) -> Kind:
    """Make the kind of a text, all of which fits a regular expression."""
    form = re.compile(pattern)
    return Kind(
        words, lambda value: isinstance(value, str) and form.fullmatch(value)
    )


# Half of a surrogate pair is in JSON, and can be written nowhere.
TEXT = matching("[^\ud800-\udfff]*", "text")
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = _number("a number")
POSITIVE = _number("a number above 0", math.ulp(0))
COUNT = whole(0)
# Sums of floats end a little beside their bounds.
PERCENT = _number("a number from 0 to 100", -1e-6, 100 + 1e-6)
MAPPING = Kind("an object", lambda value: isinstance(value, dict))
_LIST = Kind("a list", lambda value: isinstance(value, list))


def check_shape(
    value: object, shape: object, where: str | Path, place: str = ""
) -> None:
    """Refuse a value of another shape; name the file, the place, what is there.

    Example
    -------
    >>> check_shape({"a": [1, 2]}, {"a": [COUNT], "b?": TEXT}, "x.json")
    >>> check_shape({"a": [1, "2"]}, {"a": [COUNT]}, "x.json")
    Traceback (most recent call last):
    ...
    ValueError: x.json: a[1] is '2'; expected an integer of 0 or more
    """
    kind = _kind(shape)
    if not kind.holds(value):
        found = repr(value)
        found = found if len(found) <= 60 else f"{found[:57]}..."
        place = place or "its content"
        raise ValueError(f"{where}: {place} is {found}; expected {kind.words}")
    if isinstance(shape, list) and isinstance(value, list):
        for number, one in enumerate(value):
            check_shape(one, shape[0], where, f"{place}[{number}]")
    elif isinstance(shape, dict) and isinstance(value, dict):
        inside = f"{place}." if place else ""
        if str in shape:
            shape = dict.fromkeys(value, shape[str])
        for key, inner in shape.items():
            name = key.removesuffix("?") if key not in value else key
            if name in value:
                check_shape(value[name], inner, where, f"{inside}{name}")
            elif name == key:
                words = f"is missing; expected {_kind(inner).words}"
                raise ValueError(f"{where}: {inside}{name} {words}")


def read_shaped(path: str | Path, shape: object) -> Any:
    """Read a JSON file of a known shape; ValueError if it is of another."""
    content = read_json(path)
    check_shape(content, shape, path)
    return content


def _kind(shape):
    return {list: _LIST, dict: MAPPING}.get(type(shape), shape)
