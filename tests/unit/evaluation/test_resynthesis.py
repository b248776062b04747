"""Speech beside its units, and how its resynthesis is judged."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from units_example import RATE, LoudnessTokenizer, write_corpus

from speechbrain_slm.evaluation.generation import resynthesis
from speechbrain_slm.evaluation.generation.recognizer import Said
from speechbrain_slm.units.spoken import SpokenUnits
from speechbrain_slm.units.tokenizers.base import deduplicate
from speechbrain_slm.utils.tables import MANIFEST, read_table, write_table


class Deduplicated(LoudnessTokenizer):
    """Writes a unit that repeats itself once, unless it is told not to."""

    deduplicated = True

    def encode(self, wavs, lengths, languages=None):
        found = super().encode(wavs, lengths, languages)
        return [*map(deduplicate, found)] if self.deduplicated else found


class Vocoder:
    """Says each unit for as long as a frame is."""

    sample_rate, deduplicated = RATE, True
    identity, tokenizer_identity = "v", "t"

    def speak(self, units, speakers, languages):
        return [torch.zeros(640 * len(units[0]))]


class Recognizer:
    """Hears as many words as there are tenths of a second."""

    identity = "r"

    def transcribe(self, waveforms, rate, language):
        return [
            Said("word " * (10 * len(wav) // rate), language, 1.0)
            for wav in waveforms
        ]


@pytest.fixture(name="manifest")
def _manifest(tmp_path):
    path = write_corpus(tmp_path / "data", stories=12, files=24)
    table = read_table(path, MANIFEST, ["story_id", "sentence", "language"])
    # Twelve texts, each in two voices at least.
    texts = [
        f"text {int(name[-7:-5]) % 12}" for name in table["audio"].to_pylist()
    ]
    write_table(path, table.append_column("text", [texts]))
    return path


def make(manifest, folder, held_out=0.5):
    tokenizer = Deduplicated()
    values = (["en", "fr"], 60.0, held_out, 1)
    return SpokenUnits(manifest, tokenizer, folder, *values)


def test_units_are_those_of_the_frames(manifest, tmp_path):
    spoken = make(manifest, tmp_path / "units")
    assert sorted([*spoken.train, *spoken.held]) == [*range(len(spoken.rows))]
    tokenizer = LoudnessTokenizer()
    for one in spoken.read(range(len(spoken.rows))):
        assert len(one.wav) == 640 * len(one.units)
        wavs, lengths = one.wav[None], torch.tensor([len(one.wav)])
        (units,) = tokenizer.encode(wavs, lengths)
        np.testing.assert_array_equal(one.units, units)
    assert any((np.diff(units) == 0).any() for units in spoken.units)


def test_a_text_is_held_out_in_all_voices(manifest, tmp_path):
    spoken = make(manifest, tmp_path / "units")
    said = [
        {
            (spoken.rows[i]["language"], spoken.texts[spoken.rows[i]["sha256"]])
            for i in part
        }
        for part in (spoken.train, spoken.held)
    ]
    assert all(said)
    assert not said[0] & said[1]
    assert spoken.identity == make(manifest, tmp_path / "units").identity
    assert spoken.identity != make(manifest, tmp_path / "units", 0.4).identity
    with pytest.raises(ValueError, match="leaves none of its"):
        make(manifest, tmp_path / "units", 0.999999)


def test_word_error_rates_are_of_both(manifest, tmp_path):
    spoken = make(manifest, tmp_path / "units")
    vocoder, recognizer = Vocoder(), Recognizer()
    found = resynthesis.judge(vocoder, spoken, recognizer, 2, tmp_path)
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["results"] == found
    table = pq.read_table(tmp_path / "resynthesis.parquet").to_pylist()
    whole = [one for one in found if one["speaker"] == one["language"] == "all"]
    assert [one["kind"] for one in whole] == ["held_out", "known"]
    for one in whole:
        rows = [row for row in table if row["kind"] == one["kind"]]
        assert one["utterances"] == len(rows) > 2
        for name in resynthesis.SPEECH:
            errors = sum(row[f"{name}_errors"] for row in rows)
            assert errors == sum(
                max(2, row[name].split().count("word")) for row in rows
            )
            assert one[name] == round(100 * errors / (2 * len(rows)), 1)
    lines = resynthesis.results_table(found).splitlines()
    assert len(lines) == 2 + len(found)


def test_what_was_heard_is_not_heard_again(manifest, tmp_path, monkeypatch):
    spoken = make(manifest, tmp_path / "units")
    vocoder, recognizer = Vocoder(), Recognizer()
    path = tmp_path / "results.json"
    found = resynthesis.judge(vocoder, spoken, recognizer, 2, tmp_path)
    content = path.read_bytes()
    with monkeypatch.context() as deaf:
        deaf.setattr(Recognizer, "transcribe", None)
        again = resynthesis.judge(vocoder, spoken, recognizer, 2, tmp_path)
        assert again == found
        for what, name in ((vocoder, "identity"), (recognizer, "identity")):
            with monkeypatch.context() as other:
                other.setattr(what, name, "other")
                with pytest.raises(TypeError):
                    resynthesis.judge(vocoder, spoken, recognizer, 2, tmp_path)
            assert not path.exists()
            path.write_bytes(content)
    path.write_text("[]")
    assert resynthesis.judge(vocoder, spoken, recognizer, 2, tmp_path) == found


def test_validation_hears_all_voices(manifest, tmp_path):
    spoken = make(manifest, tmp_path / "units")
    voices = [(one["language"], one["speaker"]) for one in spoken.rows]
    held = {voices[i] for i in spoken.held}
    some = spoken.some_held(len(spoken.held) // 2)
    assert some.shape == (len(spoken.held) // 2, 1)
    assert {voices[i] for i in some[:, 0]} == held
    assert len({*some[:, 0]}) == len(some)
    assert spoken.some_held(1000)[:, 0].tolist() == spoken.held.tolist()
    assert spoken.some_held(0).shape == (0, 1)


def test_audio_without_a_text_is_held_out_by_itself(manifest, tmp_path):
    table = read_table(manifest, MANIFEST, ["story_id", "sentence", "language"])
    texts, place = table["text"].to_pylist(), table.column_names.index("text")
    some = [text if n % 3 else None for n, text in enumerate(texts)]
    write_table(manifest, table.set_column(place, "text", [some]))
    spoken = make(manifest, tmp_path / "units")
    told = [row["sha256"] in spoken.texts for row in spoken.rows]
    for part in (spoken.train, spoken.held):
        assert len({told[i] for i in part}) == 2
    resynthesis.judge(Vocoder(), spoken, Recognizer(), 99, tmp_path)
    table = pq.read_table(tmp_path / "resynthesis.parquet")
    assert len(table) == sum(told)
    # As where all that have one were not drawn.
    spoken.texts = {"0" * 64: "text"}
    with pytest.raises(ValueError, match=f"none of {len(told)} utterances"):
        resynthesis.judge(Vocoder(), spoken, Recognizer(), 99, tmp_path)


def test_codebooks_are_asked_of_a_codec(manifest, tmp_path):
    values = (["en", "fr"], 60.0, 0.5, 1)
    with pytest.raises(ValueError, match="num_codebooks is 8, and the tok"):
        SpokenUnits(
            manifest, Deduplicated(), tmp_path, *values, num_codebooks=8
        )
