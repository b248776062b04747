"""No rank outlives the others, or the ``torchrun`` that started it.

A rank that is stopped, or on a machine that has frozen, keeps its connections
open: at a barrier it would be waited for as if it had long work to do. So each
counts up in the rendezvous store and watches whether the next one does, too.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import Store

_PR_SET_PDEATHSIG = 1
_store = None  # the main thread's connection


def end_with_parent() -> None:
    """End this process when the ``torchrun`` that started it ends."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        # Started by hand or by a batch system: a shell may end before it.
        return
    parent = os.getppid()
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


def _end(reason):
    """End the process from a thread, whatever its others wait for."""
    error = ConnectionError(reason)
    with contextlib.suppress(Exception):  # Nobody may be there to read it.
        sys.excepthook(ConnectionError, error, None)
    os._exit(1)


class Heart:
    """Count up in a store, and watch whether the next rank does.

    Arguments
    ---------
    store : No dead process has written to it; used from one thread.
    limit : Seconds after which a rank that does not count is taken for dead.
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
        self._missed = 0

    def beat(self) -> str | None:
        """Count up; return what is wrong with the next rank that goes on."""
        self._store.add(f"beats/{self._rank}", 1)
        own, ended = self._rank, "ended/{}".format
        while self._watched != own and self._store.add(ended(self._watched), 0):
            self._watched = (self._watched + 1) % self._ranks
            self._count = self._missed = 0
        if self._watched == own:  # All others have ended.
            return None
        count = self._store.add(f"beats/{self._watched}", 0)
        self._missed = self._missed + 1 if count == self._count else 0
        self._count = count
        if self._missed * self.interval < self._limit:
            return None
        which = f"Rank {self._watched} is stopped, or its machine"
        return f"{which}: it has shown no sign of life for {self._limit} s"

    def run(self) -> None:
        """Beat until the process ends, or another one fails to."""
        while not self.stopped.wait(self.interval):
            try:
                reason = self.beat()
            except Exception:  # The store's end, whatever PyTorch calls it.
                if _torchrun_has_the_store():
                    _end("torchrun's store does not answer: it has ended")
                return
            if reason:
                _end(reason)


def start(
    connect: Callable[[], "Store"], rank: int, ranks: int, limit: float
) -> None:
    """Start to beat and to watch; each thread connects for itself."""
    global _store
    heart = Heart(connect(), rank, ranks, limit)
    thread = threading.Thread(target=heart.run, daemon=True)
    thread.start()
    _store = connect()
    atexit.register(_end_in_peace, rank, os.getpid(), heart, thread)


def _end_in_peace(rank, process, heart, thread):
    if os.getpid() == process:  # What a fork ends is not the rank.
        # Python ends a thread that is inside the store by unwinding its C++,
        # which aborts the process ("terminate called").
        heart.stopped.set()
        thread.join(timeout=5)
        with contextlib.suppress(Exception):
            _store.add(f"ended/{rank}", 1)


def first_failure(line: str) -> str | None:
    """Return what the first rank that failed has said; None if this is it."""
    # When one fails, the others do, too: their connections break. One speaks.
    if _store is None:
        return None
    mine = f"rank {os.environ.get('RANK')}: {line}"
    with contextlib.suppress(Exception):
        first = _store.compare_set("failure", "", mine).decode()
        return None if first == mine else first
    return None
