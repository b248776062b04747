"""Codes of a codec that somebody has written as characters.

The code ``c`` of codebook ``q`` is the character U+E000 + ``q * size + c``:
eight codebooks of 2,048 end at U+11FFF. A frame is a character of each codebook
in turn. Text beside them may have the same characters (fullwidth punctuation,
say), so that delimiters tell which is which, never the characters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FIRST = np.uint32(0xE000)  # the first private character
# Kinds of marks. What opens a span is closed by the next number.
_START, _END, _AROUND, _AUDIO, _TEXT = 0, 1, 2, 3, 5
_OPENING = (_AUDIO, _TEXT)


@dataclass(frozen=True)
class Layout:
    """What stands in a row: codes, and the delimiters that may be with them.

    Arguments
    ---------
    num_codebooks : Characters that are a frame.
    codebook_size : How many characters each has.
    audio : What opens and closes an utterance; None: a row is codes alone.
    text : What opens and closes text, which is passed over.
    around : What may stand between utterances, and means nothing.

    Example
    -------
    >>> Layout(8, 2048, ["<a>", "</a>"], around=["<s>"]).marks
    {'<s>': 2, '<a>': 3, '</a>': 4}
    """

    num_codebooks: int = 8
    codebook_size: int = 2048
    audio: Sequence[str] | None = None
    text: Sequence[str] | None = None
    around: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("audio", "text"):
            pair = getattr(self, name)
            if pair and (isinstance(pair, str) or len(pair) != 2):
                raise ValueError(
                    f"{name} is {pair!r}; expected two delimiters, such as "
                    f"[<|{name}_start|>, <|{name}_end|>], or null"
                )
        if isinstance(self.around, str):
            raise ValueError(f"around is {self.around!r}; expected a list")
        names = [*self.around, *(self.audio or ()), *(self.text or ())]
        for one in names:
            if not one or sum(name.startswith(one) for name in names) > 1:
                raise ValueError(
                    f"the delimiters are {', '.join(map(repr, names))}; "
                    f"expected that none begins with another, as with {one!r}"
                )

    @property
    def marks(self) -> dict[str, int]:
        """Each delimiter and its kind."""
        found = dict.fromkeys(self.around, _AROUND)
        for kind, pair in zip(_OPENING, (self.audio, self.text), strict=True):
            found |= {name: kind + n for n, name in enumerate(pair or ())}
        return found


class Codes(NamedTuple):
    """The codes of rows, one row behind the other."""

    units: np.ndarray  # uint16: codes with a range for each codebook
    lengths: np.ndarray  # units of each utterance
    counts: np.ndarray  # utterances of each row


class _Marks(NamedTuple):
    """Delimiters and the bounds of rows, in order."""

    row: np.ndarray
    at: np.ndarray  # in the rows as one text
    size: np.ndarray  # characters
    kind: np.ndarray


def read_codes(texts: Sequence[str], layout: Layout, wanted: int = 1) -> Codes:
    """Read the first ``wanted`` codebooks of rows.

    ValueError says of the first row that is wrong what it has, and where. An
    utterance may have no characters, and a row no utterance.

    Example
    -------
    >>> layout = Layout(2, 4, ["<a>", "</a>"], ["<t>", "</t>"])
    >>> row = "<t>Hi.</t><a>" + chr(0xE003) + chr(0xE007) + "</a>"
    >>> [array.tolist() for array in read_codes([row], layout)]
    [[3], [1], [1]]
    """
    text = "".join(texts).encode("utf-32-le", "surrogatepass")
    points = np.frombuffer(text, "<u4")
    bounds = np.cumsum([0, *map(len, texts)])
    marks = _find_marks(points, bounds, layout)
    spoken, begin, end = _spans(points, bounds, marks, layout)
    # A mark, what follows it, a mark, ...: which of these are codes.
    flags = np.stack([np.zeros_like(spoken), spoken], axis=1).ravel()
    runs = np.stack([marks.size, np.maximum(end - begin, 0)], axis=1).ravel()
    codes = points[np.repeat(flags, runs)]
    begin, lengths = begin[spoken], (end - begin)[spoken]
    _check(codes, begin, lengths, bounds, layout)
    units = codes.reshape(-1, layout.num_codebooks)[:, :wanted] - FIRST
    counts = np.bincount(marks.row[spoken], minlength=len(texts))
    lengths = lengths // layout.num_codebooks * wanted
    return Codes(units.astype(np.uint16).ravel(), lengths, counts)


def _find_marks(
    points: np.ndarray, bounds: np.ndarray, layout: Layout
) -> _Marks:
    rows = np.arange(len(bounds) - 1)
    found = [(rows, bounds[:-1], 0, _START), (rows, bounds[1:], 0, _END)]
    firsts: dict[str, np.ndarray] = {}
    for name, kind in layout.marks.items():
        if name[0] not in firsts:
            firsts[name[0]] = np.flatnonzero(points == ord(name[0]))
        here = firsts[name[0]]
        row = np.searchsorted(bounds, here, "right") - 1
        inside = here + len(name) <= bounds[row + 1]
        here, row = here[inside], row[inside]
        for n, letter in enumerate(name):
            same = points[here + n] == ord(letter)
            here, row = here[same], row[same]
        found.append((row, here, len(name), kind))
    counts = [len(one[0]) for one in found]
    row, at = (np.concatenate([one[n] for one in found]) for n in (0, 1))
    told = np.repeat([one[2:] for one in found], counts, axis=0)
    # Of marks at one place, the start of a row stays before the others.
    order = np.lexsort((at, row))
    return _Marks(row[order], at[order], *told[order].T)


def _spans(
    points: np.ndarray, bounds: np.ndarray, marks: _Marks, layout: Layout
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tell whether codes follow each mark, from where and to where."""
    begin, end = marks.at + marks.size, np.roll(marks.at, -1)
    kind, after = marks.kind, np.roll(marks.kind, -1)
    inner = kind != _END  # or what follows is another row
    spoken = inner & (kind == _AUDIO) & (after == _AUDIO + 1)
    told = inner & (kind == _TEXT) & (after == _TEXT + 1)
    half = np.isin(kind, _OPENING) | np.isin(after - 1, _OPENING)
    wrong = inner & ((half & ~spoken & ~told) | (end < begin))
    if wrong.any():
        first = int(wrong.argmax())
        names = {number: repr(name) for name, number in layout.marks.items()}
        names |= {_START: "the row's start", _END: "its end"}
        raise ValueError(
            f"delimiters out of order: {names[int(kind[first])]} at "
            f"{_place(bounds, marks.at[first])} is followed by "
            f"{names[int(after[first])]}"
        )
    loose = inner & ~spoken & ~told & (end > begin)
    if layout.audio is None:
        spoken = loose
    elif loose.any():
        first = int(begin[loose.argmax()])
        raise ValueError(
            f"text outside of delimiters: {_character(points[first])} at "
            f"{_place(bounds, first)}"
        )
    return spoken, begin, end


