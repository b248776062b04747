"""Speech synthesis: the protocol, and one module a back-end.

A back-end is a pure function of (text, voice): the same call gives the same
samples whatever the process said before. Speech engines are rarely so on
their own; each module says what makes its engine pure.
"""

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
    """A way to speak one language.

    Arguments
    ---------
    name : str
        The back-end's name of the voice, e.g. ``fr-FR``.
    pitch : float
        Multiplies the voice's own pitch.
    speed : float
        Multiplies the voice's own speaking rate.
    """

    name: str
    pitch: float = 1.0
    speed: float = 1.0


class TextToSpeech(Protocol):
    """What synthesis asks of a back-end.

    An object is pickled to the worker processes, so whatever cannot be
    pickled is made when it first speaks.
    """

    #: Hz
    sample_rate: int
    #: Whatever changes the samples beside text and voice: JSON types.
    identity: dict

    def check_voice(self, voice) -> None:
        """Raise ValueError for a voice that the back-end cannot speak with."""

    def synthesize(self, text, voice) -> None:
        """Return int16 samples [T], a pure function of the arguments.

        ValueError says that this text cannot be spoken: the sentence is left
        out. Any other error ends the run.
        """


def check_range(
    voice: Voice, pitch: tuple[float, ...], speed: tuple[float, ...]
) -> None:
    """Refuse a pitch or a speed that a back-end would clamp silently.

    Raises
    ------
    ValueError
        Names the value and its range.

    Example
    -------
    >>> check_range(Voice("en-US", pitch=3.0), (0.5, 2.0), (0.2, 5.0))
    Traceback (most recent call last):
    ...
    ValueError: voice 'en-US': pitch is 3.0; expected 0.5 to 2.0
    """
    for name, (low, high) in (("pitch", pitch), ("speed", speed)):
        value = getattr(voice, name)
        if not low <= value <= high:
            raise ValueError(
                f"voice '{voice.name}': {name} is {value}; expected {low} to "
                f"{high}"
            )


def check_speech(samples: np.ndarray, text: str, voice: Voice) -> np.ndarray:
    """Refuse what an engine gives for a text that it cannot say.

    Arguments
    ---------
    samples : int16 [T].

    Returns
    -------
    The samples.

    Raises
    ------
    SilentSpeech
        If there are none, or only silence. Names the text and the voice.
    """
    peak = np.abs(samples.astype(np.int32)).max(initial=0) / 2**15
    if peak < SILENCE_PEAK:
        raise SilentSpeech(
            f"{voice} gives silence for the text {text!r} (peak {peak:.4f} of "
            "full scale); expected words of the voice's language. Correct the "
            "text, or choose a voice of its language."
        )
    return samples
