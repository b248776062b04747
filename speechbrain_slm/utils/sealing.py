"""A folder that says what its files are: ``files.json`` holds their SHA-256.

Checkpoints and exported models are such folders. What is damaged later, or
changed by hand, is told from what was written.
"""

from collections.abc import Iterable
from pathlib import Path

from speechbrain_slm.utils.atomic import write_json
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.schema import COUNT, TEXT, read_shaped

FILES_JSON = "files.json"
_SHAPE = {str: {"bytes": COUNT, "sha256": TEXT}}


def seal(folder: str | Path, files: Iterable[Path]) -> None:
    """Write down what files of a folder are.

    Arguments
    ---------
    folder : Gets ``files.json``.
    files : Files in it, or in folders in it.
    """
    folder = Path(folder)
    content = {
        file.relative_to(folder).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": sha256_file(file),
        }
        for file in sorted(files)
    }
    write_json(folder / FILES_JSON, content)


def unsealed(folder: str | Path, needed: Iterable[str] = ()) -> str | None:
    """Say what is wrong with a sealed folder, comparing every file's SHA-256.

    Arguments
    ---------
    needed : Files that it must list.

    Returns
    -------
    The first fault; None for a whole folder.
    """
    folder = Path(folder)
    try:
        files = read_shaped(folder / FILES_JSON, _SHAPE)
        for name, expected in files.items():
            path = folder / name
            if ".." in Path(name).parts or not path.is_file():
                return f"{name} is not there, though {FILES_JSON} lists it"
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
