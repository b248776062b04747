import json

import pytest
from slm_example import fit_tokenizer
from tiny_models import (
    encode_alone,
    fit,
    save_encoder,
    save_mimi,
    save_whisper,
    speech,
)

from speechbrain_slm.units.tokenizers.mimi import Mimi
from speechbrain_slm.units.tokenizers.saved import load_tokenizer
from speechbrain_slm.units.tokenizers.ssl_kmeans import SSLKMeans
from speechbrain_slm.units.tokenizers.whisper_kmeans import WhisperKMeans


def make(kind, source, seed=0):
    """Return a tokenizer of a tiny pretrained model, which is saved."""
    if kind == "mimi":
        return Mimi(save_mimi(source, seed), num_codebooks=2)
    if kind == "whisper":
        save_whisper(source, seed)
        how = {"silence": 0.1, "deduplicate": False}
        made = WhisperKMeans(source, layer=1, num_clusters=7, **how)
    else:
        save_encoder(source, seed=seed)
        made = SSLKMeans(source, layer=2, num_clusters=7, deduplicate=False)
    return fit(made, speech(16000))


@pytest.mark.parametrize("kind", ["mimi", "ssl", "whisper"])
def test_a_pretrained_tokenizer_is_made_again(tmp_path, kind):
    source, folder = tmp_path / "model", tmp_path / "tokenizer"
    tokenizer = make(kind, source)
    tokenizer.save(folder)
    again, pieces = load_tokenizer(folder, source)
    assert pieces is None
    assert again.identity == tokenizer.identity
    wavs = speech(tokenizer.sample_rate)
    assert encode_alone(again, wavs) == encode_alone(tokenizer, wavs)
    make(kind, tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match=r"not this tokenizer .*weights"):
        load_tokenizer(folder, tmp_path / "other")
    # As an export has it: a path is nobody's business.
    told = json.loads((folder / "tokenizer.json").read_text())
    del told["source"]
    (folder / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(FileNotFoundError, match="say where it is"):
        load_tokenizer(folder)


def test_pieces_come_with_their_tokenizer(tmp_path):
    tokenizer, pieces = fit_tokenizer(tmp_path)
    again, found = load_tokenizer(tmp_path)
    assert (again.identity, found.identity) == (
        tokenizer.identity,
        pieces.identity,
    )


def test_what_is_no_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match="Run the units recipe"):
        load_tokenizer(tmp_path)
    told = {"config": {"type": "os.system"}, "identity": "x"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"type is 'os\.system'; expected one"):
        load_tokenizer(tmp_path)
