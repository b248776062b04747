"""The same story twice: digests of stories, and a small set of them."""

import hashlib
import re

import numpy as np

_NOT_A_LETTER = re.compile(r"[\W_]+")
_ASCII_MARKS = {n: None for n in range(128) if not chr(n).isalnum()}


def digest(text: str) -> int:
    """Hash the letters and digits of a text, whatever their case.

    Returns
    -------
    64 bits.

    Example
    -------
    >>> digest("It’s a dog.") == digest("It's a  DOG!")
    True
    """
    if text.isascii():
        text = text.lower().translate(_ASCII_MARKS)
    else:
        text = _NOT_A_LETTER.sub("", text.casefold())
    hashed = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "big")


class Seen:
    """The digests of the stories so far, in 8 bytes each (24 for a moment).

    They stand in sorted arrays, each at least twice as long as the next.

    Example
    -------
    >>> seen = Seen()
    >>> seen.add([5, 7, 5]).tolist(), seen.add([7, 8]).tolist()
    ([True, True, False], [False, True])
    """

    def __init__(self) -> None:
        self._runs = []

    def add(self, digests: list[int]) -> np.ndarray:
        """Add digests and tell which of them are met for the first time.

        Arguments
        ---------
        digests : 64 bits each.

        Returns
        -------
        bool, one a digest.
        """
        digests = np.asarray(digests, dtype=np.uint64)
        new = np.zeros(len(digests), dtype=bool)
        new[np.unique(digests, return_index=True)[1]] = True
        for run in self._runs:
            place = np.searchsorted(run, digests)
            place[place == len(run)] = 0
            new &= run[place] != digests
        run = np.sort(digests[new])
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.sort(np.concatenate((self._runs.pop(), run)))
        if len(run):
            self._runs.append(run)
        return new


def digest_id(*parts: object) -> int:
    """Hash names as they are.

    Returns
    -------
    64 bits.
    """
    text = "\n".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
