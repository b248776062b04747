from pathlib import Path

import pytest
import torch
from neural_voices import HIFIGAN, TACOTRON2, save_hifigan, save_tacotron2

from speechbrain_slm.speech.tts import Voice, speechbrain_tts
from speechbrain_slm.speech.tts.speechbrain_tts import SpeechBrainTTS

TEXT = "Anna smiles at the sea."


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speechbrain")
    return {
        "acoustic": save_tacotron2(folder / "tacotron2"),
        "vocoder": save_hifigan(folder / "hifigan"),
    }


@pytest.fixture(scope="module")
def tts(models):
    return SpeechBrainTTS(**models)


def test_pitch_and_speed_do_what_they_say(tts, monkeypatch):
    # How many frames the decoder makes is left to chance, here of noise.
    mel = torch.randn(1, 8, 40, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(speechbrain_tts, "_spectrogram", lambda *_: mel)

    def frames(**manner):
        voice = Voice("en", **manner)
        # The vocoder adds ten frames of silence, if it has learnt to.
        length = len(tts.synthesize(TEXT, voice)) / 256
        return length - 10 / voice.pitch

    for speed, pitch, expected in ((1, 1, 40), (0.5, 1, 80), (2, 0.5, 20)):
        found = frames(speed=speed, pitch=pitch)
        assert found == pytest.approx(expected, abs=0.1)


def test_signs_of_written_text_are_read(tts):
    text = '\u201cMr. Smith\u2019s\u00a0boat \u2013 gone\u2026\u201d "No!"'
    found = speechbrain_tts._readable(tts._load("cpu")[0], text)
    assert found == "Mr. Smith's boat - gone... No!"


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("Tom has 3 boats.", "3"),
        ("A café and a straße.", "ß é"),
        ("A & B for $.", "$ &"),
        ("Turn {HH AW1 S}.", "1 { }"),
        ("a_b", "_"),
    ],
)
def test_signs_that_would_be_skipped_are_named(tts, text, signs):
    with pytest.raises(ValueError, match="no sign for") as caught:
        tts.synthesize(text, Voice("en"))
    assert f"no sign for {signs} in" in str(caught.value)
    assert repr(text) in str(caught.value)


def test_a_decoder_that_finds_no_end_or_goes_on_after_it(models, tts, tmp_path):
    acoustic = save_tacotron2(tmp_path / "endless", stops=False)
    other = SpeechBrainTTS(acoustic, models["vocoder"])
    with pytest.raises(ValueError, match=r"no end of the text .* in 200 steps"):
        other.synthesize(TEXT, Voice("en"))
    text = TACOTRON2.replace("early_stopping: False", "early_stopping: True")
    acoustic = save_tacotron2(tmp_path / "on", text=text)
    other = SpeechBrainTTS(acoustic, models["vocoder"])
    assert other.identity != tts.identity
    expected = tts.synthesize(TEXT, Voice("en"))
    assert len(other.synthesize(TEXT, Voice("en"))) == len(expected)


def test_the_identity_is_that_of_the_models(models, tts, tmp_path):
    assert SpeechBrainTTS(**models).identity == tts.identity
    patient = TACOTRON2.replace("decoder_steps: 200", "decoder_steps: 9")
    for other in (
        {"vocoder": save_hifigan(tmp_path / "other", seed=1)},
        {"acoustic": save_tacotron2(tmp_path / "patient", text=patient)},
    ):
        assert SpeechBrainTTS(**{**models, **other}).identity != tts.identity


def test_models_that_are_not_there(models, tmp_path):
    # One that the hub should have: see the same of VITS.
    with pytest.raises(FileNotFoundError, match=r"has no hyperparams\.yaml"):
        SpeechBrainTTS(models["acoustic"], str(tmp_path))
    with pytest.raises(ValueError, match="by SpeechBrain's Tacotron2"):
        SpeechBrainTTS(models["vocoder"], models["vocoder"])


def test_weights_that_are_not_there(models, tmp_path):
    folder = Path(save_hifigan(tmp_path / "part"))
    weights = torch.load(folder / "generator.ckpt")
    del weights["conv_pre.conv.bias"]
    torch.save(weights, folder / "generator.ckpt")
    with pytest.raises(ValueError, match=r"lacks 1 tensor\(s\) of 'generator'"):
        SpeechBrainTTS(models["acoustic"], str(folder))
    (folder / "generator.ckpt").unlink()
    with pytest.raises(ValueError, match=r"HIFIGAN .*generator\.ckpt"):
        SpeechBrainTTS(models["acoustic"], str(folder))


def test_weights_under_the_names_of_older_releases(models, tts, tmp_path):
    """As the published vocoders were saved."""
    folder = Path(save_hifigan(tmp_path / "old"))
    weights = torch.load(folder / "generator.ckpt")
    names = {"original0": "weight_g", "original1": "weight_v"}
    for name in list(weights):
        layer, found, ending = name.rpartition("parametrizations.weight.")
        if found:
            weights[layer + names[ending]] = weights.pop(name)
    assert "conv_pre.conv.weight_g" in weights
    torch.save(weights, folder / "generator.ckpt")
    other = SpeechBrainTTS(models["acoustic"], str(folder))
    assert other.identity == tts.identity


def test_models_that_do_not_fit(models, tmp_path):
    bands = HIFIGAN.replace("in_channels: 8", "in_channels: 80")
    vocoder = save_hifigan(tmp_path / "bands", text=bands)
    with pytest.raises(ValueError, match=r"gives 8 mel bands, .* takes 80"):
        SpeechBrainTTS(models["acoustic"], vocoder)
    text = f"sample_rate: 16000\n{HIFIGAN}"
    vocoder = save_hifigan(tmp_path / "rate", text=text)
    with pytest.raises(ValueError, match=r"22050 Hz, but .* says 16000 Hz"):
        SpeechBrainTTS(models["acoustic"], vocoder)
    tts = SpeechBrainTTS(models["acoustic"], vocoder, sample_rate=16000)
    assert tts.sample_rate == 16000
