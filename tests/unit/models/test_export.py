import pytest
from cloze_example import export

from speechbrain_slm.models.export import load_speech_lm


def test_a_torn_description_is_named(tmp_path):
    path = export(tmp_path / "model") / "units.json"
    assert load_speech_lm(tmp_path / "model")[1]["boundary"] == 30
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match=r"units\.json is not valid JSON"):
        load_speech_lm(tmp_path / "model")
