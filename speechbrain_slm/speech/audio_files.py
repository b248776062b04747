"""The formats of spoken sentences, their ends, and their loudness."""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import soundfile

from speechbrain_slm.utils.audio import BadAudio, read_audio
from speechbrain_slm.utils.numbers import check_choice

# Kind -> format and subtype of libsndfile.
KINDS = {
    "flac": ("FLAC", "PCM_16"),
    "wav": ("WAV", "PCM_16"),
    "opus": ("OGG", "OPUS"),
}
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
# Head of the chunk of a WAV file with its sum: a name and a length.
_SUM = b"sum " + (32).to_bytes(4, "little")
_FRAME = 0.01  # seconds
_GATE = 0.4  # seconds: the block of EBU R128, less cannot be measured
_PEAK = 0.9  # of full scale, where a gain stops


def check_kind(kind: str, sample_rate: int) -> None:
    """Refuse a format that cannot hold the speech.

    Example
    -------
    >>> check_kind("opus", 22050)
    Traceback (most recent call last):
    ...
    ValueError: audio_format is opus, which has no 22050 Hz (only 8000, 12000,
    16000, 24000, 48000); choose flac, or another voice
    """
    check_choice("audio_format", kind, KINDS)
    fault = ""
    if not soundfile.check_format(*KINDS[kind]):
        fault = f"libsndfile {soundfile.__libsndfile_version__} cannot write"
    elif kind == "opus" and sample_rate not in _OPUS_RATES:
        rates = ", ".join(map(str, _OPUS_RATES))
        fault = f"has no {sample_rate} Hz (only {rates})"
    if fault:
        what = f"audio_format is {kind}, which {fault}"
        raise ValueError(f"{what}; choose flac, or another voice")


def encode(samples: np.ndarray, sample_rate: int, kind: str) -> bytes:
    """Make the content of an audio file of int16 samples [T].

    Ogg puts a random number into an Opus file: its bytes differ from one call
    to the next, its samples do not.
    """
    file = io.BytesIO()
    name, subtype = KINDS[kind]
    soundfile.write(file, samples, sample_rate, format=name, subtype=subtype)
    content = file.getvalue()
    if kind != "wav":
        return content
    # FLAC and Ogg hold sums of their own. Of a WAV file that a killed run
    # left, nothing would tell whether it is still what was spoken: so a chunk
    # behind the sound holds the SHA-256 of what stands before it.
    chunk = _SUM + hashlib.sha256(content[8:]).digest()
    size = (len(content) + len(chunk) - 8).to_bytes(4, "little")
    return content[:4] + size + content[8:] + chunk


def check_whole(content: bytes, kind: str, rate: int) -> np.ndarray | None:
    """Decode a file of :func:`encode`: int16 [T], None if torn or another's."""
    if kind == "wav":
        whole, chunk = content[: -len(_SUM) - 32], content[-len(_SUM) - 32 :]
        if chunk != _SUM + hashlib.sha256(whole[8:]).digest():
            return None
    try:
        sound = read_audio(content, dtype="int16")
    except BadAudio:
        return None
    found = (sound.kind, sound.sample_rate, sound.channels)
    if sound.samples is None or found != (KINDS[kind][0], rate, 1):
        return None
    return sound.samples[:, 0]


@dataclass(frozen=True)
class Trim:
    """Where an utterance begins and ends."""

    # Frames of 10 ms whose RMS is below this level, relative to the
    # utterance's peak, count as silence at either end.
    threshold_db: float
    margin: float  # seconds of it that are kept


def trim_silence(
    samples: np.ndarray, sample_rate: int, trim: Trim
) -> np.ndarray:
    """Cut the silence at both ends of int16 samples [T], not all zero.

    Example
    -------
    >>> samples = np.array([0] * 50 + [900] * 20 + [0] * 90, np.int16)
    >>> len(trim_silence(samples, 1000, Trim(-40.0, 0.015)))
    50
    """
    # Frames, not samples: Pico ends some sentences with half a second of
    # silence and a click whose peak is that of a soft consonant.
    size = round(_FRAME * sample_rate)
    signal = np.pad(samples.astype(np.float64), (0, -len(samples) % size))
    rms = np.sqrt(np.mean(signal.reshape(-1, size) ** 2, axis=1))
    threshold = np.abs(signal).max() * 10 ** (trim.threshold_db / 20)
    loud = np.flatnonzero(rms >= threshold)
    margin = round(trim.margin * sample_rate)
    start = max(0, loud[0] * size - margin)
    return samples[start : (loud[-1] + 1) * size + margin]


def set_loudness(
    samples: np.ndarray, sample_rate: int, target: float
) -> np.ndarray:
    """Amplify int16 samples [T] to a loudness, as far as their peak allows.

    Arguments
    ---------
    target : Integrated loudness in LUFS (ITU-R BS.1770, EBU R128).
    """
    # Here: torch would take each worker seconds to load, mostly for nothing.
    import torch
    from torchaudio.functional import loudness

    signal = samples / 2**15
    # What is shorter than a block is measured as if it were said again.
    times = -(-round(_GATE * sample_rate) // len(signal))
    whole = torch.from_numpy(np.tile(signal, times))[None]
    found = float(loudness(whole, sample_rate))
    # -inf: all of it is below the gate.
    if not np.isfinite(found):
        return samples
    gain = min(10 ** ((target - found) / 20), _PEAK / np.abs(signal).max())
    return np.round(signal * gain * 2**15).astype(np.int16)
