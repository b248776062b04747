import json
import shutil
import sys

import pytest
import torch
from tiny_models import (
    check_batch_independence,
    encode_alone,
    randomize,
    speech,
)

from speechbrain_slm.units.tokenizers.speech_tokenizer import SpeechTokenizer

RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Save a model of the package's class; skip where it is missing."""
    package = pytest.importorskip("speechtokenizer")
    folder = tmp_path_factory.mktemp("speech_tokenizer")
    config = dict(n_filters=4, dimension=16, semantic_dimension=24)
    config |= dict(lstm_layers=2, bidirectional=True, dilation_base=2)
    config |= dict(residual_kernel_size=3, n_residual_layers=1, n_q=3)
    config |= dict(activation="ELU", sample_rate=RATE, codebook_size=32)
    config["strides"] = [8, 5, 4, 2]
    torch.manual_seed(0)
    model = randomize(package.SpeechTokenizer(config), 0)
    for name, buffer in model.named_buffers():
        if name.endswith("embed"):
            buffer.copy_(torch.randn(buffer.shape))
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), folder / "SpeechTokenizer.pt")
    return folder


@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_units_do_not_depend_on_batch_mates(folder, num_codebooks):
    tokenizer = SpeechTokenizer(folder, num_codebooks)
    wavs = speech(RATE)
    assert tokenizer.frame_rate == 50 * num_codebooks
    check_batch_independence(tokenizer, wavs)
    for wav, units in zip(wavs, encode_alone(tokenizer, wavs), strict=True):
        assert len(units) == -(-len(wav) // 320) * num_codebooks
        assert max(units) < tokenizer.vocabulary_size == 32 * num_codebooks


def test_decode_gives_a_waveform_of_that_length(folder):
    tokenizer = SpeechTokenizer(folder, 3)
    units = encode_alone(tokenizer, speech(RATE, (0.5,)))[0]
    assert tokenizer.decode(units).shape == (25 * 320,)


def test_identity_names_weights_and_choices(folder, tmp_path):
    first = SpeechTokenizer(folder)
    weights = torch.load(folder / "SpeechTokenizer.pt")
    next(iter(weights.values())).add_(1)
    torch.save(weights, tmp_path / "SpeechTokenizer.pt")
    shutil.copy(folder / "config.json", tmp_path)
    others = [
        SpeechTokenizer(tmp_path),
        SpeechTokenizer(folder, 2),
        SpeechTokenizer(folder, deduplicate=True),
    ]
    assert len({tokenizer.identity for tokenizer in [first, *others]}) == 4


def refused(text, *arguments):
    kinds = (FileNotFoundError, ValueError, ImportError)
    with pytest.raises(kinds, match=text):
        SpeechTokenizer(*arguments).config  # noqa: B018


def test_what_cannot_be_loaded(folder, tmp_path):
    refused("hf download no/such-model", "no/such-model")
    refused(r"config\.json does not", tmp_path)
    refused("num_codebooks is 4", folder, 4)


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "speechtokenizer", None)
    refused("pip install speechtokenizer beartype", "fnlp/SpeechTokenizer")
