"""Arrays of a number a row, for tables whose rows are too many for memory.

They stand in temporary files (in the folder that ``TMPDIR`` names) that have
no name any more, so nothing is left of them whatever becomes of the process.
The system writes out and drops what memory has no room for.
"""

import hashlib
import mmap
import os
import tempfile

import numpy as np

# Rows that are worked on at once.
BLOCK = 1 << 16
DIGEST = np.dtype("S12")


def scratch(length: int, dtype) -> np.ndarray:
    """Make an array in a file.

    Arguments
    ---------
    dtype : numpy.dtype
        Of each.

    Returns
    -------
    Zeros. The file's room is taken when the array is dropped, too.

    Raises
    ------
    OSError
        If the disk has no room for it: it would end the process later, where
        a page is first written. If ``TMPDIR`` cannot be written: another
        folder may be memory.

    Example
    -------
    >>> scratch(3, np.int32).tolist()
    [0, 0, 0]
    """
    dtype = np.dtype(dtype)
    if not length:
        return np.zeros(0, dtype=dtype)
    size, wanted = length * dtype.itemsize, os.environ.get("TMPDIR")
    if wanted and not os.access(wanted, os.W_OK | os.X_OK):
        raise OSError(
            f"TMPDIR is '{wanted}', which is no folder that can be written; "
            "make it, or set TMPDIR to another on a disk"
        )
    with tempfile.TemporaryFile() as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{tempfile.gettempdir()} has no room for a temporary file "
                f"of {size:,} bytes ({error.strerror}); set TMPDIR to "
                "a folder that has",
            ) from error
        return np.frombuffer(mmap.mmap(file.fileno(), size), dtype=dtype)


def blocks(length: int):
    """Cut a number of rows into slices of at most ``BLOCK``.

    Yields
    ------
    slice
        One after the other.

    Example
    -------
    >>> [(one.start, one.stop) for one in blocks(BLOCK + 2)]
    [(0, 65536), (65536, 65538)]
    """
    for start in range(0, length, BLOCK):
        yield slice(start, min(start + BLOCK, length))


def digests(strings) -> np.ndarray:
    """Name strings of any length by 12 bytes.

    Arguments
    ---------
    strings : pyarrow.StringArray
        Any.

    Returns
    -------
    ``DIGEST``, one a string: of 10^9 strings, two share one by a chance of
    10^-11.

    Example
    -------
    >>> import pyarrow as pa
    >>> one, other, again = digests(pa.array(["s0", "s1", "s0"]))
    >>> one == again, one == other
    (True, False)
    """
    # Neighbours are often rows of one story.
    encoded = strings.dictionary_encode()
    found = b"".join(
        hashlib.blake2b(text.encode(), digest_size=DIGEST.itemsize).digest()
        for text in encoded.dictionary.to_pylist()
    )
    return np.frombuffer(found, dtype=DIGEST)[encoded.indices.to_numpy()]


def changes(values: np.ndarray) -> np.ndarray:
    """Tell where a sorted array holds another value than just before.

    Arguments
    ---------
    values : Shape ``[N]``.

    Returns
    -------
    bool ``[N]``, in a file; the first is True.

    Example
    -------
    >>> changes(np.array([4, 4, 6])).tolist()
    [True, False, True]
    """
    found = scratch(len(values), bool)
    found[:1] = True
    for part in blocks(len(values) - 1):
        here = values[part.start : part.stop + 1]
        found[part.start + 1 : part.stop + 1] = here[1:] != here[:-1]
    return found


def select(values: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """Copy the values where flags are set.

    Arguments
    ---------
    values : Shape ``[N]``.
    flags : bool ``[N]``.

    Returns
    -------
    In a file.

    Example
    -------
    >>> select(np.array([4, 5, 6]), np.array([True, False, True])).tolist()
    [4, 6]
    """
    found, end = scratch(np.count_nonzero(flags), values.dtype), 0
    for part in blocks(len(flags)):
        here = values[part][flags[part]]
        found[end : end + len(here)] = here
        end += len(here)
    return found


def positions(flags: np.ndarray) -> np.ndarray:
    """List where flags are set, as ``numpy.flatnonzero`` does.

    Arguments
    ---------
    flags : bool ``[N]``.

    Returns
    -------
    uint32, in a file, in rising order.

    Example
    -------
    >>> positions(np.array([True, False, True])).tolist()
    [0, 2]
    """
    found, end = scratch(np.count_nonzero(flags), np.uint32), 0
    for part in blocks(len(flags)):
        here = np.flatnonzero(flags[part])
        found[end : end + len(here)] = here + part.start
        end += len(here)
    return found
