"""Files that somebody else may have made: opened only if they are files.

A pipe without a writer keeps whoever opens it waiting for ever, a device or
a file of the kernel has no end. Only a regular file (or a link to one) is
something that can be read to its end.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from speechbrain_slm.utils.files import as_stored


class NotRegular(OSError):
    """What a path leads to is no regular file."""


def open_regular(path: str | Path):
    """Open a file for reading, and nothing but a file.

    Arguments
    ---------
    path
        A regular file, or a link to one. Its name may be in another Unicode
        form than the disk's.

    Returns
    -------
    file
        Binary, without a buffer.

    Raises
    ------
    NotRegular
        Says what it is instead; names the path.
    OSError
        If there is nothing, or it may not be read.

    Example
    -------
    >>> open_regular("/dev/null")
    Traceback (most recent call last):
    ...
    speechbrain_slm.utils.regular.NotRegular: /dev/null is a device; expected a
    regular file
    """
    # Opened first and looked at then: between the two, a path could come to
    # lead elsewhere. Without O_NONBLOCK a pipe would not even open.
    number = os.open(
        as_stored(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    )
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        raise NotRegular(f"{path} is {_kind(mode)}; expected a regular file")
    return open(number, "rb", buffering=0)


def read_regular(
    path: str | Path, most: int = 1 << 31, look: Callable | None = None
) -> bytes:
    """Read a whole file, of which the size is known before.

    Arguments
    ---------
    path : A regular file, or a link to one.
    most : Bytes that it may have.
    look : Called with the open file and its size before it is read; may raise.

    Returns
    -------
    As many as the file had when it was opened.

    Raises
    ------
    NotRegular
        See :func:`open_regular`.
    OSError
        If the file is larger, or became smaller; names it.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(f"{path} has {size} bytes; expected at most {most}")
        if look is not None:
            look(file, size)
            file.seek(0)
        # None where there is nothing yet: a file of the kernel.
        content = file.read(size) or b""
        # A read may give less than it was asked for.
        while len(content) < size and (more := file.read(size - len(content))):
            content += more
    if len(content) < size:
        raise OSError(
            f"{path}: {len(content)} of its {size} bytes could be read"
        )
    return content


def _kind(mode):
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a device"
