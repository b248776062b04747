"""Utterances: one text in one voice, spoken into one audio file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechbrain_slm.speech import audio_files as audio
from speechbrain_slm.speech import tts as speech
from speechbrain_slm.speech.audio_files import Trim
from speechbrain_slm.utils.atomic import write_atomic

# Part of every audio file's name: raise it when the code below gives other
# samples or another format, or files of an earlier version would be reused.
AUDIO_VERSION = 1


@dataclass(frozen=True)
class Limits:
    """What passes for the speech of a text.

    Arguments
    ---------
    shortest : Seconds a character that it lasts at least.
    longest : Seconds a character that it lasts at most, beyond ``spare``.
    spare : Seconds that a text of any length may take.
    clipped : Share of the samples that may stand at full scale.

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
        if not self.shortest < self.longest:
            raise ValueError(f"{self}: expected shortest < longest")

    def failure(
        self, samples: np.ndarray, sample_rate: int, text: str
    ) -> tuple[str, str] | None:
        """Say what is wrong with trimmed int16 samples [T]: reason, detail."""
        # Whole samples are compared: 0.02 * 35 is more than 0.7, by which
        # 0.70 s of 35 characters were once "expected at least 0.70 s".
        length = len(samples)
        least = round(self.shortest * len(text) * sample_rate)
        most = round((self.longest * len(text) + self.spare) * sample_rate)
        found = f"{length / sample_rate:.2f} s for {len(text)} characters"
        for wrong, reason, bound in (
            (length < least, "too short", f"least {least / sample_rate:.2f} s"),
            (length > most, "too long", f"most {most / sample_rate:.2f} s"),
        ):
            if wrong:
                return reason, f"{found}; expected at {bound}"
        # -32768 has no positive counterpart, so that abs() would overflow.
        full = np.mean((samples == 32767) | (samples <= -32767))
        if full <= self.clipped:
            return None
        found = f"{full:.2%} of the samples stand at full scale"
        return "clipped", f"{found}; expected at most {self.clipped:.2%}"


@dataclass(frozen=True)
class Shape:
    """What becomes of the samples that a back-end gives.

    Arguments
    ---------
    kind : ``flac``, ``wav`` or ``opus``.
    loudness : LUFS (EBU R128); None leaves what the voice gives.
    """

    trim: Trim
    limits: Limits
    kind: str
    loudness: float | None = None


class Fact(NamedTuple):
    """What is known of an utterance once it is spoken."""

    audio: str
    num_samples: int  # 0 where it failed
    size: int  # bytes of the file
    sha256: str  # of the file
    state: str  # spoken, found, damaged (found so, spoken again), failed
    failure: tuple[str, str] | None = None  # reason, detail


@dataclass(frozen=True)
class Utterance:
    """What is spoken, by whom, into which file of the output folder."""

    text: str
    voice: speech.Voice
    audio: str


def speak_chunk(
    context: tuple[speech.TextToSpeech, Shape, Path],
    utterances: list[Utterance],
) -> list[Fact]:
    """Speak utterances into files of a folder; called in worker processes.

    RuntimeError if something other than the text is in the way.
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


def _speak(
    utterance: Utterance, tts: speech.TextToSpeech, shape: Shape, folder: Path
) -> Fact:
    text, voice, name = utterance.text, utterance.voice, utterance.audio
    path, rate = folder / name, tts.sample_rate
    samples, state = None, "spoken"
    if path.is_file():
        # A file that a power cut tore, or that someone changed, shall not
        # pass for the real one.
        content = path.read_bytes()
        samples = audio.check_whole(content, shape.kind, rate)
        state = "damaged" if samples is None else "found"
    if samples is None:
        try:
            samples = tts.synthesize(text, voice)
            speech.check_speech(samples, text, voice)
        except ValueError as error:
            silent = isinstance(error, speech.SilentSpeech)
            reason = "silence" if silent else "cannot be spoken"
            return Fact(name, 0, 0, "", "failed", (reason, str(error)))
        samples = audio.trim_silence(samples, rate, shape.trim)
        if shape.loudness is not None:
            samples = audio.set_loudness(samples, rate, shape.loudness)
        content = audio.encode(samples, rate, shape.kind)
        if shape.kind == "opus":
            # Judged by what is heard, now as when it is found again.
            samples = audio.check_whole(content, shape.kind, rate)
            assert samples is not None
    # Limits are not in a file's name: what is found is judged anew.
    if failure := shape.limits.failure(samples, rate, text):
        return Fact(name, 0, 0, "", "failed", failure)
    if state != "found":
        write_atomic(path, content)
    digest = hashlib.sha256(content).hexdigest()
    return Fact(name, len(samples), len(content), digest, state)
