import numpy as np
import pytest
from neural_voices import save_vits
from transformers import BertConfig

from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.vits import Vits


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vits")
    several = {"num_speakers": 3, "speaker_embedding_size": 8}
    return {
        "en": save_vits(folder / "en", **several),
        "fr": save_vits(folder / "fr", seed=1),
    }


TEXT = "Anna smiles at the sea, and the boat goes home."


def test_speakers_differ_speed_does_what_it_says_pitch_leaves_it(models):
    tts = Vits(models)
    one, two = (tts.synthesize(TEXT, Voice(f"en/{n}")) for n in (0, 1))
    assert len(one) != len(two) or not np.array_equal(one, two)

    def length(**manner):
        texts, voice = (
            [TEXT[: 20 + n] for n in range(12)],
            Voice("fr", **manner),
        )
        return np.mean([len(tts.synthesize(text, voice)) for text in texts])

    assert length(speed=0.5) > 1.5 * length(speed=2.0)
    assert length(pitch=1.6) == pytest.approx(length(), rel=0.25)


def test_the_identity_is_that_of_the_weights(models, tmp_path):
    assert Vits(models).identity == Vits(dict(models)).identity
    other = save_vits(tmp_path / "fr", seed=2)
    assert Vits({**models, "fr": other}).identity != Vits(models).identity


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        ("de", "no model 'de'; expected one of en, fr"),
        ("en", "3 speakers; expected 'en/0' to 'en/2'"),
        ("en/3", "3 speakers; expected"),
        ("fr/0", "one speaker; expected 'fr'"),
    ],
)
def test_voices_that_are_not_there(models, voice, message):
    with pytest.raises(ValueError, match=message):
        Vits(models).check_voice(Voice(voice))


def test_a_sign_that_would_be_skipped_is_named(models):
    with pytest.raises(ValueError, match="no sign for 3 ß"):
        Vits(models).synthesize("Tom has 3 straße.", Voice("fr"))


def test_models_that_are_not_there(models, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="hf download no/such-model"):
        Vits({"en": "no/such-model"})
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"no vocab.json, model.safe"):
        Vits({"en": str(tmp_path)})
    low = save_vits(tmp_path / "low", sampling_rate=8000)
    with pytest.raises(ValueError, match="different sample rates"):
        Vits({**models, "de": low})
    BertConfig().save_pretrained(tmp_path / "low")
    with pytest.raises(ValueError, match="is a bert model; expected vits"):
        Vits({"en": low})
