import importlib
import os
import pickle
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.nanotts import NanoTTS

NANOTTS = "speechbrain_slm.speech.tts.nanotts.NanoTTS"
ESPEAK = "speechbrain_slm.speech.tts.espeak.Espeak"
UTTERANCES = {
    NANOTTS: [
        ("Lily found a red ball in the park.", Voice("en-US")),
        ("Lily a trouvé une balle rouge.", Voice("fr-FR", 0.8)),
        ("Tom was very sad.", Voice("en-GB", 1.3, 1.1)),
        ("Il pleut.", Voice("fr-FR")),
    ],
    ESPEAK: [
        ("Lily found a red ball in the park.", Voice("en-us")),
        ("Lily a trouvé une balle rouge.", Voice("fr+f3", 0.8)),
        ("Tom was very sad.", Voice("en+m3", 1.3, 1.1)),
        ("Il pleut.", Voice("fr")),
    ],
}


def make(name):
    module, _, kind = name.rpartition(".")
    if name == ESPEAK:
        pytest.importorskip("espeakng_loader")
    return getattr(importlib.import_module(module), kind)()


@pytest.fixture(params=[NANOTTS, ESPEAK])
def name(request):
    return request.param


SPEAK_ONE = """
import importlib, pickle, sys
module, _, kind = sys.argv[1].rpartition(".")
tts = getattr(importlib.import_module(module), kind)()
text, voice = pickle.loads(bytes.fromhex(sys.argv[2]))
sys.stdout.buffer.write(tts.synthesize(text, voice).tobytes())
"""


def in_new_process(name, utterance):
    command = [sys.executable, "-c", SPEAK_ONE, name]
    pcm = subprocess.check_output([*command, pickle.dumps(utterance).hex()])
    return np.frombuffer(pcm, np.int16)


def test_what_was_said_before_does_not_matter(name):
    tts, utterances = make(name), UTTERANCES[name]
    first = [in_new_process(name, utterance) for utterance in utterances]
    generator = random.Random(0)
    for _ in range(8):
        # Blocks of all sizes, left dirty for whoever allocates next.
        for size in (100, 10_000, 1_000_000, 2_600_000):
            generator.randbytes(size)
        for index in generator.sample(range(4), 4):
            samples = tts.synthesize(*utterances[index])
            np.testing.assert_array_equal(samples, first[index])


def test_pitch_and_speed_do_what_they_say(name):
    tts = make(name)
    text, voice = UTTERANCES[name][0]
    plain = tts.synthesize(text, voice)
    fast = tts.synthesize(text, Voice(voice.name, 1.0, 1.5))
    assert len(fast) < 0.85 * len(plain)
    frequencies = [
        fundamental(tts.synthesize(text, Voice(voice.name, pitch)), tts)
        for pitch in (0.7, 1.0, 1.4)
    ]
    assert frequencies[0] < 0.85 * frequencies[1] < 0.75 * frequencies[2]


def fundamental(samples, tts):
    """Median over loud frames of the strongest period of 60 to 400 Hz."""
    size = tts.sample_rate // 20
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    frames = frames.astype(float)
    energy = (frames**2).mean(axis=1)
    periods = slice(tts.sample_rate // 400, tts.sample_rate // 60)
    found = []
    for frame in frames[energy > np.median(energy)]:
        correlation = np.correlate(frame, frame, "full")[size - 1 :]
        period = periods.start + correlation[periods].argmax()
        found.append(tts.sample_rate / period)
    return np.median(found)


def test_a_text_that_cannot_be_said_is_named(name):
    tts, voice = make(name), UTTERANCES[name][0][1]
    for text in ("", "...", "a\0b"):
        with pytest.raises(ValueError, match="text") as caught:
            tts.synthesize(text, voice)
        assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        (Voice("xx-XX"), "xx-XX"),
        (Voice("en-US", pitch=2.5), "pitch is 2.5; expected 0.5 to 2.0"),
        (Voice("en-US", speed=0.0), "speed is 0.0; expected"),
        (Voice("en-US", pitch=float("nan")), "pitch is nan"),
    ],
)
def test_voices_that_are_not_there(name, voice, message):
    tts = make(name)
    for refuse in (tts.check_voice, lambda v: tts.synthesize("A boat.", v)):
        with pytest.raises(ValueError, match=message):
            refuse(voice)


def test_a_back_end_that_has_spoken_can_be_sent_to_a_worker(name):
    tts, utterance = make(name), UTTERANCES[name][0]
    expected = tts.synthesize(*utterance)
    other = pickle.loads(pickle.dumps(tts))
    assert other.identity == tts.identity
    np.testing.assert_array_equal(other.synthesize(*utterance), expected)


def test_markup_is_not_text_for_pico():
    with pytest.raises(ValueError, match="'<'"):
        NanoTTS().synthesize("A <pitch level='200'>b</pitch>.", Voice("en-US"))


def test_unknown_espeak_variant():
    # espeak-ng itself would speak without it.
    with pytest.raises(ValueError, match="no variant 'f9'"):
        make(ESPEAK).check_voice(Voice("fr+f9"))


def test_espeak_names_its_extra_when_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    module = ESPEAK.rpartition(".")[0]
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ImportError, match=r"pip install .*\[espeak\]"):
        importlib.import_module(module)


def test_an_espeak_that_hangs_is_ended(monkeypatch):
    pytest.importorskip("espeakng_loader")
    espeak = importlib.import_module(ESPEAK.rpartition(".")[0])
    tts = espeak.Espeak()
    voice = Voice("en-us")
    before = tts.synthesize("Anna.", voice)
    os.kill(tts._server.pid, signal.SIGSTOP)
    monkeypatch.setattr(espeak, "TIMEOUT", 0.2)
    with pytest.raises(ValueError, match=r"took more than 0\.2 s"):
        tts.synthesize("Anna.", voice)
    monkeypatch.undo()
    np.testing.assert_array_equal(tts.synthesize("Anna.", voice), before)
