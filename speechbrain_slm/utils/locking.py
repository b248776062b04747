"""One run at a time in a folder."""

import fcntl
from pathlib import Path

from speechbrain_slm.utils.atomic import remove_temporary


class FolderInUse(RuntimeError):
    """Another process is writing to the folder."""


def lock_folder(folder: str | Path):
    """Keep other runs out of a folder for as long as a file is open.

    The lock is the kernel's, so a killed process leaves none behind; what
    else it left under temporary names is removed.

    Arguments
    ---------
    folder : Gets a file ``.lock``; made where it is missing.

    Returns
    -------
    file
        Closing it, or the end of the process, frees the folder.

    Raises
    ------
    FolderInUse
        If another run has it.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with lock_folder(folder):
    ...     lock_folder(folder)
    Traceback (most recent call last):
    ...
    speechbrain_slm.utils.locking.FolderInUse: ...
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / ".lock", "a", encoding="utf-8")  # noqa: SIM115, held by the caller
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise FolderInUse(
            f"{folder} is being written by another process; wait for it to "
            "end, or choose another output_folder"
        ) from None
    remove_temporary(folder)
    return file
