"""A model's folder: what is beside the weights, and what is refused."""

import json
import os

import pytest
import torch
from cloze_example import export, tiny_llama, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from speechbrain_slm.models.export import (
    add_vocoder,
    examine_speech_lm,
    load_speech_lm,
    save_speech_lm,
)
from speechbrain_slm.models.folder import find_speech_lm, tokenizer_of
from speechbrain_slm.utils.atomic import read_json, write_atomic, write_json

FACTS = {
    "tokenizer_identity": "codebook-a",
    "vocabulary_size": 30,
    "boundary": 30,
    "language_tags": {},
    "languages": ["en", "fr"],
    "frame_rate": 25.0,
    "deduplicated": True,
    "tokenizer": {"type": "hubert_kmeans", "layer": 6},
    "base_identity": "below",
    "encoder": {"name": "someone/hubert", "weights": "5e"},
    "row_length": 128,
    "attention": "blocked",
}


def tokenizer_files(*identities):
    """Make what a tokenizer, and the BPE on top of it, say of themselves."""
    names = ("tokenizer.json", "bpe/bpe.json")
    texts = (json.dumps({"identity": one}).encode() for one in identities)
    return dict(zip(names, texts, strict=False))


def vocoder(folder, identity="below", weights=b"w"):
    write_json(folder / "vocoder.json", {"tokenizer_identity": identity})
    write_atomic(folder / "vocoder.safetensors", weights)
    (folder / ".lock").touch()
    return folder


@pytest.fixture
def whole(tmp_path):
    """A model with all that there can be beside it."""
    folder = tmp_path / "model"
    files = tokenizer_files("below", "codebook-a")
    speaker = vocoder(tmp_path / "vocoder")
    save_speech_lm(folder, tiny_model(), FACTS, files, "# It\n", speaker)
    return folder


def test_every_fact_outlives_a_copy_by_transformers(whole, tmp_path):
    copy = tmp_path / "copy"
    model = AutoModelForCausalLM.from_pretrained(whole)
    model.save_pretrained(copy)
    assert load_speech_lm(copy)[1] == load_speech_lm(whole)[1] == FACTS
    # The same weights, configuration and units: the same model.
    assert examine_speech_lm(copy) == examine_speech_lm(whole)
    ids = torch.arange(31)[None]
    with torch.no_grad():
        assert torch.equal(
            model(ids).logits, load_speech_lm(copy)[0](ids).logits
        )


@pytest.mark.parametrize(
    "make", [tiny_model, tiny_llama, lambda: tiny_model(GPT2Config)]
)
def test_a_text_tokenizer_is_refused_with_the_way_out(tmp_path, make):
    folder = export(tmp_path / "model", make())
    with pytest.raises(ValueError, match=r"no text tokenizer.*SpeechLM\.from_"):
        AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "optimizer.pt", "tokenizer/kmeans.joblib"]
)
def test_a_pickle_is_refused(whole, name):
    (whole / name).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{name} is a pickle, which may run"):
        load_speech_lm(whole)


def test_the_tokenizer_of_another_model_is_refused(whole):
    assert tokenizer_of(whole, FACTS) == whole / "tokenizer"
    (whole / "files.json").unlink()
    write_json(whole / "tokenizer/bpe/bpe.json", {"identity": "codebook-b"})
    with pytest.raises(ValueError, match="codebook-b, but the model was train"):
        load_speech_lm(whole)


def test_a_vocoder_goes_with_the_model_and_is_sealed(whole):
    names = {path.name for path in (whole / "vocoder").iterdir()}
    assert names == {"vocoder.json", "vocoder.safetensors"}
    (whole / "vocoder/vocoder.safetensors").write_bytes(b"W")
    with pytest.raises(ValueError, match=r"vocoder\.safetensors differs"):
        load_speech_lm(whole)


def test_a_vocoder_is_added_and_takes_anothers_place(tmp_path):
    folder = export(tmp_path / "model")
    for weights in (b"one", b"two"):
        speaker = vocoder(tmp_path / weights.decode(), "codebook-a", weights)
        add_vocoder(folder, speaker)
        examine_speech_lm(folder)
        there = folder / "vocoder/vocoder.safetensors"
        assert there.read_bytes() == weights
        assert "vocoder/vocoder.safetensors" in read_json(folder / "files.json")


def test_a_vocoder_is_never_lost(whole, tmp_path):
    """Neither where it is the model's own, nor where another cannot be read."""
    there = whole / "vocoder"
    add_vocoder(whole, there)
    assert (there / "vocoder.safetensors").read_bytes() == b"w"
    other = vocoder(tmp_path / "other", weights=b"o")
    os.mkfifo(other / "more.json")
    before = read_json(whole / "files.json")
    with pytest.raises(ValueError, match=r"more\.json is a pipe"):
        add_vocoder(whole, other)
    assert read_json(whole / "files.json") == before
    examine_speech_lm(whole)
    assert not [*whole.glob(".*")]


def test_a_vocoder_of_other_units_is_refused(whole, tmp_path):
    before = read_json(whole / "files.json")
    other = vocoder(tmp_path / "other", "another")
    with pytest.raises(ValueError, match="tokenizer another, the model's are"):
        add_vocoder(whole, other)
    (other / "vocoder.pt").touch()
    with pytest.raises(ValueError, match=r"vocoder\.pt is a pickle"):
        add_vocoder(whole, other)
    with pytest.raises(FileNotFoundError, match=r"it has no vocoder\.json"):
        add_vocoder(whole, tmp_path)
    assert read_json(whole / "files.json") == before
    (whole / "files.json").unlink()
    vocoder(whole / "vocoder", "another")
    with pytest.raises(ValueError, match="tokenizer another, the model's are"):
        examine_speech_lm(whole)


def test_a_model_of_the_hubs_cache_is_whole(whole, tmp_path, monkeypatch):
    """As a download leaves it: names that lead to files named by a hash."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    home, commit = tmp_path / "hub/models--user--slm", "5e" * 20
    snapshot = home / "snapshots" / commit
    for number, path in enumerate(p for p in whole.rglob("*") if p.is_file()):
        blob = home / "blobs" / str(number)
        write_atomic(blob, path.read_bytes())
        link = snapshot / path.relative_to(whole)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    write_atomic(home / "refs/main", commit)
    folder = find_speech_lm("user/slm", cache_dir=tmp_path / "hub")
    assert folder == snapshot
    assert examine_speech_lm(folder) == examine_speech_lm(whole)
    named = {"cache_dir": tmp_path / "hub"}
    model = AutoModelForCausalLM.from_pretrained("user/slm", **named)
    ids = torch.arange(31)[None]
    with torch.no_grad():
        expected = load_speech_lm(whole)[0](ids).logits
        assert torch.equal(model(ids).logits, expected)
    with pytest.raises(ValueError, match="no text tokenizer"):
        AutoTokenizer.from_pretrained("user/slm", **named)


def test_a_name_that_is_nowhere_says_what_to_download(tmp_path, monkeypatch):
    cache = "huggingface_hub.constants.HF_HUB_CACHE"
    monkeypatch.setattr(cache, str(tmp_path))
    assert find_speech_lm(tmp_path) == tmp_path
    for name, told in (
        ("someone/speech-lm", "hf download someone/speech-lm --local-dir"),
        (str(tmp_path / "typo"), "typo does not exist; expected a model's"),
    ):
        with pytest.raises(FileNotFoundError, match=told):
            find_speech_lm(name)
