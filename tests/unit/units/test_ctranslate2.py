import pytest
import torch
from ctranslate2_example import quantize, small_encoder, variables, write

from speechbrain_slm.units.tokenizers.ctranslate2 import load_whisper_encoder
from speechbrain_slm.utils.whisper_weights import MODEL_BIN, is_ctranslate2


def output(encoder):
    mel = torch.randn(1, 80, 100, generator=torch.manual_seed(1))
    with torch.no_grad():
        return encoder(mel).last_hidden_state


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    zip(
        ("float32", "float16", "bfloat16", "int16", "int8"),
        (0.0, 1e-3, 1e-2, 1e-2, 4e-2),
        strict=True,
    ),
)
def test_weights_are_those_that_were_stored(tmp_path, kind, tolerance):
    encoder = small_encoder()
    folder = write(tmp_path, quantize(variables(encoder), kind), kind=kind)
    assert is_ctranslate2(folder)
    read = load_whisper_encoder(folder)
    expected = encoder.state_dict()
    for name, tensor in read.state_dict().items():
        error = (tensor - expected[name]).abs().max()
        assert error <= tolerance * expected[name].abs().max(), name
    difference = (output(read) - output(encoder)).abs().max()
    assert difference <= 10 * tolerance
    # A coarse type must have changed something, or it was not tried.
    assert (difference > 0) == (tolerance > 0)


def test_equal_variables_are_stored_once(tmp_path):
    encoder = small_encoder()
    with torch.no_grad():
        for layer in encoder.layers:
            layer.fc1.weight.copy_(encoder.layers[0].fc1.weight)
    found = quantize(variables(encoder), "int8")
    alias, first = (f"encoder/layer_{n}/ffn/linear_0/weight" for n in (1, 0))
    name = "decoder/shared/weight"
    for suffix in ("", "_scale"):
        del found[alias + suffix]
        found[name + suffix] = found[first + suffix]
    read = load_whisper_encoder(write(tmp_path, found, [(alias, name)]))
    one, other = (layer.fc1.weight for layer in read.layers)
    assert torch.equal(one, other)


def test_damaged_files_are_named(tmp_path):
    found = variables(small_encoder())
    path = write(tmp_path, found) / MODEL_BIN
    content = path.read_bytes()
    sizes = (0, 3, 10, 40, len(content) // 2, len(content) - 1)
    for damaged in (*(content[:size] for size in sizes), content + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.bin is truncated"):
            load_whisper_encoder(tmp_path)


def test_other_models_are_refused(tmp_path):
    found = variables(small_encoder())
    lacking = {n: v for n, v in found.items() if n != "encoder/conv2/bias"}
    for content, header, text in (
        (found, {"version": 5}, "version 5; expected WhisperSpec"),
        (found, {"spec": "TransformerSpec"}, "found TransformerSpec"),
        (lacking, {}, "no 'encoder/conv2/bias'"),
    ):
        write(tmp_path, content, **header)
        with pytest.raises(ValueError, match=text):
            load_whisper_encoder(tmp_path)
