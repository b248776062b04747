"""How loud audio is, and what is too soft or too loud to be speech."""

import numpy as np

# The peak of what is mixed down, in dB of full scale: below it is silence.
# A line without a voice has -96 to -85, quiet speech -40.
SILENCE_DB = -80.0
# Of full scale; what is decoded from MP3, or kept as floats, may pass 1.
LOUDEST = 4.0


class BadAudio(ValueError):
    """Why a file cannot be used; the caller knows its name."""


class Level:
    """How loud a file is, found while it is decoded.

    Arguments
    ---------
    dtype : Of its samples: integers are counted in steps of full scale.
    """

    def __init__(self, dtype: str) -> None:
        self._scale = {"int16": 2.0**15, "int32": 2.0**31}.get(dtype, 1.0)
        self._loudest = self._peak = 0.0

    def add(self, block):
        """Hear samples, [T, channels], and return them mixed down, [T]."""
        self._loudest = self._louder(self._loudest, block)
        if block.shape[1] == 1:
            self._peak = self._loudest
            return block[:, 0]
        # Channels that cancel each other are silence.
        mono = block.mean(axis=1)
        self._peak = self._louder(self._peak, mono)
        return mono

    def _louder(self, peak, samples):
        low, high = float(samples.min()), float(samples.max())
        # Not the built-in max, which may pass over what is not a number.
        return np.max([peak, -low / self._scale, high / self._scale])

    def check(self, channels, audible) -> None:
        """Refuse what is not a number and, if asked to, what is not heard."""
        if not np.isfinite(self._loudest):
            raise BadAudio("a sample is NaN or infinite")
        if not audible:
            return
        if self._loudest > LOUDEST:
            raise BadAudio(
                f"a sample is {self._loudest:.3g} times full scale; expected "
                f"at most {LOUDEST:g}"
            )
        mixed = " once its channels are mixed down" if channels > 1 else ""
        if not self._peak:
            raise BadAudio(f"every sample is 0{mixed}")
        if self._peak < 10 ** (SILENCE_DB / 20):
            raise BadAudio(
                f"silent: its peak is {20 * np.log10(self._peak):.0f} dB of "
                f"full scale{mixed}; expected {SILENCE_DB:g} or more"
            )
