"""SVOX Pico voices through PyPI's ``py-nanotts``: small, clear, offline.

Pico gets 2.5 MB of working memory from ``malloc`` and reads parts of it that
it never wrote. The first block of a process comes fresh from the kernel, all
zeros; later ones hold what was there before, and pauses and prosody change
with it: the same sentence came out 30,720 and 27,712 samples long. So during a
call the C library is told to fill new memory (``M_PERTURB``). The samples
then equal those of a fresh process, whatever was said or allocated before,
at the package's full speed.
"""

import ctypes
import importlib.metadata
import platform
import threading

import numpy as np
import py_nanotts

from speechbrain_slm.speech.tts import BackEnd, Voice

# malloc.h. Memory is filled with the complement of the value: with zeros.
_M_PERTURB = -6
_FILL_WITH_ZEROS = 255
# The setting is the process's: no other call may end while one is speaking.
_LOCK = threading.Lock()
# At the package's own volume (1.0) up to 1 % of the samples are clipped.
VOLUME = 0.5
VOICES = tuple(voice.value for voice in py_nanotts.Voice)


class NanoTTS(BackEnd):
    """Pico's voices: en-US, en-GB, fr-FR, de-DE, es-ES and it-IT.

    Example
    -------
    >>> tts = NanoTTS()
    >>> samples = tts.synthesize("Anna smiles.", Voice("en-US", pitch=1.2))
    >>> samples.dtype, len(samples) > tts.sample_rate // 2
    (dtype('int16'), True)
    """

    sample_rate = 16000
    pitch = (py_nanotts.MIN_PITCH, py_nanotts.MAX_PITCH)
    speed = (py_nanotts.MIN_SPEED, py_nanotts.MAX_SPEED)

    def __init__(self) -> None:
        if platform.libc_ver()[0] != "glibc":
            raise RuntimeError(
                "py-nanotts reads memory that it never wrote; only with the "
                "GNU C library (Linux) is that memory under control, and this "
                "Python runs with another. Use the espeak back-end here."
            )
        self.identity = {
            "name": "nanotts",
            "py-nanotts": importlib.metadata.version("py-nanotts"),
            "volume": VOLUME,
        }

    def _check_name(self, voice: Voice) -> None:
        if voice.name not in VOICES:
            known = f"expected one of {', '.join(VOICES)}"
            raise ValueError(f"nanotts has no voice '{voice.name}'; {known}")

    def _speak(self, text: str, voice: Voice) -> np.ndarray:
        if "<" in text:
            markup = "'<', with which Pico's own markup begins; remove it"
            raise ValueError(f"the text {text!r} holds {markup}")
        mallopt = ctypes.CDLL(None).mallopt
        with _LOCK:
            mallopt(_M_PERTURB, _FILL_WITH_ZEROS)
            try:
                manner = voice.speed, voice.pitch, VOLUME
                pcm = py_nanotts.NanoTTS().speak(text, voice.name, *manner)
            finally:
                mallopt(_M_PERTURB, 0)
        return np.frombuffer(pcm, np.int16)
