"""The small text LM: it knows the corpus's texts, and the measure reads it."""

import json
import math
import runpy

import pyarrow as pa
import pytest
from processes import ROOT

from speechbrain_slm.evaluation.generation.text_lm import TextLM
from speechbrain_slm.utils.tables import MANIFEST, write_table

TOOL = runpy.run_path(str(ROOT / "tools/text_lm.py"))
TEXTS = {
    "en": ["The dog ran home.", "It was late."],
    "fr": ["Le chien est rentré.", "Il était tard."],
}


def write_manifest(path, with_text=True):
    rows = [
        {
            "story_id": f"story-{story}",
            "sentence": number,
            "language": language,
            "speaker": "anna",
            "audio": "a.flac",
            "num_samples": 1,
            "sample_rate": 16000,
            "sha256": "0" * 64,
            "text": text,
        }
        for story in range(2)
        for language, texts in TEXTS.items()
        for number, text in enumerate(texts)
    ]
    schema = MANIFEST.append(pa.field("text", pa.string()))
    table = pa.Table.from_pylist(rows, schema=schema)
    write_table(path, table if with_text else table.drop_columns("text"))


def test_it_knows_the_corpus(tmp_path, capsys):
    for split in ("train", "valid"):
        write_manifest(tmp_path / f"{split}.parquet")
    output = tmp_path / "lm"
    told = [str(tmp_path), "--output", str(output), "--steps", "20"]
    TOOL["main"]([*told, "--rows", "8"])
    made = json.loads(capsys.readouterr().out)
    lm = TextLM(str(output))
    known, other, changed, empty = lm.negative_log_likelihoods(
        [
            "The dog ran home. It was late.",
            "late dog chien home. Le ran",
            "The dog ran home. Il était tard.",
            "",
        ]
    )
    assert known < 1 < 2 < other
    # To change the language is no surprise as such.
    assert changed < known + 1
    # One token, the beginning, of which nothing is before.
    assert empty is None
    assert 1 < made["valid_perplexity"] < math.exp(1.5)
    # What stands there may be another model.
    with pytest.raises(FileExistsError, match="lm exists"):
        TOOL["main"](told)


def test_a_manifest_without_texts_is_refused(tmp_path):
    write_manifest(tmp_path / "train.parquet", with_text=False)
    with pytest.raises(ValueError, match=r"column.*text"):
        TOOL["main"]([str(tmp_path), "--output", str(tmp_path / "lm")])
