"""Utterances: one text in one voice, spoken into one audio file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from speechbrain_slm.speech.audio_files import (
    check_whole,
    encode,
    set_loudness,
)
from speechbrain_slm.speech.tts import SilentSpeech, Voice, check_speech
from speechbrain_slm.utils.atomic import write_atomic

# Part of every audio file's name: raise it when the code below gives other
# samples or another format, or files of an earlier version would be reused.
AUDIO_VERSION = 1
_FRAME = 0.01  # seconds


@dataclass(frozen=True)
class Trim:
    """Where an utterance begins and ends.

    Arguments
    ---------
    threshold_db : float
        Frames of 10 ms whose RMS is below this level, relative to the
        utterance's peak, count as silence at either end.
    margin : float
        Seconds of it that are kept.
    """

    threshold_db: float
    margin: float

    def __post_init__(self) -> None:
        if self.threshold_db >= 0 or self.margin < 0:
            raise ValueError(
                f"{self}: expected threshold_db below 0 and margin of 0 or more"
            )


@dataclass(frozen=True)
class Limits:
    """What passes for the speech of a text.

    Arguments
    ---------
    shortest : float
        Seconds a character that it lasts at least.
    longest : float
        Seconds a character that it lasts at most, beyond ``spare``.
    spare : float
        Seconds that a text of any length may take.
    clipped : float
        Share of the samples that may stand at full scale.

    Example
    -------
    >>> limits = Limits(shortest=0.02, longest=0.3, spare=1.0, clipped=0.001)
    >>> samples = np.zeros(16000 * 9, np.int16)
    >>> limits.failure(samples, 16000, "Anna sourit.")
    ('too long', '9.00 s for 12 characters; expected at most 4.60 s')
    """

    shortest: float
    longest: float
    spare: float
    clipped: float

    def __post_init__(self) -> None:
        if not 0 <= self.shortest < self.longest or self.spare < 0:
            raise ValueError(
                f"{self}: expected 0 <= shortest < longest and spare of 0 or "
                "more"
            )
        if not 0 <= self.clipped <= 1:
            raise ValueError(f"{self}: expected clipped to be 0 to 1")

    def failure(
        self, samples: np.ndarray, sample_rate: int, text: str
    ) -> tuple[str, ...] | None:
        """Say what is wrong with an utterance.

        Arguments
        ---------
        samples : int16 [T], trimmed.
        sample_rate : Hz.

        Returns
        -------
        A reason and its detail.
        """
        seconds = len(samples) / sample_rate
        least = self.shortest * len(text)
        most = self.longest * len(text) + self.spare
        found = f"{seconds:.2f} s for {len(text)} characters; expected"
        if seconds < least:
            return "too short", f"{found} at least {least:.2f} s"
        if seconds > most:
            return "too long", f"{found} at most {most:.2f} s"
        # -32768 has no positive counterpart, so that abs() would overflow.
        full = np.mean((samples == 32767) | (samples <= -32767))
        if full > self.clipped:
            return "clipped", (
                f"{full:.2%} of the samples stand at full scale; expected at "
                f"most {self.clipped:.2%}"
            )
        return None


@dataclass(frozen=True)
class Shape:
    """What becomes of the samples that a back-end gives.

    Arguments
    ---------
    trim : Trim
        How silence is cut at both ends.
    limits : Limits
        What is left out.
    kind : str
        ``flac``, ``wav`` or ``opus``.
    loudness : float, optional
        Loudness to set, in LUFS (EBU R128); by default what the voice gives.
    """

    trim: Trim
    limits: Limits
    kind: str
    loudness: float | None = None


class Fact(NamedTuple):
    """What is known of an utterance once it is spoken.

    Attributes
    ----------
    audio : str
        Its file.
    num_samples : int
        0 where it failed.
    size : int
        Bytes of the file.
    sha256 : str
        Of the file.
    state : str
        ``spoken``, ``found``, found ``damaged`` and spoken again, ``failed``.
    failure : tuple of str or None
        Reason and detail.
    """

    audio: str
    num_samples: int
    size: int
    sha256: str
    state: str
    failure: tuple | None = None


@dataclass(frozen=True)
class Utterance:
    """What is spoken, by whom, into which file of the output folder."""

    text: str
    voice: Voice
    audio: str


def trim_silence(
    samples: np.ndarray, sample_rate: int, trim: Trim
) -> np.ndarray:
    """Cut the silence at both ends down to a margin.

    Arguments
    ---------
    samples : int16 [T], not all zero.
    sample_rate : Hz.
    trim : What counts as silence, and how much of it stays.

    Returns
    -------
    A part of the samples.

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


def speak_chunk(context: tuple, utterances: list[Utterance]) -> list[Fact]:
    """Speak utterances into files; called in worker processes.

    Arguments
    ---------
    context : The TextToSpeech, the Shape and the output folder (Path).

    Returns
    -------
    One for each.

    Raises
    ------
    RuntimeError
        If something other than the text is in the way: names the text, the
        voice and the file.
    """
    facts = []
    for utterance in utterances:
        try:
            facts.append(_speak(utterance, *context))
        except Exception as error:
            raise RuntimeError(
                f"cannot speak {utterance.text!r} with {utterance.voice} into "
                f"{context[-1] / utterance.audio}: {error}"
            ) from error
    return facts


def _speak(utterance, tts, shape, output_folder):
    path = output_folder / utterance.audio
    state = "spoken"
    if path.is_file():
        # A file that a power cut tore, or that someone changed, shall not
        # pass for the real one.
        content = path.read_bytes()
        samples = check_whole(content, shape.kind, tts.sample_rate)
        state = "damaged" if samples is None else "found"
    if state != "found":
        try:
            samples = tts.synthesize(utterance.text, utterance.voice)
            check_speech(samples, utterance.text, utterance.voice)
        except ValueError as error:
            silent = isinstance(error, SilentSpeech)
            reason = "silence" if silent else "cannot be spoken"
            return _failed(utterance, (reason, str(error)))
        samples = trim_silence(samples, tts.sample_rate, shape.trim)
        if shape.loudness is not None:
            samples = set_loudness(samples, tts.sample_rate, shape.loudness)
        content = encode(samples, tts.sample_rate, shape.kind)
        if shape.kind == "opus":
            # Judged by what is heard, now as when it is found again.
            samples = check_whole(content, shape.kind, tts.sample_rate)
    failure = shape.limits.failure(samples, tts.sample_rate, utterance.text)
    if failure:
        return _failed(utterance, failure)
    if state != "found":
        write_atomic(path, content)
    digest = hashlib.sha256(content).hexdigest()
    return Fact(utterance.audio, len(samples), len(content), digest, state)


def _failed(utterance, failure):
    return Fact(utterance.audio, 0, 0, "", "failed", failure)
