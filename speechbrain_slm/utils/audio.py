"""The one place where audio enters: whole, bounded, as stated, and heard.

What is wrong is a reason, told by the one error :class:`BadAudio`; what becomes
of the file (an entry of a ledger, the end of a run) is for the caller to say.
"""

from __future__ import annotations

import functools
import hashlib
import io
from math import gcd
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from speechbrain_slm.utils.containers import CHECKED, shortfall
from speechbrain_slm.utils.files import (
    as_stored,
    check_file,
    open_regular,
    read_regular,
)

# Longer than any sentence, and than most stories: what a file may unpack to.
MAX_SECONDS = 3600.0
MAX_RATE = 384_000  # Hz
MAX_CHANNELS = 64
MAX_BYTES = 1 << 31  # of a file, which is held in memory
# Encodings that integers hold as they are, and which; others are floats.
EXACT = {"PCM_16": "int16", "PCM_24": "int32", "PCM_32": "int32"}
_BLOCK = 1 << 20  # samples that are decoded at once
_SURE = 1 << 26  # bytes that are read before the header is looked at
# libsndfile gives a length that is not known as 2^63 - 1.
_UNKNOWN = 1 << 62
# The peak of what is mixed down, in dB of full scale: below it is silence.
# A line without a voice has -96 to -85, quiet speech -40.
SILENCE_DB = -80.0
# Of full scale; what is decoded from MP3, or kept as floats, may pass 1.
LOUDEST = 4.0
# Numbers in the filter that resamples; two rates of 44,101 and 16,000 Hz
# have no common divisor, and would take one of 6 GB.
_MAX_FILTER = 1 << 24


class BadAudio(ValueError):
    """Why a file cannot be used; the caller knows its name."""


class Sound(NamedTuple):
    """An audio file that is what it should be."""

    samples: np.ndarray | None  # [T, channels], or [T] if mixed down
    num_samples: int  # of each channel
    sample_rate: int  # Hz
    channels: int
    kind: str  # its format, as libsndfile calls it
    subtype: str  # and its encoding
    sha256: str  # of the bytes that were decoded


def read_audio(
    source: str | Path | bytes,
    expected: dict | None = None,
    keep: str | None = "channels",
    dtype: str | None = "float32",
    max_seconds: float = MAX_SECONDS,
    audible: bool = False,
) -> Sound:
    """Read an audio file, or say in a ``BadAudio`` what is wrong with it.

    Header, samples and SHA-256 are those of one read.

    Arguments
    ---------
    expected
        What a manifest says: ``num_samples``, ``sample_rate`` (Hz), which
        are compared before anything is decoded, and, or not, ``sha256``.
    keep : ``channels``; ``mono``, which mixes them down; None: nothing.
    dtype
        ``float32``, ``int16`` or ``int32``, the first where ``keep`` is
        ``mono``; None: what keeps every sample as it is.
    max_seconds : What is longer is not decoded.
    audible : Refuse silence, and what lies beyond full scale.

    Example
    -------
    >>> file = io.BytesIO()
    >>> soundfile.write(file, [0.5, 0.25], 16000, format="WAV")
    >>> read_audio(file.getvalue()[:-2])
    Traceback (most recent call last):
    ...
    speechbrain_slm.utils.audio.BadAudio: cut short: its header promises 4
    bytes of sound, 2 are there
    """
    content = source
    try:
        if not isinstance(source, bytes):
            # A file is read as a whole, once its header is that of speech.
            if (size := as_stored(source).stat().st_size) > _SURE:
                with (
                    open_regular(source) as file,
                    soundfile.SoundFile(file.fileno(), closefd=False) as head,
                ):
                    _check_head(head, size, expected, max_seconds)
            content = read_regular(source, MAX_BYTES)
        return _decode(content, expected, keep, dtype, max_seconds, audible)
    except BadAudio:
        raise
    except Exception as error:
        raise BadAudio(_reason(source, error)) from error


def _reason(source, error):
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    if isinstance(error, OSError):
        # One of ours begins with the name, which the caller tells.
        text = str(error).removeprefix(str(source))
        return error.strerror or text.lstrip(": ")
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    # A message may hold the address of the buffer that was read.
    text = str(error).split(": ")[-1] or "its decoder does not say why"
    if not isinstance(source, bytes):
        # What is no audio may be a pointer to the file that is meant.
        try:
            check_file(source, "audio")
        except (OSError, ValueError) as other:
            text = str(other).removeprefix(f"{source} is ")
    return f"cannot be decoded: {text}"


def _check_head(file, size, expected, max_seconds):
    """Return how many samples a header tells, or None, and the most allowed."""
    rate, channels = file.samplerate, file.channels
    if file.format not in CHECKED:
        raise BadAudio(
            f"it is {file.format}, not {', '.join(CHECKED)}; convert it"
        )
    if not (0 < rate <= MAX_RATE and 0 < channels <= MAX_CHANNELS):
        raise BadAudio(
            f"its header tells of {channels} channels at {rate} Hz; expected "
            f"1 to {MAX_CHANNELS}, at most {MAX_RATE} Hz"
        )
    count = told = None if file.frames >= _UNKNOWN else file.frames
    # A header and a manifest may lie together: both are held to max_seconds.
    if expected is not None:
        count = expected["num_samples"]
        if rate != expected["sample_rate"] or told not in (None, count):
            raise _other_length(told, rate, expected)
    most = int(max_seconds * rate)
    if count is not None:
        if count > most:
            raise _too_long(count, rate, max_seconds)
        most = count
    # Eight bytes a sample are the most that an encoding takes.
    if size > most * channels * 8 + _SURE:
        raise BadAudio(f"it has {size} bytes, too many for its sound")
    return told, most


