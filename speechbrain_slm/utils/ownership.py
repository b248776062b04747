"""Only what carries our own mark is ever removed or replaced.

A folder named on a command line may hold a user's own ``train.parquet``. What
a recipe may remove is known by a mark in it, never by its place alone.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from speechbrain_slm.utils.atomic import fsync_folder, remove_temporary

logger = logging.getLogger(__name__)
_MARK = b"made by"


def mark_of(maker: str) -> dict[bytes, bytes]:
    """Return the metadata by which a Parquet file says who made it."""
    return {_MARK: maker.encode()}


def _mark(path):
    """Return a file's mark, empty where it has none; None if unreadable."""
    try:
        return (pq.read_schema(path).metadata or {}).get(_MARK, b"")
    except (pa.ArrowException, OSError):
        return None


def has_mark(path: str | Path, maker: str) -> bool:
    """Tell whether a Parquet file is a maker's; one that is damaged is not."""
    return _mark(path) == maker.encode()


def refuse_foreign(
    paths: Iterable[str | Path], maker: str, damaged: bool = False
) -> None:
    """Refuse to write where a Parquet file stands that another made.

    FileExistsError, which names the first; nothing is changed. ``damaged``:
    what cannot be read may be replaced, as it can say nothing of itself.
    """
    for path in filter(Path.exists, map(Path, paths)):
        mark = _mark(path)
        if damaged and mark is None and path.is_file():
            continue
        if mark != maker.encode():
            raise FileExistsError(
                f"{path} stands where this run would write, and was not made "
                f"by it (it has no mark '{maker}', which older versions did "
                "not set). It stays as it is: choose another folder, or move "
                "the file out of the way."
            )


def withdraw(paths: Iterable[str | Path], maker: str) -> None:
    """Remove a maker's files, or none where :func:`refuse_foreign` objects."""
    there = list(filter(Path.exists, map(Path, paths)))
    refuse_foreign(there, maker)
    for path in there:
        path.unlink(missing_ok=True)  # another rank may have been first
    for folder in {path.parent for path in there}:
        fsync_folder(folder)


def remove_own(folder: str | Path, *patterns: str) -> None:
    """Remove files from a folder of ours, then the folder.

    What has another name stays, and the folder with it.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "parts"
    >>> folder.mkdir()
    >>> for name in (".tmp-0000001a-x", "part-0.parquet", "thesis.txt"):
    ...     (folder / name).touch()
    >>> remove_own(folder, "part-*.parquet")
    >>> [path.name for path in folder.iterdir()]
    ['thesis.txt']
    """
    folder = Path(folder)
    if not folder.is_dir() or folder.is_symlink():
        return
    remove_temporary(folder)  # What killed processes left is ours, too.
    for pattern in patterns:
        for path in filter(Path.is_file, folder.glob(pattern)):
            path.unlink()
    if others := sorted(path.name for path in folder.iterdir()):
        logger.warning(
            f"{folder} stays: it holds {len(others)} thing(s) that this run "
            f"did not write, {others[0]} the first"
        )
    else:
        folder.rmdir()
