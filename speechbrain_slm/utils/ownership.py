"""Only what carries our own mark is ever removed or replaced.

A folder that is named on a command line may hold anything: a user's own
``train.parquet``, another stage's ``parts/``. What a recipe may remove is known
by a mark inside it, never by its place alone.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from speechbrain_slm.utils.atomic import fsync_folder, remove_temporary

logger = logging.getLogger(__name__)
_MARK = b"made by"


def mark_of(maker: str) -> dict:
    """Return the metadata by which a Parquet file says who made it.

    Arguments
    ---------
    maker : The recipe or the step.

    Returns
    -------
    For ``pyarrow.Schema.with_metadata``.
    """
    return {_MARK: maker.encode()}


def has_mark(path: str | Path, maker: str) -> bool:
    """Tell whether a Parquet file carries its maker's mark.

    Arguments
    ---------
    maker : Who should have made it.

    Returns
    -------
    False for what cannot be read: nothing says whose it is.
    """
    try:
        metadata = pq.read_schema(path).metadata
    except (pa.ArrowException, OSError):
        return False
    return (metadata or {}).get(_MARK) == maker.encode()


def _is_readable(path):
    try:
        pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False
    return True


def refuse_foreign(
    paths: Iterable[Path], maker: str, damaged: bool = False
) -> None:
    """Refuse to write where something stands that another made.

    Arguments
    ---------
    paths : Parquet files that are to be removed or replaced.
    maker : Who has to have made those that are there.
    damaged : What cannot be read may be replaced: it can say nothing of itself.

    Raises
    ------
    FileExistsError
        Names the first that does not. Nothing is changed.
    """
    for path in map(Path, paths):
        if damaged and path.is_file() and not _is_readable(path):
            continue
        if path.exists() and not has_mark(path, maker):
            raise FileExistsError(
                f"{path} stands where this run would write, and was not made "
                f"by it (it has no mark '{maker}', which older versions did "
                "not set). It stays as it is: choose another folder, or move "
                "the file out of the way."
            )


def withdraw(paths: Iterable[Path], maker: str) -> None:
    """Remove Parquet files of one maker; a missing one is no matter.

    Raises
    ------
    FileExistsError
        If one is another's. Nothing is removed then.
    """
    paths = [path for path in map(Path, paths) if path.exists()]
    refuse_foreign(paths, maker)
    for path in paths:
        path.unlink(missing_ok=True)  # another rank may have been first
    for folder in {path.parent for path in paths}:
        fsync_folder(folder)


def remove_own(folder: str | Path, *patterns: str) -> None:
    """Remove the files of a folder that are ours, then the folder.

    Arguments
    ---------
    folder
        One that the caller has found to be ours; a missing one is no matter.
    *patterns
        Names of the files that were written to it. What has another name
        stays, and the folder with it.

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
        for path in folder.glob(pattern):
            if path.is_file():
                path.unlink()
    if others := sorted(path.name for path in folder.iterdir()):
        logger.warning(
            "%s stays: it holds %d thing(s) that this run did not write, "
            "%s the first",
            folder,
            len(others),
            others[0],
        )
    else:
        folder.rmdir()
