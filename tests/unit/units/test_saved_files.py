"""What of a tokenizer goes into the folder of a model."""

import json

import pytest

from speechbrain_slm.units.tokenizers.base import saved_files


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        (None, True),
        ("facebook/hubert-base-ls960", True),
        ("/somebody/models/hubert", False),
        (".", False),
    ],
)
def test_a_path_is_left_out(tmp_path, source, kept):
    """Of a tokenizer without a model, too, there is nothing to leave out."""
    description = {"identity": "1a", "config": {}}
    if source is not None:
        description["source"] = source
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    found = json.loads(saved_files(tmp_path, "1a")["tokenizer.json"])
    assert found.get("source") == (source if kept else None)
    assert found["identity"] == "1a"
    assert saved_files(tmp_path, "2b") == {}
