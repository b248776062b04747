"""Files that somebody else made: which to open, and what is wrong with one.

A file of the right name may be a pipe, a pointer, half a download or text in an
older encoding; whoever reads one asks here first, so that the error says so.
"""

import codecs
import contextlib
import hashlib
import io
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NoReturn

# What systems and programs leave beside data.
_LEFT_BEHIND = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"}
_HIDDEN = (".", "~$")
# How files begin that are not what their name says.
_IMPOSTORS = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer, which "
    "only says where the file is: fetch it with 'git lfs pull'",
    b"/annex/objects/": "a git-annex pointer, which only says where the file "
    "is: fetch it with 'git annex get'",
    b"\x1f\x8b": "packed with gzip: unpack it",
    b"PK\x03\x04": "a zip archive, as spreadsheets are, too: unpack it, or "
    "save it as text",
    b"\x00\x05\x16\x07": "what macOS keeps beside a file, not the file",
}
# UTF-32 first: its mark begins as that of UTF-16 (ff fe 00 00 and ff fe).
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def _is_hidden(path):
    parts = path.parts
    return any(p.startswith(_HIDDEN) or p in _LEFT_BEHIND for p in parts)


def files_in(
    folder: str | Path, pattern: str = "*", deep: bool = True
) -> list[Path]:
    """List the files of a folder by name, but hidden ones and a system's."""
    # What is neither a file nor a folder stays: whoever opens it says so.
    folder = Path(folder)
    found = folder.rglob(pattern) if deep else folder.glob(pattern)
    return sorted(
        path
        for path in found
        if not _is_hidden(path.relative_to(folder)) and not path.is_dir()
    )


def nfc(name: str) -> str:
    """Return a name in one Unicode form, so that equal ones are equal."""
    return unicodedata.normalize("NFC", name)


def as_stored(path: str | Path) -> Path:
    """Return a path in the Unicode form in which the disk has its names."""
    # An accent is written in two ways (NFC and NFD) that look the same, and
    # what one system writes another may not find.
    path = Path(path)
    # Not Path.exists(), which fails at a name that is too long.
    if os.path.exists(path) or path.parent == path:
        return path
    folder = as_stored(path.parent)
    if not path.name.isascii() and folder.is_dir():
        for other in sorted(folder.iterdir()):
            if nfc(other.name) == nfc(path.name):
                return other
    return folder / path.name


def check_file(path: str | Path, expected: str) -> Path:
    """Refuse what is no file that can be read; return where it is.

    FileNotFoundError if there is nothing; ValueError if it is no regular file,
    empty, or a pointer to the one that is meant.
    """
    path = as_stored(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist; expected {expected}")
    facts = path.stat()
    # Looked at before it is opened: a pipe would be waited for.
    if not stat.S_ISREG(mode := facts.st_mode):
        raise ValueError(f"{path} is {_kind(mode)}; expected {expected}")
    # What the system makes up (/proc) has no size, and may be waited for, too.
    if not facts.st_size:
        raise ValueError(
            f"{path} is empty; expected {expected}. Fetch or write it again."
        )
    with open(path, "rb") as file:
        head = file.read(64)
    for begin, what in _IMPOSTORS.items():
        if head.startswith(begin):
            raise ValueError(f"{path} is {what}; expected {expected}")
    return path


def _kind(mode):
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def open_regular(path: str | Path) -> io.FileIO:
    """Open a file for reading, without a buffer, or say what else it is.

    Example
    -------
    >>> open_regular("/dev/null")
    Traceback (most recent call last):
    ...
    OSError: /dev/null is a device; expected a regular file
    """
    # A device has no end, and a pipe may have no writer: without O_NONBLOCK it
    # would not even open. Looked at once it is open: a path could change.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    number = os.open(as_stored(path), flags)
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        raise OSError(f"{path} is {_kind(mode)}; expected a regular file")
    return open(number, "rb", buffering=0)


def read_regular(path: str | Path, most: int = 1 << 31) -> bytes:
    """Read a whole file of at most so many bytes; OSError says why it fails."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(f"{path} has {size} bytes; expected at most {most}")
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


def sha256_of(file: IO[bytes], size: int) -> str:
    """Return the SHA-256 of so many bytes of an open file, in 64 digits."""
    digest = hashlib.sha256()
    # Not to its end: a file of the kernel has no size, and may have none.
    while size > 0 and (block := file.read(min(size, 1 << 20))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


class HeldFile:
    """A file that is read several times, and is to be the same each time."""

    # It is held open: what is put in its place is not read, and its hash is of
    # what a reader gets from ``file``.

    def __init__(
        self, path: str | Path, expected: str, mapped: bool = False
    ) -> None:
        import pyarrow as pa  # here: most who ask for a file need no tables

        self.path = check_file(path, expected)
        # Arrow's own files have a fileno that works from 25 on.
        self._handle = open(self.path, "rb")  # noqa: SIM115
        self.file = (pa.memory_map if mapped else pa.OSFile)(str(self.path))
        self._state = self._stat()
        self.check_there()

    def __enter__(self) -> "HeldFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()
        self._handle.close()

    def _stat(self):
        facts = os.fstat(self._handle.fileno())
        return facts.st_size, facts.st_mtime_ns

    def check_there(self) -> None:
        """Refuse a file in whose place another one was put."""
        held = os.fstat(self._handle.fileno())
        if not os.path.samestat(os.stat(self.path), held):
            raise ValueError(f"{self.path} was replaced while it was read")

    def check(self) -> None:
        """Refuse a file that was written to since it was opened."""
        if self._stat() != self._state:
            raise ValueError(
                f"{self.path} was changed while it was read, so that what was "
                "made of it is of two files. Run the same command again."
            )

    def sha256(self) -> str:
        """Return the hash of its content, in hexadecimal digits."""
        self.file.seek(0)
        found = sha256_of(self.file, self._state[0])
        self.check()
        return found


@contextlib.contextmanager
def open_text(path: str | Path, expected: str) -> Iterator[IO[str]]:
    """Open a text file in UTF-8, with or without a byte order mark.

    Line ends are as they are in the file.
    """
    path = check_file(path, expected)
    refuse_wide(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError:
        refuse_encoding(path)


def refuse_wide(path: str | Path) -> None:
    """Refuse a text file that begins with bytes of value 0: UTF-16, or none."""
    with open(path, "rb") as file:
        if b"\0" in file.read(64):
            refuse_encoding(path)


def refuse_encoding(path: str | Path) -> NoReturn:
    """Raise the error of a text file that is not in UTF-8; say where."""
    where = "it holds bytes of value 0"
    with open(path, "rb") as file:
        head = file.peek(4)
        kinds = [kind for mark, kind in _MARKS.items() if head.startswith(mark)]
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte 0x{line[error.start]:02X} in line {number}"
                where = f"{byte} is none (an older encoding of Windows?)"
                break
    if kinds:
        where = f"it is in {kinds[0]}"
    raise ValueError(
        f"{path}: expected text in UTF-8, but {where}. Save it as UTF-8; "
        "spreadsheets call that 'CSV UTF-8'."
    )
