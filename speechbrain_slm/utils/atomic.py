"""Files and folders that are either whole or absent.

What is written goes to a temporary name in the same folder, reaches the disk
(``fsync``), and only then takes its name. Whichever library writes it, a full
disk is named, and the process's umask says who may read it.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from speechbrain_slm.utils.files import read_regular

TEMPORARY = ".tmp-"
# Eight digits follow, so that no file of a user's is taken for one of ours.
_OURS = re.compile(r"\.tmp-[0-9a-f]{8}(-.*)?", re.DOTALL)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Bytes for which there must be room, or else that was what failed.
_PROBE = 1 << 16


def fsync_folder(folder: str | Path) -> None:
    """Force a folder's entries (new names, renames) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: str | Path) -> None:
    """Force a file's content to the disk, readable as any new file."""
    with open(path, "rb") as file:
        # safetensors writes to a temporary file that its owner alone can read.
        if os.fstat(file.fileno()).st_mode & 0o077 == 0:
            os.fchmod(file.fileno(), _new_mode(Path(path).parent))
        os.fsync(file.fileno())


def _temporary(folder, name):
    return folder / f"{TEMPORARY}{uuid.uuid4().hex[:8]}-{name}"


def _new_mode(folder):
    # By umask, or by the folder: nobody but the system knows.
    probe = _temporary(folder, "mode")
    probe.touch()
    try:
        return probe.stat().st_mode & 0o777
    finally:
        probe.unlink()


def _no_room(error, temporary):
    """Return the system's number where a write failed for want of room."""
    for code in _NO_ROOM:
        # safetensors has an error of its own, with the system's words.
        if (
            getattr(error, "errno", 0) == code
            or os.strerror(code) in f"{error}"
        ):
            return code
    # Others (numpy, torch) say how many bytes were written, or nothing: then
    # what was written so far does not grow any more.
    for path in filter(Path.is_file, [temporary, *temporary.rglob("*")]):
        try:
            with open(path, "ab") as file:
                file.write(bytes(_PROBE))
                file.flush()
                os.fsync(file.fileno())
        except OSError as full:
            if full.errno in _NO_ROOM:
                return full.errno
    return None


@contextlib.contextmanager
def atomic_path(path: str | Path, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` if the block succeeds.

    The folder around it is made where it is missing.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with atomic_path(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [path.name for path in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, hence file system; libraries go by the suffix.
    temporary = _temporary(path.parent, path.name)
    if folder:
        temporary.mkdir()
    try:
        yield temporary
        for inner in [*temporary.rglob("*"), temporary]:
            (fsync_folder if inner.is_dir() else fsync_file)(inner)
        os.replace(temporary, path)
    except Exception as error:
        # Libraries say no more than "disk full", or less.
        code = _no_room(error, temporary)
        if code is None:
            raise
        said = (
            f"{os.strerror(code)}; nothing was written. Make room and run the "
            "same command again, it goes on from here"
        )
        raise OSError(code, said, str(path)) from error
    else:
        fsync_folder(path.parent)
    finally:
        _remove(temporary)


def atomic_folder(path: str | Path) -> AbstractContextManager[Path]:
    """Yield a temporary folder that becomes ``path`` if the block succeeds.

    FileExistsError if ``path`` is there: a published folder is never changed.
    """
    if Path(path).exists():
        raise FileExistsError(
            f"{path} exists; a published folder stays as is. Choose another "
            "one, or move it away."
        )
    return atomic_path(path, folder=True)


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write text (as UTF-8) or bytes to a file, all of it or nothing."""
    if isinstance(content, str):
        content = content.encode("utf-8")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | Path, content: object) -> None:
    """Write an object as indented JSON, all of it or nothing."""
    # NaN is refused: a result that is not a number is no result.
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; ValueError, with its name, if it is torn or damaged."""
    try:
        return json.loads(read_regular(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


@contextlib.contextmanager
def published_together(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder whose files go to ``folder`` at the end.

    Files of the same names are replaced once the block has succeeded. A kill in
    that moment leaves one out, and never files of two runs beside each other.
    """
    folder = Path(folder)
    new = _temporary(folder, "new")
    new.mkdir(parents=True)
    try:
        yield new
        files = sorted(filter(Path.is_file, new.rglob("*")))
        paths = {file: folder / file.relative_to(new) for file in files}
        for file in files:
            fsync_file(file)
        # Away with all of the old ones before the first new one.
        for path in paths.values():
            path.unlink(missing_ok=True)
        for file, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, path)
        for inner in {path.parent for path in paths.values()}:
            fsync_folder(inner)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def remove_temporary(folder: str | Path) -> None:
    """Remove what killed processes left under temporary names.

    Call it only where no other process writes to the folder.
    """
    for path in Path(folder).glob(f"{TEMPORARY}*"):
        if _OURS.fullmatch(path.name):
            _remove(path)
