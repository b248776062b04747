"""The recogniser, on speech of the mini corpus's own voices."""

import sys

import numpy as np
import pytest

from speechbrain_slm.evaluation.generation.recognizer import (
    SAMPLE_RATE,
    WINDOW,
    Recognizer,
    _windows,
    normalized,
    word_error_rate,
    word_errors,
)
from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.nanotts import NanoTTS
from speechbrain_slm.units.tokenizers.ctranslate2 import load_whisper_encoder
from speechbrain_slm.utils.whisper_weights import whisper_base

SAID = {
    "en": ("en-US", "The big dog found a red ball in the garden."),
    "fr": ("fr-FR", "Le grand chien a trouvé une balle rouge dans le jardin."),
}


@pytest.fixture(scope="module")
def recognizer():
    pytest.importorskip(
        "ctranslate2", reason="needs pip install -e '.[recognizer]'"
    )
    return Recognizer()


@pytest.fixture(scope="module")
def spoken():
    tts = NanoTTS()
    rates = {tts.sample_rate}
    assert rates == {SAMPLE_RATE}
    return {
        language: tts.synthesize(text, Voice(voice)).astype(np.float32) / 32768
        for language, (voice, text) in SAID.items()
    }


@pytest.mark.long
def test_speech_in_two_languages(recognizer, spoken):
    for language, (_, text) in SAID.items():
        (found,) = recognizer.transcribe([spoken[language]], SAMPLE_RATE)
        assert found.language == language
        assert found.probability > 0.8
        assert word_error_rate([text], [found.text]) < 20
    # Alone or among others, again, and at another rate.
    both = recognizer.transcribe(list(spoken.values()), SAMPLE_RATE)
    assert both[1] == found
    twice = np.repeat(spoken["fr"], 2)
    (slow,) = recognizer.transcribe([twice], 2 * SAMPLE_RATE, "fr")
    assert word_error_rate([SAID["fr"][1]], [slow.text]) < 30


@pytest.mark.long
def test_what_is_no_speech(recognizer):
    assert recognizer.transcribe([np.zeros(0)], 16000, "fr") == [("", "fr", 0)]
    with pytest.raises(ValueError, match=r"shape \[2, 5\]; expected \[T\]"):
        recognizer.transcribe([np.zeros((2, 5))], 16000)
    with pytest.raises(ValueError, match="does not know the language 'tlh'"):
        recognizer.transcribe([np.ones(9000)], 16000, "tlh")
    with pytest.raises(FileNotFoundError, match=r"or a folder with model\.bin"):
        Recognizer("nowhere")


def test_long_speech_is_cut_where_it_is_quiet():
    wav = np.ones(int(70 * SAMPLE_RATE), np.float32)
    wav[27 * SAMPLE_RATE : 28 * SAMPLE_RATE] = 0
    windows = list(_windows(wav))
    assert len(windows[0]) // SAMPLE_RATE == 27
    assert max(map(len, windows)) <= WINDOW * SAMPLE_RATE
    np.testing.assert_array_equal(np.concatenate(windows), wav)


@pytest.mark.long
def test_a_damaged_copy_is_made_anew(recognizer, tmp_path):
    folder = whisper_base(tmp_path / "whisper")
    assert load_whisper_encoder(folder).config.encoder_layers == 6
    (folder / "model.bin").write_bytes(b"half")
    whisper_base(folder)
    assert load_whisper_encoder(folder).config.d_model == 512


def test_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[recognizer\]'"):
        whisper_base(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "ctranslate2.models", None)
    for name in ("model.bin", "tokenizer.json"):
        (tmp_path / name).touch()
    with pytest.raises(ImportError, match=r"pip install -e '\.\[recognizer\]'"):
        Recognizer(tmp_path)


def test_words_that_are_wrong():
    assert normalized("Voilà ! J’ai 12 ans…") == "voilà j ai 12 ans"
    assert word_errors("un chat noir", "Un chien.") == (2, 3)
    assert word_errors("un", "") == (1, 1)
    assert word_error_rate(["a b", "c d"], ["a b.", "c"]) == 25
