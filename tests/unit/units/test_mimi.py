import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import encode_alone, pad, save_mimi, speech
from transformers import MimiModel

from speechbrain_slm.units.tokenizers.mimi import Mimi

RATE = 24000
FRAME = 1920


def test_whole_frames_are_encoded_as_the_model_does(tmp_path):
    save_mimi(tmp_path)
    model = MimiModel.from_pretrained(tmp_path).eval()
    wav = speech(RATE, (1.2,))[0]
    assert len(wav) % FRAME == 0
    with torch.no_grad():
        codes = model.encode(wav[None, None], num_quantizers=2).audio_codes[0]
    units = np.array(encode_alone(Mimi(tmp_path, 2), [wav])[0])
    expected = codes.numpy() + np.array([[0], [64]])
    assert units.tolist() == expected.T.reshape(-1).tolist()
    # The semantic code does not depend on how many others are asked for.
    assert encode_alone(Mimi(tmp_path), [wav])[0] == codes[0].tolist()


def test_empty_waveforms_have_no_units(tmp_path):
    tokenizer = Mimi(save_mimi(tmp_path))
    wavs, lengths = pad([*speech(RATE, (0.3,)), torch.zeros(0)])
    assert [len(units) for units in tokenizer.encode(wavs, lengths)] == [4, 0]
    assert len(tokenizer.encode(wavs[1:, :0], lengths[1:])[0]) == 0


@pytest.mark.parametrize("num_codebooks", [1, 4])
def test_decode_gives_a_waveform_of_that_length(tmp_path, num_codebooks):
    tokenizer = Mimi(save_mimi(tmp_path), num_codebooks)
    units = encode_alone(tokenizer, speech(RATE, (0.5,)))[0]
    assert len(units) == 7 * num_codebooks
    assert max(units) < tokenizer.vocabulary_size == 64 * num_codebooks
    wav = tokenizer.decode(units)
    assert wav.shape == (7 * FRAME,)
    other = tokenizer.decode(units[: 3 * num_codebooks])
    # The decoder is causal, too.
    assert torch.allclose(wav[: 3 * FRAME], other, atol=1e-4)
    assert wav.std() > 0
    if num_codebooks > 1:
        with pytest.raises(ValueError, match="no whole number of frames"):
            tokenizer.decode(units[:-1])
        with pytest.raises(ValueError, match="units out of place"):
            tokenizer.decode(units[::-1])


def test_deduplication_is_off_and_for_one_codebook(tmp_path):
    save_mimi(tmp_path)
    assert not Mimi(tmp_path).deduplicated
    silence = torch.zeros(1, RATE)
    plain, once = (
        Mimi(tmp_path, deduplicate=value).encode(silence, torch.tensor([RATE]))
        for value in (False, True)
    )
    assert len(plain[0]) == 13
    assert len(once[0]) < 13
    assert not (once[0][1:] == once[0][:-1]).any()


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = save_mimi(tmp_path) / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("conv.bias"))
    tensors[name][0] = torch.nan
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"conv\.bias' are not all"):
        Mimi(tmp_path).identity  # noqa: B018


def test_features_that_are_not_finite_give_no_units(tmp_path):
    tokenizer = Mimi(save_mimi(tmp_path))
    wavs, lengths = pad(speech(RATE, (0.5, 0.3)))
    wavs[0, 100] = torch.nan
    broken, whole = tokenizer.encode(wavs, lengths)
    assert broken is None
    assert whole.tolist() == encode_alone(tokenizer, [wavs[1, : lengths[1]]])[0]
