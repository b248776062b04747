"""A small process that speaks with espeak-ng; started by ``espeak.py``.

espeak-ng carries state from one utterance to the next (flutter, random
numbers, the wave generator) that neither a new seed nor a restart of the
library resets. Each utterance is therefore spoken by a fork of a process in
which the library is loaded and has never spoken, with a fixed seed. This
process imports nothing beyond the standard library and runs no threads, so
that forking it is safe and quick.

It reads requests from stdin, in JSON, one a line, and answers each on stdout:
``samples`` (16-bit, in base64) or an ``error``.
"""

import base64
import ctypes
import json
import os
import sys

SAMPLE_RATE = 22050
# Constants of speak_lib.h.
_SYNCHRONOUS = 2
_DO_NOT_EXIT = 1 << 15
_RATE, _PITCH = 1, 3
_UTF8 = 1

_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def _speak(
    library: ctypes.CDLL, text: str, voice: str, rate: int, pitch: int
) -> bytes:
    blocks = []

    @_CALLBACK
    def keep(samples, count, _events):
        if samples and count:
            blocks.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    library.espeak_SetSynthCallback(keep)
    if library.espeak_SetVoiceByName(voice.encode()):
        raise ValueError(f"espeak-ng has no voice '{voice}'")
    library.espeak_SetParameter(_RATE, rate, 0)
    library.espeak_SetParameter(_PITCH, pitch, 0)
    said = text.encode() + b"\0"
    status = library.espeak_Synth(said, len(said), 0, 0, 0, _UTF8, None, None)
    if status:
        raise ValueError(f"espeak-ng failed with status {status}")
    return b"".join(blocks)


def _answer_in_fork(library: ctypes.CDLL, request: list) -> None:
    child = os.fork()
    if child == 0:
        try:
            samples = base64.b64encode(_speak(library, *request))
            answer = {"samples": samples.decode()}
        except Exception as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"espeak-ng crashed at the text {request[0]!r}")


def main(library_path: str, data_path: str) -> None:
    """Load the library and serve until stdin ends."""
    library = ctypes.CDLL(library_path)
    rate = library.espeak_Initialize(
        _SYNCHRONOUS, 0, data_path.encode(), _DO_NOT_EXIT
    )
    if rate != SAMPLE_RATE:
        sys.exit(f"espeak-ng started from {data_path} with status {rate}")
    for line in sys.stdin.buffer:
        _answer_in_fork(library, json.loads(line))


if __name__ == "__main__":
    main(*sys.argv[1:])