def _check(codes, begin, lengths, bounds, layout):
    """Refuse codes that are no whole frames, or out of their place."""
    num_codebooks, size = layout.num_codebooks, layout.codebook_size
    firsts = FIRST + np.arange(num_codebooks, dtype=np.uint32) * np.uint32(size)
    uneven = lengths % num_codebooks != 0
    if uneven.any():
        wrong = codes - FIRST >= num_codebooks * size
    else:
        # What is below the range wraps around, and is above it.
        wrong = codes.reshape(-1, num_codebooks) - firsts >= size
    if wrong.any():
        place = int(wrong.argmax())
        ends = np.cumsum(lengths)
        one = int(np.searchsorted(ends, place, "right"))
        inside = place - ends[one] + lengths[one]
        low = firsts[inside % num_codebooks]
        raise ValueError(
            f"no code of its place: {_character(codes[place])} at "
            f"{_place(bounds, begin[one] + inside)}; expected codebook "
            f"{inside % num_codebooks}, U+{low:X} to U+{low + size - 1:X}"
        )
    if uneven.any():
        one = int(uneven.argmax())
        raise ValueError(
            f"no whole frames: {lengths[one]} codes from "
            f"{_place(bounds, begin[one])} on, which {num_codebooks} does not "
            "divide"
        )


def _place(bounds, place):
    return f"character {place - bounds[bounds <= place][-1]}"


def _character(point):
    shown = chr(point)
    return f"U+{point:04X}" + f" {shown!r}" * shown.isprintable()
