"""Reading speech, and finding out that a file is not what it should be."""

import hashlib
import io
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from torchaudio.functional import resample


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


def read_clip(utterance, sample_rate):
    """Read an audio file and compare it with its manifest.

    Truncated WAV, OGG and MP3 files are read without an error, and a
    replaced file always is; hence the comparisons.

    Arguments
    ---------
    utterance : dict
        ``audio`` (path), ``num_samples``, ``sample_rate`` (Hz) and
        ``sha256``, as the manifest says.
    sample_rate : int
        What the waveform shall have, in Hz. A file of another rate is
        resampled if the manifest states that rate.

    Returns
    -------
    Clip
        The waveform, or the reason why there is none.
    """
    content = Path(utterance["audio"]).read_bytes()
    if not content:
        return Clip(None, "the file has 0 bytes")
    try:
        wav, rate = soundfile.read(
            io.BytesIO(content), dtype="float32", always_2d=True
        )
    except (soundfile.SoundFileError, RuntimeError) as error:
        # A message may hold the address of the buffer that was read.
        text = str(error).split(": ")[-1]
        return Clip(None, f"cannot be decoded: {text}")
    expected = (utterance["sample_rate"], utterance["num_samples"])
    if (rate, len(wav)) != expected:
        return Clip(
            None,
            f"{len(wav)} samples at {rate} Hz; the manifest says "
            f"{expected[1]} at {expected[0]} Hz",
        )
    if hashlib.sha256(content).hexdigest() != utterance["sha256"]:
        return Clip(None, "its SHA-256 is not the manifest's")
    if not np.isfinite(wav).all():
        return Clip(None, "a sample is NaN or infinite")
    if not wav.any():
        return Clip(None, "every sample is 0")
    notes = []
    if wav.shape[1] > 1:
        notes.append(f"{wav.shape[1]} channels mixed down")
    wav = torch.from_numpy(wav.mean(axis=1))
    if rate != sample_rate:
        notes.append(f"resampled from {rate} Hz")
        wav = resample(wav, rate, sample_rate)
    return Clip(wav, note="; ".join(notes))


def read_clips(utterances, sample_rate, num_workers):
    """Read audio files ahead of the one who needs them.

    Arguments
    ---------
    utterances : iterable of dict
        See :func:`read_clip`.
    sample_rate : int
        What the waveforms shall have, in Hz.
    num_workers : int
        Number of threads.

    Yields
    ------
    Clip
        In the order of the utterances.
    """
    single = ([utterance] for utterance in utterances)
    ahead = 8 * num_workers
    for _, clips in read_batches(single, sample_rate, num_workers, ahead):
        yield clips[0]


def read_batches(batches, sample_rate, num_workers, ahead=2):
    """Read the audio of the next batches while one is worked on.

    Threads do: decoding and hashing run outside Python's lock. Unlike
    processes, they end with the one that started them, however it ends.

    Arguments
    ---------
    batches : iterable of list of dict
        Utterances; see :func:`read_clip`.
    sample_rate : int
        What the waveforms shall have, in Hz.
    num_workers : int
        Number of threads.
    ahead : int
        Batches that are read before they are asked for.

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
            clips = [pool.submit(read_clip, one, sample_rate) for one in batch]
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
