"""Reading speech ahead of the one who encodes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from speechbrain_slm.utils.audio import (
    MAX_SECONDS,
    BadAudio,
    read_audio,
    resampled,
)


class Clip(NamedTuple):
    """What came of reading an audio file.

    Attributes
    ----------
    wav : torch.Tensor or None
        Waveform, ``[T]``, float32; None where the file is bad.
    reason : str
        Why it is bad; empty where it is not.
    note : str
        What was done to it beside decoding; empty for nothing.
    """

    wav: torch.Tensor | None
    reason: str = ""
    note: str = ""


def read_clip(
    utterance: dict, sample_rate: int, max_seconds: float = MAX_SECONDS
) -> Clip:
    """Read an audio file and compare it with its manifest.

    Arguments
    ---------
    utterance
        ``audio`` (path), ``num_samples``, ``sample_rate`` (Hz) and
        ``sha256``, as the manifest says.
    sample_rate
        What the waveform shall have, in Hz. A file of another rate is
        resampled if the manifest states that rate.
    max_seconds : A longer file is bad.

    Returns
    -------
    The waveform, or the reason why there is none.
    """
    notes = []
    try:
        sound = read_audio(
            utterance["audio"], utterance, "mono", "float32", max_seconds, True
        )
        if sound.channels > 1:
            notes.append(f"{sound.channels} channels mixed down")
        if sound.sample_rate != sample_rate:
            notes.append(f"resampled from {sound.sample_rate} Hz")
        wav = resampled(sound.samples, sound.sample_rate, sample_rate)
    except BadAudio as error:
        return Clip(None, str(error))
    return Clip(torch.from_numpy(wav), note="; ".join(notes))


def read_clips(
    utterances: Iterable[dict],
    sample_rate: int,
    num_workers: int,
    max_seconds: float = MAX_SECONDS,
) -> Iterator[Clip]:
    """Read audio files ahead of the one who needs them.

    Arguments
    ---------
    utterances : See :func:`read_clip`.
    sample_rate : What the waveforms shall have, in Hz.
    max_seconds : See :func:`read_clip`.

    Yields
    ------
    In the order of the utterances.
    """
    single = ([utterance] for utterance in utterances)
    ahead = 8 * num_workers
    for _, clips in read_batches(
        single, sample_rate, num_workers, ahead, max_seconds
    ):
        yield clips[0]


def read_batches(
    batches: Iterable[list[dict]],
    sample_rate: int,
    num_workers: int,
    ahead: int = 2,
    max_seconds: float = MAX_SECONDS,
) -> Iterator[tuple[list[dict], list[Clip]]]:
    """Read the audio of the next batches while one is worked on.

    Threads do: decoding and hashing run outside Python's lock. Unlike
    processes, they end with the one that started them, however it ends.

    Arguments
    ---------
    batches : Utterances; see :func:`read_clip`.
    sample_rate : What the waveforms shall have, in Hz.
    ahead : Batches that are read before they are asked for.
    max_seconds : See :func:`read_clip`.

    Yields
    ------
    list of dict
        A batch.
    list of Clip
        What was read of each of its utterances.
    """
    pool = ThreadPoolExecutor(num_workers)
    waiting = deque()
    try:
        for batch in batches:
            clips = [
                pool.submit(read_clip, one, sample_rate, max_seconds)
                for one in batch
            ]
            waiting.append((batch, clips))
            if len(waiting) > ahead:
                batch, clips = waiting.popleft()
                yield batch, [clip.result() for clip in clips]
        while waiting:
            batch, clips = waiting.popleft()
            yield batch, [clip.result() for clip in clips]
    finally:
        # Whoever stops half-way need not wait for what nobody reads.
        pool.shutdown(cancel_futures=True)
