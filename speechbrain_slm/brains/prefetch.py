"""Prepare the next step while this one trains."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Ahead:
    """Call a function of the step one step ahead, in one thread.

    An error of the function is raised where its result is taken. Leaving the
    ``with`` block, for whatever reason, ends the thread.

    Arguments
    ---------
    prepare : Takes a step; must not depend on what training changes.
    last : The step before which to stop.

    Example
    -------
    >>> with Ahead(lambda step: step * 10, last=3) as ahead:
    ...     [ahead.take(step) for step in range(3)]
    [0, 10, 20]
    """

    def __init__(self, prepare: Callable[[int], Any], last: int) -> None:
        self._prepare = prepare
        self._last = last
        self._next: Future | None = None

    def __enter__(self) -> "Ahead":
        # One thread is enough: rows are ready in a fraction of a step, and
        # NumPy and torch leave the interpreter to others meanwhile.
        self._pool = ThreadPoolExecutor(1, "prepare-batches")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, step: int) -> Any:
        """Return what was prepared for a step, and begin with the next one.

        Steps must be taken in order.
        """
        waiting = self._next or self._pool.submit(self._prepare, step)
        result = waiting.result()
        self._next = None
        if step + 1 < self._last:
            self._next = self._pool.submit(self._prepare, step + 1)
        return result

    def call(self, function: Callable, *arguments: object) -> Any:
        """Call a function in the thread, and return what it does.

        What ``prepare`` uses need not be made for two threads then.
        """
        return self._pool.submit(function, *arguments).result()
