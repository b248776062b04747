import pytest
import torch
from ctranslate2_example import variables, write
from tiny_models import encode_alone, fit, pad, save_whisper, speech
from transformers import WhisperFeatureExtractor

from speechbrain_slm.units.tokenizers.whisper_kmeans import WhisperKMeans

RATE = 16000


def make(folder, layer=2, **options):
    save_whisper(folder)
    return WhisperKMeans(folder, layer, num_clusters=20, **options)


@pytest.mark.parametrize(
    ("seconds", "silence"), [(1.0, 0.0), (1.0, 30.0), (0.45, 30.0)]
)
def test_a_window_is_what_whisper_computes(tmp_path, seconds, silence):
    model = save_whisper(tmp_path)
    wav = speech(RATE, [seconds])[0]
    how = {"sampling_rate": RATE, "return_tensors": "pt"}
    mel = WhisperFeatureExtractor(chunk_length=2)(wav.numpy(), **how)
    mel = mel.input_features[:, :, :100]
    with torch.no_grad():
        layers = model.encoder(mel, output_hidden_states=True).hidden_states
    for frames_per_unit in (1, 2):
        tokenizer = WhisperKMeans(tmp_path, 1, frames_per_unit, silence)
        (found,) = tokenizer.features(*pad([wav]))
        units = int(seconds * 50) // frames_per_unit
        expected = layers[1][0, : units * frames_per_unit]
        expected = expected.reshape(units, frames_per_unit, 16).mean(dim=1)
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("silence", [0.0, 0.2, 30.0])
def test_a_batch_of_a_gpu_is_as_good_as_one_by_one(tmp_path, silence):
    tokenizer = make(tmp_path, frames_per_unit=1, silence=silence)
    wavs = speech(RATE, (0.31, 1, 0.5))
    with torch.inference_mode():
        together = tokenizer._forward(wavs)
        for wav, found in zip(wavs, together, strict=True):
            (alone,) = tokenizer._forward([wav])
            assert found.shape == (len(wav) // 320, 16)
            assert torch.allclose(found, alone, atol=1e-5)


def test_long_speech_is_cut_into_windows(tmp_path):
    tokenizer = make(tmp_path)
    (wav,) = speech(RATE, [2.31])
    (found,) = tokenizer.features(*pad([wav]))
    parts = [wav[:RATE], wav[RATE : 2 * RATE], wav[2 * RATE :]]
    expected = tokenizer.features(*pad(parts))
    assert [len(part) for part in expected] == [25, 25, 7]
    assert torch.equal(found, torch.cat(expected))


def test_lengths_follow_the_frame_rate(tmp_path):
    wavs = speech(RATE, (0.5, 0.039, 0.04, 0.001))
    tokenizer = fit(make(tmp_path, deduplicate=False), speech(RATE))
    assert tokenizer.frame_rate == 25
    assert [len(u) for u in encode_alone(tokenizer, wavs)] == [12, 0, 1, 0]


def test_a_ctranslate2_folder_is_the_same_tokenizer(tmp_path):
    model = save_whisper(tmp_path / "hf")
    write(tmp_path / "ct2", variables(model.encoder))
    wavs = speech(RATE)
    one, other = (
        fit(WhisperKMeans(tmp_path / name, 2, num_clusters=20), wavs)
        for name in ("hf", "ct2")
    )
    assert one.identity == other.identity
    assert encode_alone(one, wavs) == encode_alone(other, wavs)
