"""Back-ends that hum: quick, and they fail where they are told to."""

import dataclasses
import hashlib

import numpy as np

from speechbrain_slm.speech.synthesis import synthesize
from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.utterances import Speech, Trim
from speechbrain_slm.utils.tables import (
    MANIFEST,
    MANIFEST_KEY,
    check_matched,
    read_table,
)

LANGUAGES = ["en", "fr"]
RATE = 8000
SPEAKERS = {"hum": {"en": Voice("low"), "fr": Voice("high")}}
FAILURES = ("silence", "empty", "refused", "clipped", "too long", "too short")
REASONS = {"empty": "silence", "refused": "cannot be spoken"}
# For CommandLine: a tone as long as its text; a text tells it how to fail.
PROGRAM = """
import array, sys, time, wave
voice, out, text = sys.argv[1:4] if len(sys.argv) > 3 else (
    *sys.argv[1:3], sys.stdin.read().strip())
print("spoke", voice)
if text == "fail":
    sys.exit("no such word")
if text == "sleep":
    time.sleep(60)
value = 1000 + time.time_ns() % 8000 if text == "random" else 9000
value = 0 if text in ("silence", "...") else value
samples = array.array("h", [value, -value] * 100 * len(text))
with wave.open(out, "wb") as file:
    file.setparams((1, 2, 8000, 0, "NONE", ""))
    file.writeframes(b"" if text == "nothing" else samples.tobytes())
"""


def hum(text, voice):
    """Return a sound that tells text and voice, 0.06 s a character."""
    key = hashlib.sha256(f"{voice.name} {text}".encode()).digest()
    phase = np.arange(round(0.06 * RATE) * len(text)) * (0.2 + key[0] / 300)
    return np.round(9000 * np.sin(phase + key[1])).astype(np.int16)


class Humming:
    """Hums a text, unless told how to fail: {text: one of FAILURES}."""

    sample_rate = RATE

    def __init__(self, failures=None):
        self.failures = failures or {}
        self.identity = {"name": "humming"}

    def check_voice(self, voice):
        """Take any voice."""

    def synthesize(self, text, voice):
        """Hum, or fail."""
        failure = self.failures.get(text)
        sound = hum(text, voice)
        if failure == "refused":
            raise ValueError(f"cannot say {text!r}")
        if failure == "empty":
            return sound[:0]
        if failure == "silence":
            return sound * 0
        if failure == "clipped":
            return np.where(sound < 0, -32768, 32767).astype(np.int16)
        if failure == "too long":
            return np.tile(sound, 40)
        return sound[: RATE // 50] if failure == "too short" else sound


def speak(stories, folder, **options):
    """Speak a split ``train``; the options of ``Speech`` and the others."""
    names = {field.name for field in dataclasses.fields(Speech)}
    how = {"languages": LANGUAGES, "seed": 1, "trim": Trim(-45.0, 0.05)}
    how |= {name: options.pop(name) for name in names & options.keys()}
    options = {"num_workers": 1, **options}
    return synthesize({"train": stories}, folder, Speech(**how), **options)


def rows_of(folder):
    """Return the rows of a manifest that is as it should be."""
    path = folder / "train.parquet"
    table = read_table(path, MANIFEST, MANIFEST_KEY)
    check_matched(path, table, LANGUAGES)
    return table.to_pylist()


def texts_of(stories):
    """Return all that is said in stories: name -> (English, French) pairs."""
    return [text for pairs in stories.values() for one in pairs for text in one]
