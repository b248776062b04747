"""Reading speech by processes, for whoever keeps a GPU busy meanwhile.

To start some thousand kernels a second takes Python's lock most of the time:
threads that read contend for it, and the GPU waits (of Mimi, an H200 gave with
them a quarter of what its encoder does alone).
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, reduction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechbrain_slm.units.audio import Clip, in_turn, pad, read_clip
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.workers import begin_worker

_AHEAD = 4  # batches that are read before they are asked for
_PART = 16  # files that a process is given at once
_NUMBER = 4  # bytes of a sample
_NEEDED = ("audio", "num_samples", "sample_rate", "sha256")

# A process's: where it writes the samples of the batches under way.
_slots: Sequence[int] = ()


class _Slots:
    """Memory that processes share, as a file of no folder for each batch.

    /dev/shm is not used: in containers it is small. What does not fit is an
    error of the one who writes.
    """

    def __init__(self, files: Sequence[int]) -> None:
        self.files = files

    def __reduce__(self) -> Any:
        # Sent at a process's start, as what it inherits.
        return _inherit, (list(map(reduction.DupFd, self.files)),)


def _inherit(files):
    return _Slots([file.detach() for file in files])


class _Read(NamedTuple):
    """What is told of a file; its samples are in a slot."""

    samples: int | None  # None where it is bad
    reason: str
    note: str


def _begin(slots):
    global _slots
    _slots = slots.files
    torch.set_num_threads(1)
    begin_worker()


def _read_part(rows, sample_rate, max_seconds, slot, first, width):
    """Read files into a slot, from row ``first`` on, rows of ``width``."""
    told = []
    for number, row in enumerate(rows, first):
        clip = read_clip(row, sample_rate, max_seconds)
        count = None
        if clip.wav is not None:
            count, padded = len(clip.wav), np.zeros(width, np.float32)
            padded[:count] = clip.wav
            _write(_slots[slot], padded, number * width * _NUMBER)
        told.append(_Read(count, clip.reason, clip.note))
    return told


def _write(file, samples, place):
    view = memoryview(samples).cast("B")
    while view:
        done = os.pwrite(file, view, place)
        view, place = view[done:], place + done


def _gather(parts, file, shape, pinned):
    """Return clips without their sound, waveforms and lengths of the good."""
    told = [one for part in parts for one in part.result()]
    there = torch.zeros(0)
    clips = [
        Clip(None if one.samples is None else there, one.reason, one.note)
        for one in told
    ]
    lengths = [one.samples for one in told]
    if not any(one is there for one, _, _ in clips):
        return clips, *pad([])
    padded = torch.empty(shape, pin_memory=pinned)
    view, place = memoryview(padded.numpy()).cast("B"), 0
    # Rows of bad files at the end were not written.
    while view and (done := os.preadv(file, [view], place)):
        view, place = view[done:], place + done
    if None in lengths or max(lengths) != shape[1]:
        pairs = zip(padded, lengths, strict=True)
        good = [wav[:count] for wav, count in pairs if count is not None]
        return clips, *pad(good, pinned)
    return clips, padded, torch.tensor(lengths, pin_memory=pinned)


def _width(batch, sample_rate):
    """Return how many samples the longest has at most, once resampled."""
    lengths = ((row["num_samples"], row["sample_rate"]) for row in batch)
    most = max((-(-n * sample_rate // rate) for n, rate in lengths), default=0)
    # torchaudio counts them in float32, of 24 bits.
    return most + (most >> 20)


def prepare_processes() -> None:
    """Have processes ready sooner; meanwhile there is something else to do."""
    # Forked from one that has imported all, and in which no thread runs: from
    # this one that would be unsafe, and torch takes each seconds to import.
    preload = ["__main__", __name__]
    multiprocessing.set_forkserver_preload(preload)
    forkserver.ensure_running()


def read_by_processes(
    batches: Iterable[list[dict[str, Any]]],
    sample_rate: int,
    num_workers: int,
    max_seconds: float,
    pinned: bool,
) -> Iterator[tuple[list[dict[str, Any]], tuple[list[Clip], Tensor, Tensor]]]:
    """Read the audio of the next batches while one is worked on.

    Yields a batch, and its clips (without their sound), waveforms and lengths
    of those that are good. ChildProcessError if a process dies.

    Arguments
    ---------
    batches, sample_rate, max_seconds
        See :func:`speechbrain_slm.units.audio.read_batches`.
    num_workers : Processes.
    pinned : Waveforms in memory that a GPU copies from by itself.
    """
    check_number("num_workers", num_workers, at_least=1, whole=True)
    prepare_processes()
    slots = _Slots([os.memfd_create("speech") for _ in range(_AHEAD + 1)])
    pool = ProcessPoolExecutor(
        num_workers,
        multiprocessing.get_context("forkserver"),
        initializer=_begin,
        initargs=(slots,),
    )
    # What is read goes into the GPU's memory: beside it, and Python's lock is
    # not held meanwhile.
    copier, count = ThreadPoolExecutor(1), 0
    names: deque[str] = deque(maxlen=len(slots.files))

    def start(batch: list[dict[str, Any]]) -> Future:
        nonlocal count
        # Free by now: of the batches before, one less is not handed on.
        slot, width = count % len(slots.files), _width(batch, sample_rate)
        count += 1
        names.extend(row["audio"] for row in batch[:1])
        parts = []
        for first in range(0, len(batch), _PART):
            rows = [
                {name: row[name] for name in _NEEDED}
                for row in batch[first : first + _PART]
            ]
            how = (sample_rate, max_seconds, slot, first, width)
            parts.append(pool.submit(_read_part, rows, *how))
        shape = len(batch), width
        return copier.submit(_gather, parts, slots.files[slot], shape, pinned)

    try:
        yield from in_turn(batches, start, _AHEAD)
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "A process that reads audio died: it crashed, or the system killed "
            f"it (out of memory?). It was reading {names[0]} or one of the "
            "files that follow. Set num_workers or batch_seconds lower; a "
            'script of yours needs `if __name__ == "__main__":`.'
        ) from error
    finally:
        # Whoever stops half-way need not wait for what nobody reads.
        pool.shutdown(cancel_futures=True)
        copier.shutdown(cancel_futures=True)
        for file in slots.files:
            os.close(file)
