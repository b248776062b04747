"""The rules of ``TextToSpeech``, for every back-end; then what Pico and
espeak-ng have for themselves.
"""

import importlib
import os
import pickle
import random
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from speech_example import PROGRAM

from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.command_line import CommandLine
from speechbrain_slm.speech.tts.nanotts import NanoTTS

ESPEAK = "speechbrain_slm.speech.tts.espeak"


def nanotts(folder):
    return NanoTTS(), ["en-US", "fr-FR", "en-GB"]


def espeak(folder):
    pytest.importorskip("espeakng_loader")
    return importlib.import_module(ESPEAK).Espeak(), ["en-us", "fr+f3", "en+m3"]


def command_line(folder):
    (folder / "speak.py").write_text(PROGRAM)
    words = [sys.executable, str(folder / "speak.py")]
    words += ["{voice}", "{out}", "{text}"]
    options = {"version": "1", "pure": True, "timeout": 20}
    return CommandLine(words, 8000, ["a"], **options), ["a"]


def vits(folder):
    from neural_voices import save_vits

    from speechbrain_slm.speech.tts.vits import Vits

    several = {"num_speakers": 3, "speaker_embedding_size": 8}
    models = {
        "en": save_vits(folder / "en", **several),
        "fr": save_vits(folder / "fr", seed=1),
    }
    return Vits(models), ["en/0", "fr", "en/2"]


def speechbrain_tts(folder):
    from neural_voices import save_hifigan, save_tacotron2

    from speechbrain_slm.speech.tts.speechbrain_tts import SpeechBrainTTS

    acoustic = save_tacotron2(folder / "tacotron2")
    return SpeechBrainTTS(acoustic, save_hifigan(folder / "hifigan")), ["en"]


def pocket(folder):
    from neural_voices import save_pocket

    from speechbrain_slm.speech.tts.pocket import PocketTTS

    source = save_pocket(folder, speakers=("alba", "jean"), end="drawn")
    models = {"en": "english", "fr": "french"}
    tts = PocketTTS(models, ["alba", "jean"], source)
    return tts, ["english/alba", "french/alba", "english/jean"]


# Each makes a back-end, and names some of its voices. A fresh process takes
# the neural ones seconds to start: one utterance, or none, is spoken in one.
BACK_ENDS = {
    nanotts: 4,
    espeak: 4,
    command_line: 1,
    vits: 0,
    speechbrain_tts: 1,
    pocket: 1,
}
TEXTS = [
    "Lily found a red ball in the park.",
    "Tom a une petite balle rouge.",
    "Tom was very sad.",
    "Il pleut.",
]
MANNERS = [(1.0, 1.0), (0.8, 1.0), (1.3, 1.1), (1.0, 1.0)]


@pytest.fixture(scope="module", params=BACK_ENDS, ids=lambda f: f.__name__)
def spoken(request, tmp_path_factory):
    """A back-end that has spoken, and what it has said."""
    make = request.param
    tts, voices = make(tmp_path_factory.mktemp(make.__name__))
    # A program need not know pitch and speed, nor a voice of a recording.
    one_manner = make in (command_line, pocket)
    manners = [(1.0, 1.0)] * 4 if one_manner else MANNERS
    utterances = [
        (text, Voice(voices[number % len(voices)], *manner))
        for number, (text, manner) in enumerate(
            zip(TEXTS, manners, strict=True)
        )
    ]
    alone = {
        number: in_new_process(tts, utterances[number])
        for number in range(BACK_ENDS[make])
    }
    said = [tts.synthesize(*utterance) for utterance in utterances]
    for number, samples in alone.items():
        np.testing.assert_array_equal(said[number], samples)
    return SimpleNamespace(tts=tts, utterances=utterances, said=said)


SPEAK_ONE = """
import pickle, sys
tts, utterance = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(tts.synthesize(*utterance).tobytes())
"""


def in_new_process(tts, utterance):
    pcm = subprocess.check_output(
        [sys.executable, "-c", SPEAK_ONE], input=pickle.dumps((tts, utterance))
    )
    return np.frombuffer(pcm, np.int16)


