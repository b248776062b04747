"""espeak-ng through PyPI's ``espeakng-loader``: any language, plainly spoken.

An optional extra (``pip install -e '.[espeak]'``), because espeak-ng
is under the GPL, version 3 or later. The library is loaded by a process of
its own, ``espeak_server.py``, which also says what makes its speech
repeatable.
"""

import base64
import functools
import importlib.metadata
import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_slm.speech.processes import end, kill_group, start
from speechbrain_slm.speech.tts import BackEnd, Voice
from speechbrain_slm.speech.tts.espeak_server import SAMPLE_RATE

try:
    import espeakng_loader
except ImportError as error:
    raise ImportError(
        "The espeak back-end needs the package espeakng-loader: "
        "pip install -e '.[espeak]'"
    ) from error

_SERVER = Path(__file__).with_name("espeak_server.py")
# Words a minute at espeak-ng's middle speed; it goes from 80 to 450.
_WORDS_PER_MINUTE = 175
TIMEOUT = 60  # seconds for an utterance


@functools.cache
def _languages(folder: Path) -> set[str]:
    return {p.name.lower() for p in folder.rglob("*") if p.is_file()}


class Espeak(BackEnd):
    """espeak-ng's voices, e.g. ``en-us``, ``fr``, ``sw``, ``fr+f3``.

    Example
    -------
    >>> tts = Espeak()
    >>> samples = tts.synthesize("Anna sourit.", Voice("fr"))
    >>> samples.dtype, len(samples) > tts.sample_rate // 2
    (dtype('int16'), True)
    """

    sample_rate = SAMPLE_RATE
    # Its scale goes from 0 to 100, an octave on either side of 50.
    pitch = (0.5, 2.0)
    speed = (80 / _WORDS_PER_MINUTE, 450 / _WORDS_PER_MINUTE)

    def __init__(self) -> None:
        version = importlib.metadata.version("espeakng-loader")
        self.identity = {"name": "espeak", "espeakng-loader": version}

    @functools.cached_property
    def _engine(self) -> subprocess.Popen:
        library = espeakng_loader.get_library_path()
        words = [sys.executable, "-I", str(_SERVER), str(library)]
        words.append(str(espeakng_loader.get_data_path()))
        return start(words, stdin=subprocess.PIPE)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End the server process; it starts again when it is needed."""
        server = vars(self).pop("_engine", None)
        if server is not None:
            end(server)

    def _check_name(self, voice: Voice) -> None:
        name, _, variant = voice.name.partition("+")
        folder, fault = Path(espeakng_loader.get_data_path()), ""
        variants, languages = folder / "voices" / "!v", folder / "lang"
        # espeak-ng itself would speak without the variant.
        if variant and not (variants / variant).is_file():
            fault = f"variant '{variant}'; expected a file name of {variants}"
        elif name.lower() not in _languages(languages):
            fault = f"'{name}'; expected a file name below {languages}, e.g. fr"
        if fault:
            raise ValueError(f"voice '{voice.name}': espeak-ng has no {fault}")

    def _speak(self, text: str, voice: Voice) -> np.ndarray:
        rate = round(_WORDS_PER_MINUTE * voice.speed)
        pitch = round(50 + 50 * math.log2(voice.pitch))
        answer = self._ask(json.dumps([text, voice.name, rate, pitch]))
        if "error" in answer:
            raise ValueError(f"{answer['error']} at the text {text!r}")
        return np.frombuffer(base64.b64decode(answer["samples"]), np.int16)

    def _ask(self, request: str) -> dict:
        server, late = self._engine, threading.Event()
        requests: Any = server.stdin
        answers: Any = server.stdout

        def stop() -> None:
            late.set()
            # The server and the fork that speaks; what is read ends then.
            kill_group(server.pid)

        timer = threading.Timer(TIMEOUT, stop)
        timer.start()
        try:
            requests.write(request.encode() + b"\n")
            requests.flush()
            # Of a server that ended, nothing or half a line.
            return json.loads(answers.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            self.close()
            shown = f"the request {request:.500}"
            if late.is_set():
                shown = f"espeak-ng took more than {TIMEOUT} s for {shown}"
                raise ValueError(shown) from None
            raise RuntimeError(f"espeak-ng ended at {shown}") from None
        finally:
            timer.cancel()
