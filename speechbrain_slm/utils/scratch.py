"""Arrays of a number a row, for tables whose rows are too many for memory.

They stand in temporary files without a name, of which nothing is left whatever
becomes of the process; the system writes out what memory has no room for.
"""

import hashlib
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike

# Rows that are worked on at once.
BLOCK = 1 << 16
# Of 10^9 strings, two share a name of 12 bytes by a chance of 10^-11.
DIGEST = np.dtype("S12")


def scratch(length: int, dtype: DTypeLike) -> np.ndarray:
    """Make an array of zeros in a file, whose room is freed with the array."""
    dtype = np.dtype(dtype)
    if not length:
        return np.zeros(0, dtype=dtype)
    size, wanted = length * dtype.itemsize, os.environ.get("TMPDIR")
    # Python would take another folder without a word, which may be memory.
    if wanted and not os.access(wanted, os.W_OK | os.X_OK):
        raise OSError(
            f"TMPDIR is '{wanted}', which is no folder that can be written; "
            "make it, or set TMPDIR to another on a disk"
        )
    with tempfile.TemporaryFile() as file:
        try:
            # A full disk would end the process where a page is first written.
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            told = (
                f"{tempfile.gettempdir()} has no room for a temporary file of "
                f"{size:,} bytes ({error.strerror}); set TMPDIR to another"
            )
            raise OSError(error.errno, told) from error
        return np.frombuffer(mmap.mmap(file.fileno(), size), dtype=dtype)


def blocks(length: int) -> Iterator[slice]:
    """Cut a number of rows into slices of at most ``BLOCK``."""
    for start in range(0, length, BLOCK):
        yield slice(start, min(start + BLOCK, length))


def fill(
    length: int, dtype: DTypeLike, values: Callable[[slice], np.ndarray]
) -> np.ndarray:
    """Make an array in a file of what a function says of each block.

    Example
    -------
    >>> fill(3, bool, lambda part: np.arange(part.start, part.stop) == 1)
    array([False,  True, False])
    """
    found = scratch(length, dtype)
    for part in blocks(length):
        found[part] = values(part)
    return found


def digests(strings: pa.StringArray) -> np.ndarray:
    """Name strings of any length by 12 bytes (``DIGEST``)."""
    # Neighbours are often rows of one story.
    encoded = strings.dictionary_encode()
    found = b"".join(
        hashlib.blake2b(text.encode(), digest_size=DIGEST.itemsize).digest()
        for text in encoded.dictionary.to_pylist()
    )
    return np.frombuffer(found, dtype=DIGEST)[encoded.indices.to_numpy()]


def changes(values: np.ndarray) -> np.ndarray:
    """Tell where an array holds another value than just before."""
    # 4, 4, 6: True, False, True.
    found = scratch(len(values), bool)
    found[:1] = True
    for part in blocks(len(values) - 1):
        here = values[part.start : part.stop + 1]
        found[part.start + 1 : part.stop + 1] = here[1:] != here[:-1]
    return found


def select(values: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """Do ``values[flags]``, into a file."""
    return _gather(flags, values.dtype, lambda part: values[part][flags[part]])


def positions(flags: np.ndarray) -> np.ndarray:
    """Do ``numpy.flatnonzero(flags)``, uint32, into a file."""
    return _gather(
        flags, np.uint32, lambda part: np.flatnonzero(flags[part]) + part.start
    )


def _gather(flags, dtype, values):
    found, end = scratch(int(np.count_nonzero(flags)), dtype), 0
    for part in blocks(len(flags)):
        here = values(part)
        found[end : end + len(here)] = here
        end += len(here)
    return found
