"""No rank outlives the others, or the ``torchrun`` that started it.

A rank that is stopped, or whose machine or network is gone, keeps its
connections open: it would be waited for as if it had long work to do. So each
counts up in the rendezvous store and watches whether the next one does, too,
and whether the store answers. Threads do that: however long a rank compiles,
evaluates or writes, and the others wait for it, it is alive.
"""

import atexit
import contextlib
import ctypes
import linecache
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import Store

_PR_SET_PDEATHSIG = 1
_PATIENCE = 5.0  # seconds, for a store of which the machine may be gone
# Seconds in which a rank ends that has been told that another one has failed.
_GRACE = 30.0
_store = None  # for what is said at the end
_parent: int | None = None  # the torchrun that started this process
_ending = threading.Lock()
_so_far: Callable[[], str] = str


def end_with_parent() -> None:
    """End this process when the ``torchrun`` that started it ends."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        # Started by hand or by a batch system: a shell may end before it.
        return
    global _parent
    _parent = parent = os.getppid()
    # At the end of the thread that forked, but torchrun's waits for us.
    with contextlib.suppress(AttributeError, OSError):  # Linux has it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent):
    while os.getppid() == parent:
        time.sleep(1)
    _end("torchrun, which started this process, has ended")


def check_store() -> None:
    """Refuse to wait for the store of a ``torchrun`` that has ended."""
    if not _torchrun_has_the_store():
        return
    # PyTorch asks for it again and again. But torchrun opens its store before
    # it starts a rank: one that refuses will not come back.
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        socket.create_connection(address, timeout=10).close()
    except ConnectionRefusedError as error:
        raise ConnectionError(
            f"{address[0]}:{address[1]} refuses connections: torchrun, which "
            "listened there, has ended; start it again"
        ) from error
    except OSError:
        # A network may be slow; joining has a time limit of its own.
        return


def _torchrun_has_the_store():
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def tell(so_far: Callable[[], str]) -> None:
    """Say how far the work is, should it end because a rank is lost.

    ``so_far`` is called then, in another thread: "after step 25 of 40".
    """
    global _so_far
    _so_far = so_far


def _end(reason, torchrun_too=False):
    """End the process from a thread, whatever its others wait for."""
    if not _ending.acquire(blocking=False):
        return
    # A log may lie on the network that is gone.
    timer = threading.Timer(6 * _PATIENCE, os._exit, [1])
    timer.daemon = True
    timer.start()
    error = ConnectionError(reason)
    with contextlib.suppress(Exception):  # Nobody may be there to read it.
        sys.excepthook(ConnectionError, error, None)
    # It may wait for the same store, without a limit, and obey nothing else.
    for stop in (signal.SIGTERM, signal.SIGKILL) if torchrun_too else ():
        if _parent is not None and os.getppid() == _parent:
            os.kill(_parent, stop)
            time.sleep(_PATIENCE)
    os._exit(1)


class Heart:
    """Count up in a store, and watch whether the next rank does.

    Arguments
    ---------
    store : No dead process has written to it; used from one thread.
    limit : Seconds without a sign of life after which a rank is lost.
    """

    def __init__(
        self, store: "Store", rank: int, ranks: int, limit: float
    ) -> None:
        self._store, self._rank, self._ranks = store, rank, ranks
        self._limit = limit
        self.interval = min(5.0, limit / 10)
        self._watched = (rank + 1) % ranks
        self._count = 0
        self.stopped = threading.Event()
        # In beats of our own: where all are stopped for a while, a laptop
        # closed, nobody has missed any.
        self._missed = self._failed = self._unanswered = 0
        self._place, self._since = "", time.monotonic()

    def beat(self) -> str | None:
        """Count up; return why this rank cannot go on, if so."""
        self._store.add(f"beats/{self._rank}", 1)
        own, ended = self._rank, "ended/{}".format
        while self._watched != own and self._store.add(ended(self._watched), 0):
            self._watched = (self._watched + 1) % self._ranks
            self._count = self._missed = 0
        # What ends without a word to its neighbours: those beyond, and on
        # GPUs, where a broken connection may go unnoticed.
        if self._store.check(["failure"]):
            self._failed += 1
            if self._failed * self.interval >= min(self._limit, _GRACE):
                return f"{self._store.get('failure').decode()}"
        if self._watched == own:  # All others have ended.
            return None
        count = self._store.add(f"beats/{self._watched}", 0)
        # One that has not begun yet is no lost one: joining has a limit.
        stands = count > 0 and count == self._count
        self._missed = self._missed + 1 if stands else 0
        self._count = count
        if self._missed * self.interval < self._limit:
            return None
        return self._lost(
            f"Rank {self._watched}",
            "its process is stopped, or its machine or network is gone",
        )

    def _lost(self, who, why):
        seconds = round(time.monotonic() - self._since)
        return (
            f"{who} has shown no sign of life for {self._limit:g} s "
            f"(heartbeat_timeout): {why}. Rank {self._rank} has stood for "
            f"{seconds} s {self._place}. Run the same command again on every "
            "node: it goes on from what is saved"
        )

    def run(self) -> None:
        """Beat until the process ends, or another one fails to."""
        while not self.stopped.wait(self.interval):
            try:
                reason = self.beat()
            except Exception:  # The store's end, whatever PyTorch calls it.
                if _torchrun_has_the_store():
                    _end("torchrun's store does not answer: it has ended")
                self.stopped.set()
                return
            self._unanswered = 0
            if reason:
                _end(reason)
        # Not in the thread that ends the process: it might wait for ever.
        with contextlib.suppress(Exception):
            self._store.add(f"ended/{self._rank}", 1)

    def guard(self) -> None:
        """Watch whether the store answers, and what the main thread does."""
        while not self.stopped.wait(self.interval):
            place = self._place
            # What only describes must not end the watch.
            with contextlib.suppress(Exception):
                place = " ".join(filter(None, (_so_far(), _place())))
            if place != self._place:
                self._place, self._since = place, time.monotonic()
            self._unanswered += 1
            if self._unanswered * self.interval >= self._limit:
                host = os.environ.get("MASTER_ADDR")
                who = f"The node on which the ranks meet ({host})"
                why = "it, or the network to it, is gone"
                _end(self._lost(who, why), torchrun_too=True)


def _place():
    """Say where the main thread is: our last functions, what they call."""
    frame = sys._current_frames().get(threading.main_thread().ident)
    frames = [one for one, _ in traceback.walk_stack(frame)][::-1]
    package = __name__.partition(".")[0]
    ours = [
        number
        for number, one in enumerate(frames)
        if one.f_globals.get("__name__", "").startswith(f"{package}.")
    ]
    if not ours:
        return ""
    below = [one.f_code.co_name for one in frames[ours[-1] + 1 :]]
    # Of PyTorch's decorators, and what else only passes on.
    named = [
        name for name in below if name[0] not in "_<" and name != "wrapper"
    ]
    names = [frames[number].f_code.co_name for number in ours[-3:]] + named[:1]
    last = frames[ours[-1]]
    if last.f_code.co_name == "barrier":
        last = last.f_back or last
    path, line = last.f_code.co_filename, last.f_lineno
    text = linecache.getline(path, line).strip()
    where = f"{Path(path).name}, line {line}: {text}"
    return f"in {' > '.join(dict.fromkeys(names))} ({where})"


def start(
    connect: Callable[[], "Store"], rank: int, ranks: int, limit: float
) -> None:
    """Start to beat and to watch; each thread connects for itself."""
    global _store
    heart = Heart(connect(), rank, ranks, limit)
    # Now: one that is lost before its first beat would be taken for one that
    # has not begun, and waited for.
    heart.beat()
    _store = connect()
    thread = threading.Thread(target=heart.run, daemon=True)
    thread.start()
    threading.Thread(target=heart.guard, daemon=True).start()
    atexit.register(_end_in_peace, os.getpid(), heart, thread)


def _end_in_peace(process, heart, thread):
    if os.getpid() == process:  # What a fork ends is not the rank.
        # Python ends a thread that is inside the store by unwinding its C++,
        # which aborts the process ("terminate called").
        heart.stopped.set()
        thread.join(_PATIENCE)


def first_failure(line: str) -> tuple[str | None, bool]:
    """Return what the first rank that failed has said; None if this is it.

    And whether this one has to speak: one of each node does.
    """
    # When one fails, the others do, too: their connections break.
    if _store is None:
        return None, True
    number = str(os.environ.get("RANK"))
    mine, node = f"rank {number}: {line}", os.environ.get("GROUP_RANK", "")
    found: list[str] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            for key, value in (("failure", mine), (f"spoke/{node}", number)):
                found.append(_store.compare_set(key, "", value).decode())

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if len(found) < 2:  # There is nobody left to speak for this rank.
        return None, True
    return None if found[0] == mine else found[0], found[1] == number
