"""Sums beside, or in, what they are of: so later damage is told."""

from collections.abc import Iterable
from pathlib import Path

from speechbrain_slm.utils.atomic import write_json
from speechbrain_slm.utils.files import sha256_of
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.schema import COUNT, TEXT, read_shaped

FILES_JSON = "files.json"
_SHAPE = {str: {"bytes": COUNT, "sha256": TEXT}}
_LENGTH = 32  # bytes of a SHA-256


def seal_file(path: str | Path) -> None:
    """Put a file's SHA-256 behind its content; its format must not mind.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.npy"
    >>> _ = path.write_bytes(b"content")
    >>> seal_file(path)
    >>> is_sealed(path)
    True
    """
    digest = sha256_file(path)
    with open(path, "ab") as file:
        file.write(bytes.fromhex(digest))


def is_sealed(path: str | Path) -> bool:
    """Tell whether a file is there and as it was when it was sealed."""
    path = Path(path)
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        found = sha256_of(file, path.stat().st_size - _LENGTH)
        return file.read().hex() == found


def seal(folder: str | Path, files: Iterable[Path]) -> None:
    """Write ``files.json``: what the files of a folder, or in it, are."""
    folder, told = Path(folder), {}
    for path in sorted(files):
        facts = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        told[path.relative_to(folder).as_posix()] = facts
    write_json(folder / FILES_JSON, told)


def unsealed(folder: str | Path, needed: Iterable[str] = ()) -> str | None:
    """Say what is wrong with a sealed folder; None if it is whole."""
    folder = Path(folder)
    try:
        files = read_shaped(folder / FILES_JSON, _SHAPE)
        for name, expected in files.items():
            path = folder / name
            if ".." in Path(name).parts or not path.is_file():
                return f"{name} is not there, though {FILES_JSON} lists it"
            # A checkpoint has gigabytes; a wrong length is told at once.
            size = path.stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes, not {expected['bytes']}"
            if sha256_file(path) != expected["sha256"]:
                return f"{name} differs from its SHA-256"
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    for name in needed:
        if name not in files:
            return f"{FILES_JSON} does not list {name}"
    return None
