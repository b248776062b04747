"""espeak-ng through PyPI's ``espeakng-loader``: any language, plainly spoken.

An optional extra (``pip install -e '.[espeak]'``), because espeak-ng
is under the GPL, version 3 or later. The library is loaded by a process of
its own, ``espeak_server.py``, which also says what makes its speech
repeatable.
"""

import contextlib
import functools
import importlib.metadata
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from speechbrain_slm.speech.tts import check_range, check_speech
from speechbrain_slm.speech.tts.espeak_server import SAMPLE_RATE

try:
    import espeakng_loader
except ImportError as error:
    raise ImportError(
        "The espeak back-end needs the package espeakng-loader: "
        "pip install -e '.[espeak]'"
    ) from error

_SERVER = Path(__file__).with_name("espeak_server.py")
_HEADER = struct.Struct("<?q")
# espeak-ng's scales: words a minute, and 0 to 100 with 50 in the middle and
# an octave on either side.
_WORDS_PER_MINUTE = 175
PITCH = (0.5, 2.0)
SPEED = (80 / _WORDS_PER_MINUTE, 450 / _WORDS_PER_MINUTE)


TIMEOUT = 60  # seconds for an utterance


def _end(group, late):
    late.set()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@functools.cache
def _languages(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.name.lower() for path in files}


class Espeak:
    """espeak-ng's voices, e.g. ``en-us``, ``fr``, ``sw``, ``fr+f3``.

    Example
    -------
    >>> from speechbrain_slm.speech.tts import Voice
    >>> tts = Espeak()
    >>> samples = tts.synthesize("Anna sourit.", Voice("fr"))
    >>> samples.dtype, len(samples) > tts.sample_rate // 2
    (dtype('int16'), True)
    """

    sample_rate = SAMPLE_RATE

    def __init__(self) -> None:
        self.identity = {
            "name": "espeak",
            "espeakng-loader": importlib.metadata.version("espeakng-loader"),
        }
        self._server = None

    def __getstate__(self):
        return {**self.__dict__, "_server": None}

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End the server process; it starts again when it is needed."""
        server, self._server = getattr(self, "_server", None), None
        if server is not None:
            with contextlib.suppress(BrokenPipeError):
                server.stdin.close()
            server.stdout.close()
            server.wait()

    def check_voice(self, voice) -> None:
        """Refuse a voice that espeak-ng does not have.

        Arguments
        ---------
        voice : Voice
            The voice.

        Raises
        ------
        ValueError
            Names what is wrong and what there is.
        """
        check_range(voice, PITCH, SPEED)
        name, _, variant = voice.name.partition("+")
        folder = Path(espeakng_loader.get_data_path())
        if variant and not (folder / "voices" / "!v" / variant).is_file():
            # espeak-ng itself would speak without the variant.
            raise ValueError(
                f"voice '{voice.name}': espeak-ng has no variant '{variant}'; "
                f"expected a file name of {folder / 'voices' / '!v'}"
            )
        if name.lower() not in _languages(folder / "lang"):
            raise ValueError(
                f"voice '{voice.name}': espeak-ng has no '{name}'; expected a "
                f"file name below {folder / 'lang'}, e.g. en-us, fr, de"
            )

    def synthesize(self, text: str, voice) -> np.ndarray:
        """Speak a text.

        Arguments
        ---------
        voice : Voice
            Who speaks.

        Returns
        -------
        int16 [T] at 22.05 kHz.

        Raises
        ------
        ValueError
            If the voice is not there, or the text cannot be said.
        RuntimeError
            If espeak-ng crashes.
        """
        self.check_voice(voice)
        if "\0" in text:
            raise ValueError(f"the text {text!r} holds a NUL; remove it")
        request = {
            "text": text,
            "voice": voice.name,
            "rate": round(_WORDS_PER_MINUTE * voice.speed),
            "pitch": round(50 + 50 * math.log2(voice.pitch)),
        }
        pcm = self._ask(json.dumps(request).encode() + b"\n")
        return check_speech(np.frombuffer(pcm, np.int16), text, voice)

    def _ask(self, request):
        if self._server is None:
            paths = (
                espeakng_loader.get_library_path(),
                espeakng_loader.get_data_path(),
            )
            self._server = subprocess.Popen(
                [sys.executable, "-I", _SERVER, *paths],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        # The server and the fork that speaks.
        group, late = self._server.pid, threading.Event()
        timer = threading.Timer(TIMEOUT, _end, (group, late))
        timer.start()
        try:
            return self._answer(request)
        except RuntimeError:
            if late.is_set():
                raise ValueError(
                    f"espeak-ng took more than {TIMEOUT} s for the request "
                    f"{request.decode().strip():.500}"
                ) from None
            raise
        finally:
            timer.cancel()

    def _answer(self, request):
        with contextlib.suppress(BrokenPipeError):
            self._server.stdin.write(request)
            self._server.stdin.flush()
        header = self._server.stdout.read(_HEADER.size)
        whole = len(header) == _HEADER.size
        if whole:
            spoken, length = _HEADER.unpack(header)
            answer = self._server.stdout.read(length)
            whole = len(answer) == length
        if not whole:
            self.close()
            raise RuntimeError(
                "espeak-ng ended at the request "
                f"{request.decode().strip():.500}"
            )
        if not spoken:
            raise ValueError(answer.decode())
        return answer
