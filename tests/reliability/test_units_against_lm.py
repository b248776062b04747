"""Check 5: units that a model has not learnt are refused before any work.

Two codebooks of one size have the same units and other meanings, so only the
identity can tell. That no id beyond the vocabulary gets into a store is tested
with the writer (tests/unit/utils/test_store.py) and with the extraction.
"""

import pytest
from cloze_example import export, write_items
from conftest import write_store
from processes import LM, ROOT, TINY_LM, command, run

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


def recipe(folder, **settings):
    yaml_file = folder / "hparams" / "mini.yaml"
    return run(command(folder / "train.py", yaml_file, **settings), timeout=300)


def train(units, output, **overrides):
    settings = {**TINY_LM, "units_folder": units, "output_folder": output}
    return recipe(LM, **settings | overrides)


def trained(output):
    """List what a run leaves that has made a step."""
    names = ("train_log.jsonl", "save/CKPT*", "model", "run.json")
    return [path for name in names for path in output.glob(name)]


def test_validation_units_of_another_tokenizer(units, tmp_path):
    code, text = train(units / "mixed", tmp_path)
    assert code != 0
    assert "mixed/valid holds units of tokenizer codebook-b" in text
    assert "mixed/train of codebook-a; expected one tokenizer" in text
    assert trained(tmp_path) == []


def test_a_vocabulary_of_another_size(units, tmp_path):
    code, text = train(units, tmp_path, vocabulary_size=31)
    assert code != 0
    assert "The model has 32 embeddings; the units have 30 symbols" in text
    assert "Set vocabulary_size to 30." in text
    assert trained(tmp_path) == []


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
    code, text = recipe(
        CLOZE,
        model_folder=model,
        units_folder=tmp_path / "other",
        items=write_items(tmp_path / "items.parquet"),
        output_folder=tmp_path / "output",
    )
    assert code != 0
    assert "was trained on units of tokenizer codebook-a" in text
    assert "other holds units of tokenizer codebook-b" in text
    assert "Scored" not in text
    for name in ("results.json", "scores.parquet"):
        assert not (tmp_path / "output" / name).exists()
