"""The formats of spoken sentences, and their loudness."""

import hashlib
import io

import numpy as np
import soundfile

from speechbrain_slm.utils.audio import BadAudio, read_audio

# Kind -> format and subtype of libsndfile.
KINDS = {
    "flac": ("FLAC", "PCM_16"),
    "wav": ("WAV", "PCM_16"),
    "opus": ("OGG", "OPUS"),
}
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
# Head of the chunk of a WAV file with its sum: a name and a length.
_SUM = b"sum " + (32).to_bytes(4, "little")
_GATE = 0.4  # seconds: the block of EBU R128, less cannot be measured
_PEAK = 0.9  # of full scale, where a gain stops


def check_kind(kind: str, sample_rate: int) -> None:
    """Refuse a format that cannot hold the speech.

    Arguments
    ---------
    kind : ``flac``, ``wav`` or ``opus``.
    sample_rate : Hz.

    Raises
    ------
    ValueError
        Names what is possible.

    Example
    -------
    >>> check_kind("opus", 22050)
    Traceback (most recent call last):
    ...
    ValueError: audio_format is opus, which has no 22050 Hz (only 8000, 12000,
    16000, 24000, 48000); choose flac, or another voice
    """
    if kind not in KINDS:
        raise ValueError(
            f"audio_format is '{kind}'; expected {', '.join(KINDS)}"
        )
    name, subtype = KINDS[kind]
    if not soundfile.check_format(name, subtype):
        raise ValueError(
            f"audio_format is {kind}, which this libsndfile "
            f"({soundfile.__libsndfile_version__}) cannot write; choose flac"
        )
    if kind == "opus" and sample_rate not in _OPUS_RATES:
        raise ValueError(
            f"audio_format is opus, which has no {sample_rate} Hz (only "
            f"{', '.join(map(str, _OPUS_RATES))}); choose flac, or another "
            "voice"
        )


def encode(samples: np.ndarray, sample_rate: int, kind: str) -> bytes:
    """Make the content of an audio file.

    Arguments
    ---------
    samples : int16 [T].
    sample_rate : Hz.
    kind
        ``flac``, ``wav`` or ``opus``. Ogg puts a random number into an Opus
        file: its bytes differ from one call to the next, its samples do not.

    """
    content = io.BytesIO()
    name, subtype = KINDS[kind]
    soundfile.write(content, samples, sample_rate, format=name, subtype=subtype)
    content = content.getvalue()
    return _with_sum(content) if kind == "wav" else content


def _with_sum(content):
    """Put a chunk behind a WAV file's sound that holds the SHA-256 of it.

    FLAC and Ogg hold sums of their own. Of a WAV file that a killed run left,
    nothing else would tell whether it is still what was spoken.
    """
    chunk = _SUM + hashlib.sha256(content[8:]).digest()
    size = (len(content) + len(chunk) - 8).to_bytes(4, "little")
    return content[:4] + size + content[8:] + chunk


def check_whole(
    content: bytes, kind: str, sample_rate: int
) -> np.ndarray | None:
    """Decode an audio file and refuse a part of one.

    Arguments
    ---------
    sample_rate : In Hz; likewise.

    Returns
    -------
    int16 [T]; None where the file is torn or another's.

    Example
    -------
    >>> content = encode(np.ones(16000, np.int16), 16000, "wav")
    >>> len(check_whole(content, "wav", 16000))
    16000
    >>> check_whole(content[:-2], "wav", 16000) is None
    True
    """
    if kind == "wav":
        whole, chunk = content[: -len(_SUM) - 32], content[-len(_SUM) - 32 :]
        if chunk != _SUM + hashlib.sha256(whole[8:]).digest():
            return None
    try:
        sound = read_audio(content, dtype="int16")
    except BadAudio:
        return None
    expected = (KINDS[kind][0], sample_rate, 1)
    found = (sound.kind, sound.sample_rate, sound.channels)
    return sound.samples[:, 0] if found == expected else None


def set_loudness(
    samples: np.ndarray, sample_rate: int, target: float
) -> np.ndarray:
    """Amplify speech to a loudness, as far as its peak allows.

    Arguments
    ---------
    samples : int16 [T].
    sample_rate : Hz.
    target : Integrated loudness in LUFS (ITU-R BS.1770, EBU R128).

    Returns
    -------
    int16 [T].

    Example
    -------
    >>> tone = np.sin(np.arange(16000) * 0.4) * 3000
    >>> loud = set_loudness(tone.astype(np.int16), 16000, -23.0)
    >>> again = set_loudness(loud, 16000, -23.0)
    >>> bool(np.abs(loud - again).max() < 20)
    True
    """
    # Here: torch would take every worker seconds to load for nothing.
    import torch
    from torchaudio.functional import loudness

    signal = samples / 2**15
    # What is shorter than a block is measured as if it were said again.
    times = -(-round(_GATE * sample_rate) // len(signal))
    whole = torch.from_numpy(np.tile(signal, times))[None]
    found = float(loudness(whole, sample_rate))
    if not np.isfinite(found):
        return samples
    gain = 10 ** ((target - found) / 20)
    gain = min(gain, _PEAK / np.abs(signal).max())
    return np.round(signal * gain * 2**15).astype(np.int16)
