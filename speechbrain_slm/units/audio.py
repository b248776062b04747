"""Reading speech ahead of the one who encodes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

from speechbrain_slm.utils.audio import (
    MAX_SECONDS,
    BadAudio,
    read_audio,
    resampled,
)


class Clip(NamedTuple):
    """What came of reading an audio file."""

    wav: torch.Tensor | None  # [T], float32; None where the file is bad
    reason: str = ""  # why it is bad
    note: str = ""  # what was done to it beside decoding


def _read(
    utterance: dict[str, Any], sample_rate: int, max_seconds: float
) -> Clip:
    notes = []
    try:
        sound = read_audio(
            utterance["audio"], utterance, "mono", "float32", max_seconds, True
        )
        if sound.channels > 1:
            notes.append(f"{sound.channels} channels mixed down")
        if sound.sample_rate != sample_rate:
            notes.append(f"resampled from {sound.sample_rate} Hz")
        samples = np.asarray(sound.samples)
        wav = resampled(samples, sound.sample_rate, sample_rate)
    except BadAudio as error:
        return Clip(None, str(error))
    return Clip(torch.from_numpy(wav), note="; ".join(notes))


def read_batches(
    batches: Iterable[list[dict[str, Any]]],
    sample_rate: int,
    num_workers: int,
    max_seconds: float = MAX_SECONDS,
    ahead: int = 2,
) -> Iterator[tuple[list[dict[str, Any]], list[Clip]]]:
    """Read the audio of the next batches while one is worked on.

    Yields a batch, and what was read of each of its utterances.

    Arguments
    ---------
    batches : ``audio``, ``num_samples``, ``sample_rate`` and ``sha256`` each.
    sample_rate
        What the waveforms shall have, in Hz. A file of another rate is
        resampled if the manifest states that rate.
    max_seconds : A longer file is bad.
    ahead : Batches that are read before they are asked for.
    """
    # Threads: decoding and hashing run outside Python's lock, and unlike
    # processes they end with the one that started them, however it ends.
    pool = ThreadPoolExecutor(num_workers)
    waiting: deque = deque()
    try:
        for batch in batches:
            clips = [
                pool.submit(_read, one, sample_rate, max_seconds)
                for one in batch
            ]
            waiting.append((batch, clips))
            # In their order, whoever is read first.
            if len(waiting) > ahead:
                batch, clips = waiting.popleft()
                yield batch, [clip.result() for clip in clips]
        while waiting:
            batch, clips = waiting.popleft()
            yield batch, [clip.result() for clip in clips]
    finally:
        # Whoever stops half-way need not wait for what nobody reads.
        pool.shutdown(cancel_futures=True)


def read_clips(
    utterances: Iterable[dict[str, Any]],
    sample_rate: int,
    num_workers: int,
    max_seconds: float = MAX_SECONDS,
) -> Iterator[Clip]:
    """Read audio files one by one, ahead of the one who needs them."""
    single = ([utterance] for utterance in utterances)
    how = (sample_rate, num_workers, max_seconds, 8 * num_workers)
    for _, clips in read_batches(single, *how):
        yield clips[0]


def pad(wavs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a batch: waveforms, ``[B, T]``, and their lengths, ``[B]``."""
    lengths = torch.tensor([len(wav) for wav in wavs])
    # By NumPy: torch would start threads for it, which then spin against
    # those that read (10 ms a batch where 1 ms does).
    padded = np.zeros((len(wavs), int(lengths.max())), dtype=np.float32)
    for row, wav in zip(padded, wavs, strict=True):
        row[: len(wav)] = wav
    return torch.from_numpy(padded), lengths
