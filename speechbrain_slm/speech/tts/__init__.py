"""Speech synthesis: the protocol, and one module a back-end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

# An engine that finds nothing to say still gives a little noise: 0.3 % of
# full scale with Pico, while speech peaks above 20 %.
SILENCE_PEAK = 0.01


class SilentSpeech(ValueError):
    """A back-end gave silence, or nothing, for a text."""


@dataclass(frozen=True)
class Voice:
    """A way to speak one language; pitch and speed multiply the voice's own."""

    name: str  # the back-end's, e.g. fr-FR
    pitch: float = 1.0
    speed: float = 1.0


class Catalogue(dict):
    """Speakers, each with a voice a language; YAML files have the arguments.

    Example
    -------
    >>> Catalogue(ann={"en": {"name": "en-US", "pitch": 1.2}})
    {'ann': {'en': Voice(name='en-US', pitch=1.2, speed=1.0)}}
    """

    def __init__(self, **speakers: dict) -> None:
        for name, voices in speakers.items():
            self[name] = {key: Voice(**own) for key, own in voices.items()}


class TextToSpeech(Protocol):
    """What synthesis asks of a back-end.

    :class:`BackEnd` keeps what can be kept for all. To one of your own belong
    a YAML file in ``hparams/tts``, a row in the table of voices of
    ``recipes/TinyStories/synthesis/README.md`` and an entry in
    ``tests/unit/speech/test_tts.py``, which checks these rules:

    - The samples are a pure function of (text, voice): the same call gives the
      same, whatever the process said before, in any process. Engines are
      rarely so on their own: each module says what makes its engine pure.
    - ``pitch`` and ``speed`` do what they say. A value that the engine would
      clamp, or does not know, is refused by ``check_voice``, as is a name that
      it has not; ``synthesize`` refuses them too.
    - A text that cannot be said is a ValueError that holds ``repr(text)``:
      an empty one, ``...``, one with a NUL, and one of which the engine would
      pass over a part. Silence is :class:`SilentSpeech`. That sentence is left
      out, in all languages. Any other error ends the run.
    - An object is pickled to the worker processes, also after it has spoken:
      what cannot be pickled is made when it first speaks.
    """

    sample_rate: int  # Hz
    # Whatever changes the samples beside text and voice: JSON types. It is
    # part of every audio file's name.
    identity: dict

    def check_voice(self, voice: Voice) -> None:
        """Raise ValueError for a voice that the back-end cannot speak with."""

    def synthesize(self, text: str, voice: Voice) -> np.ndarray:
        """Return int16 samples [T]."""
        ...


class BackEnd:
    """The protocol's rules that are the same for every engine.

    A back-end sets ``sample_rate`` and ``identity``, has ``_check_name(voice)``
    and ``_speak(text, voice)``, which gives int16 [T], and holds what cannot be
    pickled in ``_engine``, a ``functools.cached_property``.
    """

    sample_rate: int
    identity: dict
    # The ranges that an engine takes without clamping.
    pitch: tuple[float, float] = (1.0, 1.0)
    speed: tuple[float, float] = (1.0, 1.0)

    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k != "_engine"}

    def check_voice(self, voice: Voice) -> None:
        """Refuse a voice that the engine has not, or would clamp."""
        for name in ("pitch", "speed"):
            (low, high), value = getattr(self, name), getattr(voice, name)
            # So written, NaN is refused as well.
            if not low <= value <= high:
                what = f"voice '{voice.name}': {name} is {value}"
                raise ValueError(f"{what}; expected {low} to {high}")
        self._check_name(voice)

    def synthesize(self, text: str, voice: Voice) -> np.ndarray:
        """Speak a text: int16 [T]."""
        self.check_voice(voice)
        # Engines in C end there, and would say the half of it.
        if "\0" in text:
            raise ValueError(f"the text {text!r} holds a NUL; remove it")
        return check_speech(self._speak(text, voice), text, voice)

    def _check_name(self, voice: Voice) -> None:
        raise NotImplementedError

    def _speak(self, text: str, voice: Voice) -> np.ndarray:
        raise NotImplementedError


def check_speech(samples: np.ndarray, text: str, voice: Voice) -> np.ndarray:
    """Return int16 samples [T]; SilentSpeech if they are none or silence."""
    # int16 has no positive counterpart of -32768.
    peak = np.abs(samples.astype(np.int32)).max(initial=0) / 2**15
    if peak < SILENCE_PEAK:
        raise SilentSpeech(
            f"{voice} gives silence for the text {text!r} (peak {peak:.4f} of "
            "full scale); expected words of the voice's language. Correct the "
            "text, or choose a voice of its language."
        )
    return samples
