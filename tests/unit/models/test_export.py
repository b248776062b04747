import pytest
from cloze_example import export

from speechbrain_slm.models.export import load_speech_lm
from speechbrain_slm.utils.atomic import read_json, write_json


def test_a_torn_description_is_named(tmp_path):
    path = export(tmp_path / "model") / "units.json"
    assert load_speech_lm(tmp_path / "model")[1]["boundary"] == 30
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match=r"units\.json is not valid JSON"):
        load_speech_lm(tmp_path / "model")


def test_language_tags_are_kept(tmp_path):
    tags = {"fr": 31, "en": 32}
    folder = export(tmp_path / "tagged", language_tags=tags)
    assert load_speech_lm(folder)[1]["language_tags"] == tags


def test_an_older_export_has_no_tags(tmp_path):
    path = export(tmp_path / "model") / "units.json"
    units = read_json(path)
    assert units.pop("language_tags") == {}
    write_json(path, units)
    assert load_speech_lm(tmp_path / "model")[1] == {
        **units,
        "language_tags": {},
    }
