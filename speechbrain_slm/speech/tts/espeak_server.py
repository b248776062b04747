"""A small process that speaks with espeak-ng; started by ``espeak.py``.

espeak-ng carries state from one utterance to the next (flutter, random
numbers, the wave generator) that neither a new seed nor a restart of the
library resets. Each utterance is therefore spoken by a fork of a process in
which the library is loaded and has never spoken, with a fixed seed. This
process imports nothing beyond the standard library and runs no threads, so
that forking it is safe and quick.

It reads requests from stdin, one JSON object a line, and answers each on
stdout: whether it worked (1 byte), a length (8 bytes, little-endian), and as
many bytes of 16-bit samples or of an error message.
"""

import ctypes
import json
import os
import struct
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


def _speak(library: ctypes.CDLL, request: dict) -> bytes:
    blocks = []

    @_CALLBACK
    def keep(samples, count, _events):
        if samples and count:
            blocks.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    library.espeak_SetSynthCallback(keep)
    if library.espeak_SetVoiceByName(request["voice"].encode()):
        raise ValueError(f"espeak-ng has no voice '{request['voice']}'")
    library.espeak_SetParameter(_RATE, request["rate"], 0)
    library.espeak_SetParameter(_PITCH, request["pitch"], 0)
    text = request["text"].encode() + b"\0"
    status = library.espeak_Synth(text, len(text), 0, 0, 0, _UTF8, None, None)
    if status:
        raise ValueError(f"espeak-ng failed with status {status}")
    return b"".join(blocks)


def _answer_in_fork(library: ctypes.CDLL, request: dict) -> None:
    child = os.fork()
    if child == 0:
        try:
            spoken, answer = True, _speak(library, request)
        except Exception as error:
            spoken, answer = False, str(error).encode()
        sys.stdout.buffer.write(struct.pack("<?q", spoken, len(answer)))
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"espeak-ng crashed at the text {request['text']!r}")


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
