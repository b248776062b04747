"""Worker processes that leave nothing behind."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable


def begin_worker(at_end: Callable[[], object] = lambda: None) -> None:
    """Have this process end with its parent, and as that one does.

    A pool's workers would wait for ever for a parent that was killed.

    Arguments
    ---------
    at_end : Called if the parent has ended.
    """
    # Ctrl-C reaches all processes of a terminal; the parent's answer counts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch = threading.Thread(target=_end_with_parent, args=(at_end,))
    watch.daemon = True
    watch.start()


def _end_with_parent(at_end):
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    at_end()
    os._exit(1)
