"""Back-ends beside each other; SpeechBrain's and Pico, as their YAML has it."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from neural_voices import save_hifigan, save_tacotron2
from speech_example import rows_of, speak

from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.combined import Combined
from speechbrain_slm.speech.tts.nanotts import NanoTTS
from speechbrain_slm.speech.utterances import Limits
from speechbrain_slm.utils.config import load_yaml
from speechbrain_slm.utils.speakers import check_voices
from speechbrain_slm.utils.tables import write_table

pytestmark = pytest.mark.long

YAML = Path(__file__).parents[3] / "hparams" / "tts" / "speechbrain.yaml"


class Tone:
    """Says any text as half a second of a tone."""

    def __init__(self, sample_rate, hertz=440):
        self.sample_rate, self.hertz = sample_rate, hertz
        self.identity = {"name": "tone", "hertz": hertz}

    def check_voice(self, voice):
        if voice.name != "a":
            raise ValueError(f"no voice '{voice.name}'")

    def synthesize(self, text, voice):
        self.check_voice(voice)
        time = np.arange(self.sample_rate // 2) / self.sample_rate
        wave = 20000 * np.sin(2 * np.pi * self.hertz * time)
        return np.round(wave).astype(np.int16)


def test_all_have_the_lowest_sample_rate():
    tts = Combined({"high": Tone(22050), "low": Tone(16000)})
    assert tts.sample_rate == 16000
    low = tts.synthesize("Anna.", Voice("low:a"))
    np.testing.assert_array_equal(low, Tone(16000).synthesize("", Voice("a")))
    high = tts.synthesize("Anna.", Voice("high:a"))
    assert high.dtype == np.int16
    assert len(high) == len(low)
    # The same tone, but for the filter's ends and the rounding.
    inner = slice(100, -100)
    assert np.abs(high[inner].astype(int) - low[inner]).max() < 60
    # One above the lowest rate does not fold down.
    tts = Combined({"high": Tone(22050, 10000), "low": Tone(16000)})
    samples = tts.synthesize("Anna.", Voice("high:a"))
    assert np.abs(samples[100:-100].astype(int)).max() < 200


def test_the_identity_is_made_of_the_parts():
    one = Combined({"a": Tone(16000), "b": Tone(16000, 500)}).identity
    assert one == Combined({"b": Tone(16000, 500), "a": Tone(16000)}).identity
    assert one != Combined({"a": Tone(16000), "b": Tone(16000, 501)}).identity
    assert one != Combined({"a": Tone(16000), "b": Tone(8000, 500)}).identity


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fr-FR", "'fr-FR': expected '<back-end>:<voice>', .* of pico, tone"),
        ("vits:en", "'vits:en': expected"),
        ("tone:", "'tone:': expected"),
        ("tone:b", "no voice 'b'"),
        ("pico:en", "no voice 'en'; expected one of"),
    ],
)
def test_voices_that_are_not_there(name, message):
    with pytest.raises(ValueError, match="parts is empty"):
        Combined({})
    tts = Combined({"pico": NanoTTS(), "tone": Tone(16000)})
    for refuse in (tts.check_voice, lambda v: tts.synthesize("A boat.", v)):
        with pytest.raises(ValueError, match=message):
            refuse(Voice(name))


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    overrides = {
        "names": ["anna", "bruno"],
        "acoustic": save_tacotron2(folder / "tacotron2"),
        "vocoder": save_hifigan(folder / "hifigan"),
    }
    return load_yaml(YAML, overrides)


def test_a_story_in_two_languages_by_two_back_ends(speech, tmp_path):
    texts = {
        "en": ["Anna smiles at the sea.", "Tom has 3 boats.", "Then it rains."],
        "fr": ["Anna sourit à la mer.", "Tom a trois bateaux.", "Il pleut."],
    }
    keys = {"story_id": ["s"] * 3, "sentence": range(3)}
    write_table(tmp_path / "text.parquet", pa.table({**keys, **texts}))
    speak(
        tmp_path / "text.parquet",
        tmp_path,
        tts=speech["tts"],
        speakers=speech["speakers"],
        # Random weights know no duration.
        limits=Limits(shortest=0.0, longest=1.0, spare=1.0, clipped=1.0),
        max_left_out=0.5,
    )
    spoken = {(row["language"], row["text"]): row for row in rows_of(tmp_path)}
    assert set(spoken) == {
        (k, own[n]) for k, own in texts.items() for n in (0, 2)
    }
    assert "no sign for 3 in" in (tmp_path / "left_out.jsonl").read_text()
    other = pickle.loads(pickle.dumps(speech["tts"]))
    for (language, text), row in spoken.items():
        samples, rate = soundfile.read(tmp_path / row["audio"], dtype="int16")
        assert rate == row["sample_rate"] == 16000
        voice = speech["speakers"][row["speaker"]][language]
        whole = other.synthesize(text, voice)
        assert samples.tobytes() in whole.tobytes()


def test_a_language_that_no_one_speaks(speech):
    with pytest.raises(ValueError, match=r"'anna' has no voice .* 'de'"):
        check_voices(speech["tts"], speech["speakers"], ["en", "de"])
    speakers = {"anna": {"fr": Voice("speechbrain:fr")}}
    with pytest.raises(ValueError, match=r"'anna': voice 'fr': .* 'en' alone"):
        check_voices(speech["tts"], speakers, ["fr"])
