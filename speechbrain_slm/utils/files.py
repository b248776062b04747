"""Files that somebody else wrote: which to open, and what is wrong with one.

A folder of somebody's data holds more than data, and a file of the right name
may be a pointer, half a download or text in an older encoding. Whoever reads
such a file asks here first, so that the error names the file and says what it
is.
"""

import contextlib
import hashlib
import os
import stat
import unicodedata
from pathlib import Path

import pyarrow as pa

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
# In the order in which they are looked for: one begins as another.
_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def is_hidden(path: str | Path) -> bool:
    """Tell whether a name is none of data: hidden, or left by a system.

    Arguments
    ---------
    path : Relative to the folder that was named: its folders count, too.

    Example
    -------
    >>> [is_hidden(name) for name in ("a.csv", "._a.csv", "__MACOSX/a.csv")]
    [False, True, True]
    """
    parts = Path(path).parts
    return any(p.startswith(_HIDDEN) or p in _LEFT_BEHIND for p in parts)


def files_in(
    folder: str | Path, pattern: str = "*", deep: bool = True
) -> list[Path]:
    """List the files of a folder, without hidden ones and a system's.

    Arguments
    ---------
    deep : Those in folders inside, too.

    Returns
    -------
    By name. What is no regular file is among them: see
    :func:`check_file`.
    """
    folder = Path(folder)
    found = folder.rglob(pattern) if deep else folder.glob(pattern)
    return sorted(
        path
        for path in found
        if not is_hidden(path.relative_to(folder)) and not path.is_dir()
    )


def as_stored(path: str | Path) -> Path:
    r"""Return a path in the Unicode form in which the disk has its names.

    A name with an accent can be written in two ways (NFC and NFD) that look
    the same, and what one system writes another may not find.

    Returns
    -------
    The path itself if it is there, or nothing like it is.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "Zoe\u0308.wav").touch()
    >>> as_stored(folder / "Zo\u00eb.wav").exists()
    True
    """
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


def nfc(name: str) -> str:
    """Return a name in one Unicode form, so that equal ones are equal.

    Arguments
    ---------
    name : Of a file; systems differ in how they store an accent.

    """
    return unicodedata.normalize("NFC", name)


def check_file(path: str | Path, expected: str) -> Path:
    """Refuse what is no file that can be read.

    Arguments
    ---------
    expected : What it should be, for the errors.

    Returns
    -------
    Where it is, see :func:`as_stored`.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If it is no regular file (a pipe would be waited for), empty, or a
        pointer to the file that is meant.
    """
    path = as_stored(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist; expected {expected}")
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        kind = "a folder" if path.is_dir() else "no regular file"
        raise ValueError(f"{path} is {kind}; expected {expected}")
    # What the system makes up (/proc) has no size; it may be waited for.
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


class HeldFile:
    """A file that is read several times, and is to be the same each time.

    It is held open, so that a file which is put in its place is not read; one
    that is written to is told. What its hash says is what its reader gets.

    Arguments
    ---------
    expected : What it should be, for the errors.

    Attributes
    ----------
    path : Path
        The file.
    file : pyarrow.NativeFile
        Where to read.
    """

    def __init__(self, path: str | Path, expected: str) -> None:
        self.path = check_file(path, expected)
        self.file = pa.OSFile(str(self.path))
        self._state = self._stat()

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.file.close()

    def _stat(self):
        facts = os.fstat(self.file.fileno())
        return facts.st_size, facts.st_mtime_ns

    def check(self) -> None:
        """Refuse a file that was written to since it was opened.

        Raises
        ------
        ValueError
            Names it.
        """
        if self._stat() != self._state:
            raise ValueError(
                f"{self.path} was changed while it was read, so that what was "
                "made of it is of two files. Run the same command again."
            )

    def sha256(self) -> str:
        """Return the hash of its content.

        Returns
        -------
        In hexadecimal digits.
        """
        digest = hashlib.sha256()
        self.file.seek(0)
        while block := self.file.read(1 << 20):
            digest.update(block)
        self.check()
        return digest.hexdigest()


@contextlib.contextmanager
def open_text(path: str | Path, expected: str):
    """Open a text file in UTF-8, with or without a byte order mark.

    Arguments
    ---------
    expected : What it should be, for the errors.

    Yields
    ------
    file
        Line ends are as they are in the file.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If :func:`check_file` refuses it, or as soon as a byte is met that is
        no UTF-8.
    """
    path = check_file(path, expected)
    refuse_wide(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError:
        refuse_encoding(path)


def refuse_wide(path: str | Path) -> None:
    """Refuse a text file with bytes of value 0: UTF-16, or no text.

    Raises
    ------
    ValueError
        If its first bytes hold one.
    """
    with open(path, "rb") as file:
        wide = b"\0" in file.read(64)
    if wide:
        refuse_encoding(path)


def refuse_encoding(path: str | Path) -> None:
    """Raise the error of a text file that is not in UTF-8.

    Raises
    ------
    ValueError
        Always. It says where the file is no UTF-8, as far as that is found.
    """
    where = "it holds bytes of value 0"
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            kind = next((k for m, k in _MARKS if line.startswith(m)), None)
            if number == 1 and kind:
                where = f"it is in {kind}"
                break
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                where = (
                    f"byte 0x{line[error.start]:02X} in line {number} is none "
                    "(an older encoding of Windows or macOS?)"
                )
                break
    raise ValueError(
        f"{path}: expected text in UTF-8, but {where}. Save it as UTF-8; "
        "spreadsheets call that 'CSV UTF-8'."
    )
