"""One runner for work that is cut into shards, shared, and resumed.

A stage says what its shards are, which are done, and how one is made. Who may
write, what the folder will hold, who makes which shard, that nobody begins
before all have looked, and how far it is: that stands here.

    with claim(folder, Share(job, num_jobs)) as place:
        place.pin(configuration, made="part-*")
        run(missing(shards, is_done, place.share), make)
        if place.share.merges:
            ...

What is done is told by what a file holds (a piece says what it is of), never
by who made it: the next run may have other ranks, jobs, or changed input.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from speechbrain_slm.utils import heartbeat
from speechbrain_slm.utils.atomic import read_json, remove_temporary, write_json
from speechbrain_slm.utils.distributed import barrier, is_main, rank, world_size
from speechbrain_slm.utils.hashing import difference

logger = logging.getLogger(__name__)
T = TypeVar("T")
# Of a data folder: holds its lock, its plan, and what a rerun goes on from.
PARTS = "parts"
PLAN_JSON = "plan.json"
LOG_INTERVAL = 10  # seconds between two lines on the progress


class FolderInUse(RuntimeError):
    """Another process is writing to the folder."""


@dataclass(frozen=True)
class Share:
    """What a run does of a stage: all of it, or, with a job, its share.

    Example
    -------
    >>> Share(1, 4).of(range(10))
    range(1, 10, 4)
    """

    job: int | None = None
    num_jobs: int = 1

    def __post_init__(self) -> None:
        if self.job is not None and not 0 <= self.job < self.num_jobs:
            raise ValueError(
                f"job is {self.job}; expected 0 to {self.num_jobs - 1}, or null"
            )

    def of(self, shards: Sequence[T]) -> Sequence[T]:
        """Return those of the share."""
        # Whatever is done of them: jobs need not start at the same time.
        return shards if self.job is None else shards[self.job :: self.num_jobs]

    @property
    def merges(self) -> bool:
        """Whether this process puts the pieces together, once all are there."""
        return self.job is None and is_main()


ALL = Share()


@dataclass(frozen=True)
class Claim:
    """A folder that this run may write to; ``own`` is where it writes."""

    folder: Path
    own: Path
    share: Share

    def pin(self, content: dict, made: str, takes_over: bool = False) -> None:
        """Do what :func:`pin` does, once for all ranks.

        A plan that nothing was made of yet, such as that of array jobs which
        failed at the door, gives way to whoever is alone. ``takes_over``: a
        run that is no array job makes the folder its own, whatever was made;
        its files are found by content.
        """
        if is_main():
            # Jobs that start together must not both write it.
            with take_turns(self.folder):
                way = ""
                if takes_over and self.share.job is None:
                    made = ""  # Whatever there is counts as nothing.
                elif takes_over:
                    way = " A run without 'job' takes it over."
                pin(self.folder, content, made, self._is_alone, way)
        barrier()

    def _is_alone(self):
        if self.share.job is None:
            return True
        try:
            for other in set(self.folder.glob("job-*")) - {self.own}:
                lock_folder(other).close()
        except FolderInUse:
            return False
        return True


@contextlib.contextmanager
def claim(folder: str | Path, share: Share = ALL) -> Iterator[Claim]:
    """Keep others out of a folder that only array jobs may share.

    What killed processes left under temporary names is removed.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with claim(folder, Share(0, 2)), claim(folder, Share(1, 2)) as place:
    ...     place.own.name
    'job-1-of-2'
    >>> with claim(folder), claim(folder, Share(0, 2)):
    ...     pass
    Traceback (most recent call last):
    ...
    speechbrain_slm.utils.jobs.FolderInUse: ...
    """
    own = folder = Path(folder)
    if share.job is not None:
        own = folder / f"job-{share.job}-of-{share.num_jobs}"
    with contextlib.ExitStack() as stack:
        if is_main():  # The other ranks belong to it.
            if own != folder:
                stack.enter_context(_lock(folder, fcntl.LOCK_SH))
            stack.enter_context(lock_folder(own))
            for other in folder.glob("job-*") if own == folder else ():
                remove_temporary(other)
        yield Claim(folder, own, share)


def lock_folder(folder: str | Path) -> IO:
    """Keep other runs out of a folder for as long as its ``.lock`` is open."""
    file = _lock(Path(folder), fcntl.LOCK_EX)
    remove_temporary(folder)
    return file


def _lock(folder: Path, kind: int, wait: bool = False) -> IO:
    folder.mkdir(parents=True, exist_ok=True)
    # The kernel's lock, not a file that is there or not: a kill frees it.
    file = open(folder / ".lock", "a", encoding="utf-8")  # noqa: SIM115, held by the caller
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise FolderInUse(
            f"{folder} is being written by another process; wait for it to "
            "end, or choose another output_folder"
        ) from None
    return file


@contextlib.contextmanager
def take_turns(folder: str | Path) -> Iterator[None]:
    """Wait until no other run is between the same lines: the first does it."""
    with contextlib.ExitStack() as stack:
        if is_main():
            place = Path(folder) / ".turns"
            stack.enter_context(_lock(place, fcntl.LOCK_EX, wait=True))
        yield


def pin(
    folder: str | Path,
    content: dict,
    made: str,
    is_alone: Callable[[], bool] = lambda: False,
    way: str = "",
) -> None:
    """Write ``plan.json``: what a folder will hold, before its first file.

    ValueError if the folder has another one (names the fields), or files
    without.

    Arguments
    ---------
    content : All that decides what the folder holds; JSON can hold it.
    made : Pattern of the files that it is needed to understand; empty: none.
    is_alone : Whether another one, of which nothing was made, may be replaced.
    way : What else a user can do, for the error.
    """
    folder, path = Path(folder), Path(folder) / PLAN_JSON
    stray = sorted(folder.glob(made)) if made else []
    lines = []
    if path.is_file():
        # As it will be read: JSON makes a list of a tuple.
        lines = difference(json.loads(json.dumps(content)), read_json(path))
        if not lines:
            return
    elif stray:
        raise ValueError(
            f"{folder} holds {stray[0].name} but no {PLAN_JSON}, so nothing "
            "says what made it; choose another folder or remove this one"
        )
    # Asked last: it locks the folders of the others for a moment.
    if lines and (stray or not is_alone()):
        raise ValueError(
            f"{folder} was begun with another configuration "
            f"({'; '.join(lines)}). Choose another folder, or remove this one "
            f"to start over.{way}"
        )
    if lines:
        logger.info(f"{folder.parent} is made anew: {'; '.join(lines)}")
    write_json(path, content)


def missing(
    shards: Iterable[T], is_done: Callable[[T], bool], share: Share = ALL
) -> list[T]:
    """List what this rank has to make; :func:`run` makes it."""
    # Every rank looks at all and takes its own of what is missing: after a
    # kill they have equally much to do again.
    left = [shard for shard in share.of(list(shards)) if not is_done(shard)]
    return list(deal(left))


def deal(shards: Sequence[T]) -> Sequence[T]:
    """Return those of this rank."""
    return shards[rank() :: world_size()]


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Begin when all ranks have come, and end when all have."""
    # None publishes before every rank has listed what is missing: one that
    # looks later would find less, and deal it out otherwise.
    barrier()
    yield
    barrier()


