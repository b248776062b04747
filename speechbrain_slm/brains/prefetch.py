"""Prepare the next step while this one trains."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


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

    def __init__(self, prepare: Callable, last: int) -> None:
        self._prepare = prepare
        self._last = last
        self._next = None

    def __enter__(self):
        self._pool = ThreadPoolExecutor(1, "prepare-batches")
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, step: int) -> object:
        """Return what was prepared for a step, and begin with the next one.

        Arguments
        ---------
        step : Steps must be taken in order.

        Returns
        -------
        What ``prepare(step)`` returned.
        """
        waiting = self._next or self._pool.submit(self._prepare, step)
        result = waiting.result()
        self._next = None
        if step + 1 < self._last:
            self._next = self._pool.submit(self._prepare, step + 1)
        return result

    def call(self, function: Callable, *arguments) -> object:
        """Call a function in the thread, and wait for it.

        What ``prepare`` uses need not be made for two threads then.

        Arguments
        ---------
        *arguments
            For it.

        Returns
        -------
        What the function returned.
        """
        return self._pool.submit(function, *arguments).result()