def test_a_pure_function_of_text_and_voice(spoken):
    assert len({len(samples) for samples in spoken.said}) > 2
    assert {samples.dtype for samples in spoken.said} == {np.dtype(np.int16)}
    # As it is sent to a worker.
    other = pickle.loads(pickle.dumps(spoken.tts))
    assert other.identity == spoken.tts.identity
    generator = random.Random(0)
    for tts in (spoken.tts, other, other):
        # Blocks of all sizes, left dirty for whoever allocates next.
        for size in (100, 10_000, 1_000_000, 2_600_000):
            generator.randbytes(size)
        for number in generator.sample(range(4), 4):
            samples = tts.synthesize(*spoken.utterances[number])
            np.testing.assert_array_equal(samples, spoken.said[number])
    # As a YAML file may have it.
    text, voice = spoken.utterances[0]
    samples = spoken.tts.synthesize(text, Voice(voice.name, 1, 1))
    np.testing.assert_array_equal(samples, spoken.said[0])


@pytest.mark.parametrize(
    "spoken", [vits, speechbrain_tts, pocket], indirect=True
)
def test_threads_and_random_numbers_of_the_caller_do_not_matter(spoken):
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(3)
    samples = spoken.tts.synthesize(*spoken.utterances[0])
    np.testing.assert_array_equal(samples, spoken.said[0])
    drawn = torch.randn(3)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    torch.manual_seed(3)
    assert torch.equal(torch.randn(3), drawn)


@pytest.mark.parametrize("text", ["", "...", "a\0b"])
def test_a_text_that_cannot_be_said_is_named(spoken, text):
    with pytest.raises(ValueError, match=r"text|wrote no sample") as caught:
        spoken.tts.synthesize(text, spoken.utterances[0][1])
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "xx-XX"}, "'xx-XX'"),
        ({"pitch": 2.5}, "pitch is 2.5"),
        ({"speed": 0.0}, "speed is 0.0"),
        ({"pitch": float("nan")}, "pitch is nan"),
    ],
)
def test_voices_that_are_not_there(spoken, changes, message):
    voice = Voice(**{**vars(spoken.utterances[0][1]), **changes})
    tts = spoken.tts
    for refuse in (tts.check_voice, lambda v: tts.synthesize("A boat.", v)):
        with pytest.raises(ValueError, match=message):
            refuse(voice)


@pytest.mark.parametrize("spoken", [nanotts, espeak], indirect=True)
def test_pitch_and_speed_do_what_they_say(spoken):
    tts, (text, voice) = spoken.tts, spoken.utterances[0]
    fast = tts.synthesize(text, Voice(voice.name, 1.0, 1.5))
    assert len(fast) < 0.85 * len(spoken.said[0])
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


def test_markup_is_not_text_for_pico():
    with pytest.raises(ValueError, match="'<'"):
        NanoTTS().synthesize("A <pitch level='200'>b</pitch>.", Voice("en-US"))


def test_unknown_espeak_variant():
    # espeak-ng itself would speak without it.
    with pytest.raises(ValueError, match="no variant 'f9'"):
        espeak(None)[0].check_voice(Voice("fr+f9"))


def test_espeak_names_its_extra_when_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.delitem(sys.modules, ESPEAK, raising=False)
    with pytest.raises(ImportError, match=r"pip install .*\[espeak\]"):
        importlib.import_module(ESPEAK)


def test_an_espeak_that_hangs_is_ended(monkeypatch):
    tts, voice = espeak(None)[0], Voice("en-us")
    before = tts.synthesize("Anna.", voice)
    os.kill(tts._engine.pid, signal.SIGSTOP)
    monkeypatch.setattr(importlib.import_module(ESPEAK), "TIMEOUT", 0.2)
    with pytest.raises(ValueError, match=r"took more than 0\.2 s"):
        tts.synthesize("Anna.", voice)
    monkeypatch.undo()
    np.testing.assert_array_equal(tts.synthesize("Anna.", voice), before)
