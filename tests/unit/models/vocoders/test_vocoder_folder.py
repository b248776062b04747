"""Stored vocoders: whole, of one tokenizer's units, and told from others."""

import json
from types import SimpleNamespace

import pytest
import torch

from speechbrain_slm.models.vocoders import base


class Table:
    """A vocoder whose weights are all that it has."""

    def __init__(self, tokenizer_identity, tensors):
        self.config, self.speakers, self.languages = {"size": 2}, ["a"], ["en"]
        self.tokenizer_identity, self.tensors = tokenizer_identity, tensors
        self.identity = base.vocoder_identity(self, tensors)

    def save(self, folder):
        base.save_vocoder(folder, "table", self, self.tensors)

    @classmethod
    def from_saved(cls, told, tensors, tokenizer):
        return cls(told["tokenizer_identity"], tensors)


@pytest.fixture(name="folder")
def _folder(tmp_path, monkeypatch):
    monkeypatch.setitem(base.KINDS, "table", f"{__name__}.Table")
    Table("1a", {"w": torch.arange(4.0)}).save(tmp_path / "vocoder")
    return tmp_path / "vocoder"


def test_a_vocoder_comes_back_as_it_was_saved(folder):
    vocoder = base.load_vocoder(folder, SimpleNamespace(identity="1a"))
    assert vocoder.tensors["w"].tolist() == [0, 1, 2, 3]
    told = json.loads((folder / "vocoder.json").read_text())
    assert vocoder.identity == told["identity"]
    assert vocoder.identity != Table("1b", vocoder.tensors).identity


def test_another_tokenizers_units_are_refused(folder):
    with pytest.raises(ValueError, match="speaks units of the tokenizer 1a"):
        base.load_vocoder(folder, SimpleNamespace(identity="2b"))


def test_what_was_changed_is_refused(folder):
    weights, path = folder / "vocoder.safetensors", folder / "vocoder.json"
    content, told = weights.read_bytes(), json.loads(path.read_text())
    weights.write_bytes(content[:-1] + b"x")
    with pytest.raises(ValueError, match="has not the SHA-256"):
        base.load_vocoder(folder)
    weights.write_bytes(content)
    path.write_text(json.dumps({**told, "type": "pickle"}))
    with pytest.raises(ValueError, match="type is 'pickle'; expected one of"):
        base.load_vocoder(folder)
    path.write_text(json.dumps({**told, "type": "mel"}))
    with pytest.raises(ValueError, match="config and weights are of no mel"):
        base.load_vocoder(folder)
    path.write_text(json.dumps({**told, "tokenizer_identity": "2b"}))
    with pytest.raises(ValueError, match="is not as it was written"):
        base.load_vocoder(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is no vocoder"):
        base.load_vocoder(folder)
