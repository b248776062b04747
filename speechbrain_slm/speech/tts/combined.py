"""Several back-ends as one, e.g. another one for each language.

A sentence that fails in one language is left out in all, so all languages are
spoken in one run, and a back-end that lacks a language needs one beside it.
"""

from dataclasses import replace

import numpy as np
from scipy.signal import resample_poly

from speechbrain_slm.speech.tts import TextToSpeech, Voice


class Combined:
    """Voices of several back-ends.

    All have the lowest of their sample rates: so no language has a band of
    frequencies that another one lacks.

    Arguments
    ---------
    parts : Name -> back-end. A voice is ``<name>:<the back-end's own name>``.

    Example
    -------
    >>> from speechbrain_slm.speech.tts.nanotts import NanoTTS
    >>> tts = Combined({"pico": NanoTTS()})
    >>> len(tts.synthesize("Anna sourit.", Voice("pico:fr-FR"))) > 8000
    True
    """

    def __init__(self, parts: dict[str, TextToSpeech]) -> None:
        if not parts:
            raise ValueError("parts is empty; expected {name: back-end}")
        self.parts = parts
        self.sample_rate = min(part.sample_rate for part in parts.values())
        self.identity = {
            "name": "combined",
            "sample_rate": self.sample_rate,
            "parts": {name: part.identity for name, part in parts.items()},
        }

    def check_voice(self, voice: Voice) -> None:
        """Refuse a voice that no back-end has."""
        part, own = self._part(voice)
        part.check_voice(own)

    def synthesize(self, text: str, voice: Voice) -> np.ndarray:
        """Speak a text: int16 [T]."""
        part, own = self._part(voice)
        samples, rate = part.synthesize(text, own), self.sample_rate
        if part.sample_rate == rate:
            return samples
        # A polyphase filter, whose output is a pure function of its input; it
        # divides both by what they have in common itself.
        signal = resample_poly(samples.astype("f8"), rate, part.sample_rate)
        return np.round(signal.clip(-(2**15), 2**15 - 1)).astype(np.int16)

    def _part(self, voice: Voice) -> tuple[TextToSpeech, Voice]:
        name, _, own = voice.name.partition(":")
        if name in self.parts and own:
            return self.parts[name], replace(voice, name=own)
        known = f"with a back-end of {', '.join(self.parts)}"
        what = f"voice '{voice.name}': expected '<back-end>:<voice>'"
        raise ValueError(f"{what}, {known}")
