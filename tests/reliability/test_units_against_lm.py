"""Check 5: units that a model has not learnt are refused before any work.

Two codebooks of one size have the same units and other meanings, so only the
identity can tell. That no id beyond the vocabulary gets into a store is tested
with the writer (tests/unit/utils/test_store.py) and with the extraction.
"""

import re

import pytest
from cloze_example import export, write_items
from conftest import write_store
from processes import ROOT, command, lm_command, run

STAGES = "[{tokens: 1024, mixture: {en: 1, fr: 1, interleaved: 1}}]"
CLOZE = ROOT / "recipes" / "TinyStories" / "cloze"


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    folder = tmp_path_factory.mktemp("units")
    write_store(folder / "train", stories=20)
    write_store(folder / "valid", stories=10, seed=1)
    write_store(folder / "other" / "train", stories=20, identity="codebook-b")
    write_store(folder / "other" / "valid", stories=10, identity="codebook-b")
    mixed = folder / "mixed"
    mixed.mkdir()
    (mixed / "train").symlink_to(folder / "train")
    (mixed / "valid").symlink_to(folder / "other" / "valid")
    return folder


def train(*arguments, **overrides):
    return run(lm_command(*arguments, **overrides), timeout=300)


@pytest.mark.parametrize(
    ("folder", "size", "text"),
    [
        (
            "mixed",
            30,
            "mixed/valid holds units of tokenizer codebook-b.*"
            "mixed/train of codebook-a; expected one tokenizer",
        ),
        (
            "",
            31,
            "The model has 32 embeddings; the units have 30 symbols.*"
            "Set vocabulary_size to 30.",
        ),
    ],
)
def test_other_units_make_no_step(units, tmp_path, folder, size, text):
    code, output = train(units / folder, tmp_path, vocabulary_size=size)
    assert code != 0
    assert re.search(text, output)
    for name in ("train_log.jsonl", "save/CKPT*", "model", "run.json"):
        assert not list(tmp_path.glob(name))


def test_resuming_with_another_codebook(units, tmp_path):
    code, text = train(units, tmp_path, stages=STAGES)
    assert code == 0, text
    before = {path: path.stat().st_mtime for path in tmp_path.rglob("CKPT*")}
    assert before
    code, text = train(units / "other", tmp_path, stages=STAGES)
    assert code != 0
    assert "tokenizer: expected 'codebook-a', found 'codebook-b'" in text
    assert before == {
        path: path.stat().st_mtime for path in tmp_path.rglob("CKPT*")
    }


def test_evaluating_with_another_codebook(tmp_path):
    model = export(tmp_path / "model")
    write_store(tmp_path / "other", identity="codebook-b")
    arguments = command(
        CLOZE / "train.py",
        CLOZE / "hparams" / "mini.yaml",
        model_folder=model,
        units_folder=tmp_path / "other",
        items=write_items(tmp_path / "items.parquet"),
        output_folder=tmp_path / "output",
    )
    code, text = run(arguments)
    assert code != 0
    assert "was trained on units of tokenizer codebook-a" in text
    assert "other holds units of tokenizer codebook-b" in text
    assert "Scored" not in text
    for name in ("results.json", "scores.parquet"):
        assert not (tmp_path / "output" / name).exists()
