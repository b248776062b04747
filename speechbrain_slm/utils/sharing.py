"""Who may write to a folder that several runs share."""

import contextlib
import fcntl
from pathlib import Path

from speechbrain_slm.utils.atomic import remove_temporary
from speechbrain_slm.utils.distributed import is_main
from speechbrain_slm.utils.locking import FolderInUse, lock_folder


@contextlib.contextmanager
def claim(folder, job=None, num_jobs=1):
    """Keep others out of a folder that only array jobs may share.

    Only the main rank asks: the others belong to it.

    Arguments
    ---------
    folder : str or Path
        Made where it is missing. What killed processes left in it under
        temporary names is removed.
    job : int, optional
        Which array job this is, 0 to ``num_jobs - 1``: other jobs may write
        at the same time. By default nobody else may.
    num_jobs : int
        Number of array jobs.

    Yields
    ------
    Path
        Where this run writes: the folder, or the job's own one inside.

    Raises
    ------
    FolderInUse
        If another run that may not have it has it.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with claim(folder, job=0, num_jobs=2), claim(folder, 1, 2) as own:
    ...     own.name
    'job-1-of-2'
    >>> with claim(folder), claim(folder, job=0, num_jobs=2):
    ...     pass
    Traceback (most recent call last):
    ...
    speechbrain_slm.utils.locking.FolderInUse: ...
    """
    folder = Path(folder)
    own = folder if job is None else folder / f"job-{job}-of-{num_jobs}"
    if not is_main():
        yield own
        return
    with contextlib.ExitStack() as stack:
        if job is not None:
            stack.enter_context(_lock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB))
        stack.enter_context(lock_folder(own))
        if job is None:
            for other in folder.glob("job-*"):
                remove_temporary(other)
        yield own


@contextlib.contextmanager
def take_turns(folder):
    """Wait until no other run is between the same lines.

    Array jobs that start together need one tokenizer: the first to come fits
    it, the others wait and load it.

    Arguments
    ---------
    folder : str or Path
        What they share; made where it is missing.
    """
    if not is_main():
        yield
        return
    with _lock(Path(folder) / ".turns", fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _lock(folder, kind):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as file:
        try:
            fcntl.flock(file, kind)
        except BlockingIOError:
            raise FolderInUse(
                f"{folder} is being written by another process, which is no "
                "array job; wait for it to end"
            ) from None
        yield
