"""Who may write to a folder that several runs share."""

import contextlib
import fcntl
import json
import logging
from collections.abc import Iterator
from pathlib import Path

from speechbrain_slm.utils.atomic import read_json, remove_temporary, write_json
from speechbrain_slm.utils.distributed import is_main
from speechbrain_slm.utils.hashing import difference
from speechbrain_slm.utils.locking import FolderInUse, lock_folder
from speechbrain_slm.utils.plans import PLAN_JSON, pin_plan

logger = logging.getLogger(__name__)
# Of a data folder: holds its lock, its plan, and what a rerun goes on from.
PARTS = "parts"


@contextlib.contextmanager
def claim(
    folder: str | Path, job: int | None = None, num_jobs: int = 1
) -> Iterator[Path]:
    """Keep others out of a folder that only array jobs may share.

    Only the main rank asks: the others belong to it.

    Arguments
    ---------
    folder
        Made where it is missing. What killed processes left in it under
        temporary names is removed.
    job
        Which array job this is, 0 to ``num_jobs - 1``: other jobs may write
        at the same time. By default nobody else may.

    Yields
    ------
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


def join_plan(folder: str | Path, own: Path, plan: dict, shards: str) -> None:
    """Pin the plan of a folder that is claimed; array jobs share one.

    Jobs that start together must not both write it, and one that nothing was
    made of yet, such as that of jobs that failed at the door, is replaced by
    whoever comes when they have ended.

    Arguments
    ---------
    own : What :func:`claim` has yielded.
    plan : All that decides the folder's content. JSON can hold it.
    shards : Pattern of the files that need a plan to be understood.

    Raises
    ------
    ValueError
        See :func:`speechbrain_slm.utils.plans.pin_plan`.
    """
    if not is_main():
        return
    folder, own = Path(folder), Path(own)
    with take_turns(folder):
        try:
            pin_plan(folder, plan, shards, alone=own == folder)
        except ValueError:
            if own == folder or not _is_only_job(folder, own):
                raise
            pin_plan(folder, plan, shards, alone=True)


def _is_only_job(folder, own):
    """Tell whether no other array job is at work."""
    for other in folder.glob("job-*"):
        try:
            if other != own:
                lock_folder(other).close()
        except FolderInUse:
            return False
    return True


@contextlib.contextmanager
def claim_data(
    folder: str | Path, plan: dict, job: int | None = None, num_jobs: int = 1
):
    """Keep others out of a data folder, and write down what it will hold.

    The folder of a run's logs says nothing of it: two runs may log to two
    folders and write the same data. Hold it before anything is written there.

    Arguments
    ---------
    folder : The data folder; its ``parts/`` gets the lock and ``plan.json``.
    plan : All that decides what the folder will hold. JSON can hold it.
    job
        Which array job this is. Jobs of one plan may write at the same time.
        By default the run is alone: where its plan is another one, the data
        becomes that of its own.

    Raises
    ------
    FolderInUse
        If another run that may not have it has it.
    ValueError
        If this is an array job, and the folder was begun with another plan:
        names the fields. Nothing is changed.
    """
    place = Path(folder) / PARTS
    plan = json.loads(json.dumps(plan))  # as it will be read
    with claim(place, job, num_jobs) as own:
        if job is None:
            _take_over(place / PLAN_JSON, plan)
        else:
            _join_plan(place, own, plan)
        yield


def _take_over(path, plan):
    if not is_main():
        return
    if path.is_file():
        lines = difference(plan, read_json(path))
        if not lines:
            return
        logger.info("%s is made anew: %s", path.parent.parent, "; ".join(lines))
    write_json(path, plan)


def _join_plan(place, own, plan):
    try:
        join_plan(place, own, plan, "*/*/*.parquet")
    except ValueError as error:
        raise ValueError(
            f"{error} A run without 'job', once the array jobs have ended, "
            "takes the folder over and speaks what has changed."
        ) from error


@contextlib.contextmanager
def take_turns(folder: str | Path):
    """Wait until no other run is between the same lines.

    Array jobs that start together need one tokenizer: the first to come fits
    it, the others wait and load it.

    Arguments
    ---------
    folder : What they share; made where it is missing.
    """
    if not is_main():
        yield
        return
    with _lock(Path(folder) / ".turns", fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _lock(folder, kind):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, kind)
        except BlockingIOError:
            raise FolderInUse(
                f"{folder} is being written by another process, which is no "
                "array job; wait for it to end"
            ) from None
        yield
