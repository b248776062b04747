"""Reading speech ahead of the one who encodes it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

from speechbrain_slm.utils import audio


class Clip(NamedTuple):
    """What came of reading an audio file."""

    wav: torch.Tensor | None  # [T], float32; None where the file is bad
    reason: str = ""  # why it is bad
    note: str = ""  # what was done to it beside decoding


def read_clip(
    utterance: dict[str, Any], sample_rate: int, max_seconds: float
) -> Clip:
    """Read an utterance's audio; see :func:`read_batches`."""
    how = ("mono", "float32", max_seconds, True)
    try:
        sound = audio.read_audio(utterance["audio"], utterance, *how)
        rate, samples = sound.sample_rate, np.asarray(sound.samples)
        wav = torch.from_numpy(audio.resampled(samples, rate, sample_rate))
    except audio.BadAudio as error:
        return Clip(None, str(error))
    mixed = f"{sound.channels} channels mixed down" * (sound.channels > 1)
    resampled = f"resampled from {rate} Hz" * (rate != sample_rate)
    return Clip(wav, note="; ".join(filter(None, (mixed, resampled))))


def read_batches(
    batches: Iterable[list[dict[str, Any]]],
    sample_rate: int,
    num_workers: int,
    max_seconds: float = audio.MAX_SECONDS,
    ahead: int = 2,
    finish: Callable[[list[Clip]], Any] = list,
) -> Iterator[tuple[list[dict[str, Any]], Any]]:
    """Read the audio of the next batches while one is worked on.

    Yields a batch, and what ``finish`` makes of its utterances' clips.

    Arguments
    ---------
    batches : ``audio``, ``num_samples``, ``sample_rate`` and ``sha256`` each.
    sample_rate
        What the waveforms shall have, in Hz. A file of another rate is
        resampled if the manifest states that rate.
    max_seconds : A longer file is bad.
    ahead : Batches that are read before they are asked for.
    finish : What is done with a batch once it is read, by a thread, too.
    """
    # Threads: decoding and hashing run outside Python's lock, and unlike
    # processes they end with the one that started them, however it ends.
    pool = ThreadPoolExecutor(num_workers)

    def start(batch):
        how = (sample_rate, max_seconds)
        clips = [pool.submit(read_clip, one, *how) for one in batch]
        # Behind its clips: whoever takes it waits for others that work.
        return pool.submit(_finish, clips, finish)

    try:
        yield from in_turn(batches, start, ahead)
    finally:
        # Whoever stops half-way need not wait for what nobody reads.
        pool.shutdown(cancel_futures=True)


def _finish(clips, finish):
    return finish([clip.result() for clip in clips])


def in_turn(
    batches: Iterable, start: Callable[[Any], Future], ahead: int
) -> Iterator[tuple[Any, Any]]:
    """Start batches ahead; yield each, and its result, in their order."""
    waiting: deque = deque()
    # At the end, as many times nothing: what waits is handed on.
    for batch in itertools.chain(batches, [None] * ahead):
        waiting.append((batch, None if batch is None else start(batch)))
        # In their order, whoever is read first.
        if len(waiting) > ahead:
            batch, done = waiting.popleft()
            if batch is not None:
                yield batch, done.result()


def read_clips(
    utterances: Iterable[dict[str, Any]],
    sample_rate: int,
    num_workers: int,
    max_seconds: float = audio.MAX_SECONDS,
) -> Iterator[Clip]:
    """Read audio files one by one, ahead of the one who needs them."""
    single = ([utterance] for utterance in utterances)
    how = (sample_rate, num_workers, max_seconds, 8 * num_workers)
    for _, clips in read_batches(single, *how):
        yield clips[0]


def pad(
    wavs: Sequence[torch.Tensor], pinned: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a batch: waveforms, ``[B, T]``, and their lengths, ``[B]``.

    ``pinned``: in memory that a GPU copies from by itself.
    """
    lengths = [len(wav) for wav in wavs]
    shape = len(wavs), max(lengths, default=0)
    padded = torch.empty(shape, pin_memory=pinned)
    # By NumPy: torch would start threads for it, which then spin against
    # those that read (10 ms a batch where 1 ms does).
    for row, wav in zip(padded.numpy(), wavs, strict=True):
        row[: len(wav)] = wav
        row[len(wav) :] = 0
    counts = torch.tensor(lengths, dtype=torch.int64, pin_memory=pinned)
    return padded, counts