def _other_length(count, rate, expected):
    return BadAudio(
        f"it holds {'?' if count is None else count} samples at {rate} Hz; the "
        f"manifest says {expected['num_samples']} at "
        f"{expected['sample_rate']} Hz"
    )


def _too_long(count, rate, max_seconds):
    return BadAudio(
        f"it lasts {count / rate:.0f} s or more; expected at most "
        f"{max_seconds:g} s"
    )


def _decode(content, expected, keep, dtype, max_seconds, audible):
    if not content:
        raise BadAudio("the file has 0 bytes")
    kept, count, loudest, peak = [], 0, 0.0, 0.0
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        kind, subtype = file.format, file.subtype
        if kind in CHECKED and (fault := shortfall(content, kind)):
            raise BadAudio(fault)
        told, most = _check_head(file, len(content), expected, max_seconds)
        rate, channels = file.samplerate, file.channels
        dtype = dtype or EXACT.get(subtype, "float32")
        scale = {"int16": 2.0**15, "int32": 2.0**31}.get(dtype, 1.0)
        if told is None:
            # soundfile seeks after each read: FLAC cannot without an end.
            file._info.seekable = 0
        # Block by block: a header that lies costs no memory.
        size = max(1, _BLOCK // channels)
        while count <= most and (told is None or count < told):
            block = file.read(size, dtype=dtype, always_2d=True)
            if not len(block):
                break
            count += len(block)
            mono = block[:, 0] if channels == 1 else block.mean(axis=1)
            loudest = _louder(loudest, block, scale)
            # Channels that cancel each other are silence.
            peak = loudest if channels == 1 else _louder(peak, mono, scale)
            if keep:
                kept.append(mono if keep == "mono" else block)
    if told is not None and count < told:
        raise BadAudio(f"{count} of {told} samples are there")
    if count > most and expected is None:
        raise _too_long(count, rate, max_seconds)
    if expected is not None and count != expected["num_samples"]:
        raise _other_length(count, rate, expected)
    if not count:
        raise BadAudio("it holds no sample")
    # Of the bytes that were decoded: the file may be another by now.
    digest = hashlib.sha256(content).hexdigest()
    if expected is not None and digest != expected.get("sha256", digest):
        raise BadAudio("its SHA-256 is not the manifest's")
    if not np.isfinite(loudest):
        raise BadAudio("a sample is NaN or infinite")
    if audible:
        mixed = " once its channels are mixed down" if channels > 1 else ""
        _refuse_inaudible(loudest, peak, mixed)
    # One block, as speech is, is not copied.
    samples = np.concatenate(kept) if len(kept) > 1 else (kept or [None])[0]
    return Sound(samples, count, rate, channels, kind, subtype, digest)


def _louder(peak, samples, scale):
    low, high = float(samples.min()), float(samples.max())
    # Not the built-in max, which may pass over what is not a number.
    return np.max([peak, -low / scale, high / scale])


def check_audible(samples: np.ndarray) -> None:
    """Refuse a waveform, ``[T]``, that is not one of speech: BadAudio."""
    if samples.ndim != 1:
        raise BadAudio(f"its shape is {samples.shape}; expected one channel")
    if not len(samples):
        raise BadAudio("it holds no sample")
    peak = _louder(0.0, samples, 1.0)
    if not np.isfinite(peak):
        raise BadAudio("a sample is NaN or infinite")
    _refuse_inaudible(peak, peak, "")


def _refuse_inaudible(loudest, peak, mixed):
    if loudest > LOUDEST:
        raise BadAudio(
            f"a sample is {loudest:.3g} times full scale; expected at most "
            f"{LOUDEST:g}"
        )
    if not peak:
        raise BadAudio(f"every sample is 0{mixed}")
    if (level := 20 * np.log10(peak)) < SILENCE_DB:
        raise BadAudio(
            f"silent: its peak is {level:.0f} dB of full scale{mixed}; "
            f"expected {SILENCE_DB:g} or more"
        )


def resampled(wav: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Bring a waveform, float32 [T], to another rate (Hz).

    BadAudio if the two have so small a common divisor that the filter would not
    fit into memory.
    """
    if rate == wanted or not len(wav):
        return wav
    divisor = gcd(rate, wanted)
    if (rate // divisor) * (wanted // divisor) > _MAX_FILTER:
        raise BadAudio(
            f"{rate} Hz cannot be resampled to {wanted} Hz; convert it first"
        )
    # Here: torch would take whoever does not resample seconds to load.
    import torch

    try:
        return _resampler(rate, wanted)(torch.from_numpy(wav)).numpy()
    except (MemoryError, RuntimeError) as error:
        raise BadAudio(f"cannot be resampled: {error}") from error


@functools.lru_cache(8)
def _resampler(rate, wanted):
    import torch
    from torchaudio.transforms import Resample

    # The filter, once: it takes longer than to resample a sentence. In float32
    # its bits are those of torchaudio.functional.resample.
    return Resample(rate, wanted, dtype=torch.float32)