def run(
    shards: Sequence[T], make: Callable[[T], object], what: str = "shards"
) -> None:
    """Make shards, all ranks at the same time, and say how far it is.

    ``make`` publishes one, all of it or nothing; the log calls them ``what``.
    """
    with together():
        progress = Progress(len(shards), what)
        for shard in shards:
            make(shard)
            progress.add()


@dataclass
class Progress:
    """Says now and then how far this rank is, and how long it will take."""

    total: float
    what: str = "shards"
    per: float = 1  # that make one in the log: 3600 of seconds told as hours
    done: float = 0.0

    def __post_init__(self) -> None:
        self.start = self.said = time.monotonic()
        heartbeat.tell(
            lambda: (
                f"after {self.done / self.per:.3g} of "
                f"{self.total / self.per:.3g} {self.what}"
            )
        )

    def add(self, amount: float = 1, note: Callable[[], str] = str) -> None:
        """Count what was done; ``note`` says more, where a line is written."""
        self.done += amount
        # The last one may miss the sum by a rounding error.
        left = max(self.total - self.done, 0.0)
        now = time.monotonic()
        if now - self.said < LOG_INTERVAL and left > 1e-6 * self.total:
            return
        self.said = now
        form, told = ".0f" if self.per == 1 else ".2f", note()
        logger.info(
            f"Rank {rank()} of {world_size()}: {self.done / self.per:{form}} "
            f"of its {self.total / self.per:{form}} {self.what}, "
            f"{left / self.speed:.0f} s left" + f"; {told}" * bool(told)
        )

    @property
    def speed(self) -> float:
        """How much was done a second."""
        return max(self.done, 1e-9) / max(time.monotonic() - self.start, 1e-9)
