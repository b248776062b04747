"""Processes that leave nothing behind: workers of ours, programs of others."""

import contextlib
import errno
import itertools
import multiprocessing
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from speechbrain_slm.utils.workers import begin_worker

# Chunks handed out a worker: enough that none waits, few enough that a long
# list of work is never held in memory as futures.
_AHEAD = 4
_KEPT = 4096  # bytes of the end of what a program printed
_SHOWN = 500  # characters of it
_STEP = 0.05  # seconds between two looks whether a program has ended

# What the worker was given at its start. A global, since a pool pickles what
# it calls for every chunk, and a back-end may hold a model's configuration.
_context: Any = None
# Groups of programs that would outlive this process.
_groups: set[int] = set()


def run_in_workers(
    function: Callable, context: object, chunks: Iterable, num_workers: int
) -> Iterator:
    """Yield ``function(context, chunk)`` for each chunk, as they finish.

    The context is sent to each worker once; chunks are taken as they are
    needed. What the function, one of a module, raises ends it; RuntimeError if
    a worker process dies.
    """
    chunks, running = iter(chunks), dict[Any, object]()
    pool = ProcessPoolExecutor(
        num_workers,
        # Forking a process in which torch has started threads is unsafe.
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
                # Not before: one whose worker died is named below.
                del running[future]
                yield result
    except BrokenProcessPool as error:
        begun = map(str, list(running.values())[: num_workers + 1])
        raise RuntimeError(
            "A worker process died: it crashed, or the system killed it (out "
            f"of memory?). It was working on one of {'; '.join(begun)}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(context: object) -> None:
    global _context
    _context = context
    begin_worker(_kill_groups)


def _kill_groups() -> None:
    for group in tuple(_groups):
        kill_group(group)


def _call(function: Callable, chunk: object) -> object:
    return function(_context, chunk)


def start(words: list[str], **options: Any) -> subprocess.Popen:
    """Start a program as the head of a group of its own, for :func:`end`."""
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, start_new_session=True, **options
    )
    _groups.add(process.pid)
    return process


def end(process: subprocess.Popen) -> None:
    """Kill a program, and whatever it has started that is in its group."""
    # First killed, then waited for: until then its number is its own.
    kill_group(process.pid)
    process.wait()
    _groups.discard(process.pid)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def kill_group(group: int) -> None:
    """Kill a program and what it has started; :func:`end` waits for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


class Ended(NamedTuple):
    """A program that was run; as text, the end of what it printed."""

    status: int | None  # None where its time was up
    stdout: bytes
    stderr: bytes

    def __str__(self) -> str:
        printed = {"stdout": self.stdout, "stderr": self.stderr}
        texts = {k: v.decode(errors="replace") for k, v in printed.items()}
        ends = {k: text.strip()[-_SHOWN:] for k, text in texts.items()}
        return "".join(f"; {k}: {end}" for k, end in ends.items() if end)


def run_program(words: list[str], text: bytes, timeout: float) -> Ended:
    """Run a program on a text, in bounds of time and of what it may print.

    Whatever it has started is killed at its end, or after ``timeout`` seconds,
    unless that has left its process group. No shell is involved. ValueError
    if its arguments are longer than allowed.
    """
    # A file, not a pipe: a program that never reads it blocks nobody.
    with tempfile.TemporaryFile() as stdin:
        stdin.write(text)
        stdin.seek(0)
        try:
            process = start(words, stdin=stdin, stderr=subprocess.PIPE)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            longest = max(map(len, words))
            raise ValueError(
                f"'{words[0]}' cannot be given a word of {longest} characters: "
                "the system allows no arguments so long. Shorten the text, or "
                "leave {text} out: it comes on standard input then."
            ) from error
    try:
        in_time, printed = _watch(process, time.monotonic() + timeout)
    finally:
        end(process)
    return Ended(process.returncode if in_time else None, *printed)


def _watch(
    process: subprocess.Popen, deadline: float
) -> tuple[bool, Iterable[bytes]]:
    """Tell whether it ends in time, and the end of what it printed."""
    # A child that keeps the pipes open does not keep us: so it is the process
    # that is asked, not the pipes.
    printed: dict[Any, bytes] = {process.stdout: b"", process.stderr: b""}
    with selectors.DefaultSelector() as selector:
        for pipe in printed:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
        while True:
            # Without taking its status: its number must stay its own.
            ended = os.waitid(
                os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
            )
            left = deadline - time.monotonic()
            pause = 0 if ended else max(0, min(_STEP, left))
            # Waits for the pause, too, once both pipes are closed.
            for key, _ in selector.select(pause):
                block, pipe = os.read(key.fd, 1 << 16), key.fileobj
                if not block:
                    selector.unregister(pipe)
                printed[pipe] = (printed[pipe] + block)[-_KEPT:]
            if ended or left <= 0:
                return bool(ended), printed.values()
