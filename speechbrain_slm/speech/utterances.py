"""How stories are spoken; and one text in one voice, into one audio file."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechbrain_slm.speech import audio_files as audio
from speechbrain_slm.speech import tts as engines
from speechbrain_slm.speech.audio_files import Trim
from speechbrain_slm.utils import speakers as voices
from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.numbers import check_choice, check_number

# Part of every audio file's name: raise it when the code below gives other
# samples or another format, or files of an earlier version would be reused.
AUDIO_VERSION = 1


@dataclass(frozen=True)
class Limits:
    """What passes for the speech of a text.

    Example
    -------
    >>> limits = Limits(shortest=0.02, longest=0.3, spare=1.0, clipped=0.001)
    >>> samples = np.zeros(16000 * 9, np.int16)
    >>> limits.failure(samples, 16000, "Anna sourit.")
    ('too long', '9.00 s for 12 characters; expected at most 4.60 s')
    """

    shortest: float  # seconds a character
    longest: float  # seconds a character, beyond spare
    spare: float  # seconds that a text of any length may take
    clipped: float  # share of the samples that may stand at full scale

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
        if length < least:
            bound = f"expected at least {least / sample_rate:.2f} s"
            return "too short", f"{found}; {bound}"
        if length > most:
            bound = f"expected at most {most / sample_rate:.2f} s"
            return "too long", f"{found}; {bound}"
        # -32768 has no positive counterpart, so that abs() would overflow.
        full = np.mean((samples == 32767) | (samples <= -32767))
        if full <= self.clipped:
            return None
        found = f"{full:.2%} of the samples stand at full scale"
        return "clipped", f"{found}; expected at most {self.clipped:.2%}"


LIMITS = Limits(shortest=0.02, longest=0.3, spare=1.0, clipped=0.001)


@dataclass
class Speech:
    """How stories are spoken: what their manifests depend on beside the text.

    ValueError for what the back-end or the format cannot do.
    """

    tts: engines.TextToSpeech
    speakers: Mapping[str, Mapping[str, engines.Voice]]  # by language
    languages: list[str]  # the text columns to speak
    seed: int  # for drawing speakers
    trim: Trim
    limits: Limits = LIMITS
    audio_format: str = "flac"  # or wav, opus
    loudness: float | None = None  # LUFS (EBU R128); None: as the voice gives
    speaker_per: str = "story"  # or sentence: for what a speaker is drawn
    stories_per_shard: int = 20000  # held at once; what a rank or a job takes

    def __post_init__(self) -> None:
        check_number("stories_per_shard", self.stories_per_shard, at_least=1)
        check_choice("speaker_per", self.speaker_per, voices.SPEAKER_PER)
        voices.check_voices(self.tts, self.speakers, self.languages)
        audio.check_kind(self.audio_format, self.tts.sample_rate)

    def settings(self) -> dict:
        """Say it all in JSON's types, but for how stories are cut into shards.

        Of the voices, those of the languages that are spoken.
        """
        return {
            "tts": self.tts.identity,
            "languages": list(self.languages),
            "speakers": {
                name: {one: asdict(own[one]) for one in self.languages}
                for name, own in self.speakers.items()
            },
            "seed": self.seed,
            "trim": asdict(self.trim),
            "limits": asdict(self.limits),
            "audio_format": self.audio_format,
            "loudness": self.loudness,
            "speaker_per": self.speaker_per,
            "version": AUDIO_VERSION,
        }

    @functools.cached_property
    def _audio(self) -> dict:
        # A loudness of None is as if there were no such setting, and the
        # limits are not here: what is found is judged anew.
        names = ["tts", "trim", "version"]
        names += ["loudness"] * (self.loudness is not None)
        settings = self.settings()
        return {name: settings[name] for name in names}

    def name(self, text: str, voice: engines.Voice) -> str:
        """Name the audio file of an utterance by all that makes its samples."""
        made_of = {**self._audio, "voice": asdict(voice), "text": text}
        key = identity_of(made_of)[:32]
        return f"audio/{key[:2]}/{key}.{self.audio_format}"


class Utterance(NamedTuple):
    """What is spoken, by whom, into which file of the output folder."""

    text: str
    voice: engines.Voice
    audio: str


class Fact(NamedTuple):
    """What is known of an utterance once it is spoken."""

    audio: str
    num_samples: int  # 0 where it failed
    size: int  # bytes of the file
    sha256: str  # of the file
    state: str  # spoken, found, damaged (found so, spoken again), failed
    failure: tuple[str, str] | None = None  # reason, detail


def speak_chunk(
    context: tuple[Speech, Path], utterances: list[Utterance]
) -> list[Fact]:
    """Speak utterances into files of a folder; called in worker processes.

    RuntimeError if something other than the text is in the way.
    """
    facts = []
    for one in utterances:
        try:
            facts.append(_speak(one, *context))
        except Exception as error:
            raise RuntimeError(
                f"cannot speak {one.text!r} with {one.voice} into "
                f"{context[-1] / one.audio}: {error}"
            ) from error
    return facts


def _speak(utterance: Utterance, speech: Speech, folder: Path) -> Fact:
    text, voice, name = utterance
    path, kind, rate = (
        folder / name,
        speech.audio_format,
        speech.tts.sample_rate,
    )
    samples, state = None, "spoken"
    if path.is_file():
        # A file that a power cut tore, or that someone changed, shall not
        # pass for the real one.
        content = path.read_bytes()
        samples = audio.check_whole(content, kind, rate)
        state = "damaged" if samples is None else "found"
    if samples is None:
        try:
            samples = speech.tts.synthesize(text, voice)
            engines.check_speech(samples, text, voice)
        except ValueError as error:
            silent = isinstance(error, engines.SilentSpeech)
            reason = "silence" if silent else "cannot be spoken"
            return Fact(name, 0, 0, "", "failed", (reason, str(error)))
        samples = audio.trim_silence(samples, rate, speech.trim)
        if speech.loudness is not None:
            samples = audio.set_loudness(samples, rate, speech.loudness)
        content = audio.encode(samples, rate, kind)
        if kind == "opus":
            # Judged by what is heard, now as when it is found again.
            samples = audio.check_whole(content, kind, rate)
            assert samples is not None
    if failure := speech.limits.failure(samples, rate, text):
        return Fact(name, 0, 0, "", "failed", failure)
    if state != "found":
        write_atomic(path, content)
    digest = hashlib.sha256(content).hexdigest()
    return Fact(name, len(samples), len(content), digest, state)
