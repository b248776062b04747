"""Processes that share out work and leave nothing behind."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from speechbrain_slm.speech.tts.programs import kill_running

# Chunks handed out a worker: enough that none waits, few enough that a long
# list of work is never held in memory as futures.
_AHEAD = 4
_context = None


def _begin(context):
    global _context
    _context = context
    # Ctrl-C reaches all processes of a terminal; the parent's answer counts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    # A pool's workers would wait for ever for a parent that was killed.
    multiprocessing.parent_process().join()
    kill_running()
    os._exit(1)


def _call(function, chunk):
    return function(_context, chunk)


def run_in_workers(
    function: Callable, context: object, chunks, num_workers: int
) -> Iterator[object]:
    """Yield ``function(context, chunk)`` for each chunk, as they finish.

    The processes are started afresh (``spawn``): forking a process in which
    torch has started threads is unsafe.

    Arguments
    ---------
    function : A function of a module.
    context : Sent to each worker once.
    chunks : iterable
        Taken as they are needed.

    Yields
    ------
    What the function returned, in no fixed order.

    Raises
    ------
    ValueError
        If ``num_workers`` is less than 1.
    RuntimeError
        If a worker process dies. Names what was being worked on.
    Exception
        What the function raised; the chunks not begun are dropped.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}; expected 1 or more")
    chunks = iter(chunks)
    running = {}
    pool = ProcessPoolExecutor(
        num_workers,
        multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(context,),
    )
    try:
        while True:
            free = _AHEAD * num_workers - len(running)
            for chunk in itertools.islice(chunks, free):
                running[pool.submit(_call, function, chunk)] = chunk
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                del running[future]
                yield result
    except BrokenProcessPool as error:
        begun = list(running.values())[: num_workers + 1]
        raise RuntimeError(
            "A worker process died: it crashed, or the system killed it (out "
            "of memory?). It was working on one of "
            + "; ".join(str(chunk) for chunk in begun)
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
