"""Threads that wait for a server, and keep no process from ending."""

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future


class WaitingThreads:
    """Calls functions in threads, in the order in which they are given.

    Unlike those of ``ThreadPoolExecutor``, the threads end with the process:
    who presses Ctrl-C does not wait until a slow server has answered.

    Arguments
    ---------
    count : How many calls run at a time.

    Example
    -------
    >>> with WaitingThreads(2) as threads:
    ...     threads.submit(pow, 2, 5).result()
    32
    """

    def __init__(self, count: int) -> None:
        self._calls = queue.SimpleQueue()
        self._count = count
        for _ in range(count):
            threading.Thread(target=self._work, daemon=True).start()

    def submit(self, function: Callable, *arguments: object):
        """Call a function in a thread.

        Returns
        -------
        concurrent.futures.Future
        """
        future = Future()
        self._calls.put((future, function, arguments))
        return future

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        """Cancel what has not begun; what has is not waited for."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()[0].cancel()
        for _ in range(self._count):
            self._calls.put(None)

    def _work(self):
        while (call := self._calls.get()) is not None:
            future, function, arguments = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function(*arguments)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
