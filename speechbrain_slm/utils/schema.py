"""What a JSON file of somebody else must hold, checked before it is used.

A shape is a :class:`Kind`, a mapping of keys to shapes (a key that ends in
``?`` may be absent, further keys are passed over), ``{str: shape}`` for a
mapping whose keys are names, or ``[shape]`` for a list.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from speechbrain_slm.utils.atomic import read_json


class Kind(NamedTuple):
    """A kind of value.

    Attributes
    ----------
    words : str
        What to call it in an error.
    holds : callable
        Tells whether a value is one.
    """

    words: str
    holds: Callable


def _is_number(value):
    # True is a number for Python; NaN and infinity are none here.
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        # An integer of hundreds of digits is none either: no float holds it.
        and abs(value) <= sys.float_info.max
    )


def whole(low: int, high: int | None = None) -> Kind:
    """Make the kind of an integer in a range."""
    words = f"an integer of {low} or more"
    if high is not None:
        words = f"an integer from {low} to {high}"

    def holds(value):
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and low <= value
            and (high is None or value <= high)
        )

    return Kind(words, holds)


def matching(pattern: str, words: str) -> Kind:
    """Make the kind of a text of a form.

    Arguments
    ---------
    pattern : A regular expression for all of it.

    """
    form = re.compile(pattern)
    return Kind(
        words, lambda value: isinstance(value, str) and form.fullmatch(value)
    )


# Half of a surrogate pair is in JSON, and can be written nowhere.
TEXT = Kind(
    "text",
    lambda value: (
        isinstance(value, str)
        and not any("\ud800" <= sign <= "\udfff" for sign in value)
    ),
)
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


def check_shape(value: object, shape, where: str | Path) -> None:
    """Refuse a value of another shape.

    Arguments
    ---------
    shape : Kind, dict or list
        See above.
    where : The file, named in the error.

    Raises
    ------
    ValueError
        Names the place, what is there and what was expected.

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


def read_shaped(path: str | Path, shape) -> object:
    """Read a JSON file of a known shape.

    Arguments
    ---------
    shape : Kind, dict or list
        See above.

    Returns
    -------
    Its content.

    Raises
    ------
    ValueError
        If it is not JSON, or of another shape.
    """
    content = read_json(path)
    check_shape(content, shape, path)
    return content


def _faults(value, shape, place):
    """Yield (place, what is there, what was expected)."""
    if isinstance(shape, Kind):
        if not shape.holds(value):
            yield place, _shown(value), shape.words
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield place, _shown(value), "a list"
            return
        for number, one in enumerate(value):
            yield from _faults(one, shape[0], f"{place}[{number}]")
    elif not isinstance(value, dict):
        yield place, _shown(value), "an object"
    elif str in shape:
        for key, one in value.items():
            yield from _faults(one, shape[str], _inside(place, key))
    else:
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if name in value:
                yield from _faults(value[name], inner, _inside(place, name))
            elif name == key:
                yield _inside(place, name), "", _words(inner)


def _inside(place, key):
    return f"{place}.{key}" if place else key


def _words(shape):
    if isinstance(shape, Kind):
        return shape.words
    return "a list" if isinstance(shape, list) else "an object"


def _shown(value):
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
