import json
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
    config = {
        "n_filters": 4,
        "dimension": 16,
        "semantic_dimension": 24,
        "strides": [8, 5, 4, 2],
        "lstm_layers": 2,
        "bidirectional": True,
        "dilation_base": 2,
        "residual_kernel_size": 3,
        "n_residual_layers": 1,
        "activation": "ELU",
        "sample_rate": RATE,
        "n_q": 3,
        "codebook_size": 32,
    }
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
    (tmp_path / "config.json").write_bytes(
        (folder / "config.json").read_bytes()
    )
    others = [
        SpeechTokenizer(tmp_path),
        SpeechTokenizer(folder, 2),
        SpeechTokenizer(folder, deduplicate=True),
    ]
    assert len({tokenizer.identity for tokenizer in [first, *others]}) == 4


def test_what_cannot_be_loaded(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="hf download no/such-model"):
        SpeechTokenizer("no/such-model").config  # noqa: B018
    with pytest.raises(FileNotFoundError, match=r"config\.json does not"):
        SpeechTokenizer(tmp_path).config  # noqa: B018
    with pytest.raises(ValueError, match="num_codebooks is 4"):
        SpeechTokenizer(folder, 4).config  # noqa: B018


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "speechtokenizer", None)
    text = "pip install speechtokenizer beartype"
    with pytest.raises(ImportError, match=text):
        SpeechTokenizer("fnlp/SpeechTokenizer").config  # noqa: B018
