import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tiny_models import (
    ENCODERS,
    KINDS,
    check_batch_independence,
    encode_alone,
    fit,
    pad,
    save_encoder,
    speech,
)

from speechbrain_slm.units.tokenizers import pretrained
from speechbrain_slm.units.tokenizers.ssl_kmeans import SSLKMeans

RATE = 16000


def make(folder, kind="hubert", norm="group", layer=2, **options):
    save_encoder(folder, kind, norm)
    return SSLKMeans(folder, layer, num_clusters=20, **options)


@pytest.mark.parametrize(("kind", "norm"), KINDS)
def test_features_are_those_of_the_whole_model_alone(tmp_path, kind, norm):
    tokenizer = make(tmp_path, kind, norm)
    assert len(tokenizer._model.encoder.layers) == tokenizer.layer == 2 < 4
    whole = ENCODERS[kind][1].from_pretrained(tmp_path).eval()
    wavs = speech(RATE)
    for wav, found in zip(wavs, tokenizer.features(*pad(wavs)), strict=True):
        if norm == "layer":
            wav = (wav - wav.mean()) / wav.std(correction=0)
        with torch.no_grad():
            output = whole(wav[None], output_hidden_states=True)
        expected = output.hidden_states[2][0]
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_rounding_in_a_batch_decides_no_unit(tmp_path, monkeypatch):
    """Two centroids on both sides of a frame, as near as rounding is."""
    wavs = speech(RATE)
    tokenizer = make(tmp_path, deduplicate=False)
    alone = tokenizer.features(*pad(wavs[:1]))[0][7]
    together = tokenizer.features(*pad(wavs))[0][7]
    apart = together - alone
    assert 0 < apart.norm() < 1e-5 * alone.norm()
    # The border between two centroids runs half-way between the results; the
    # others are out of reach.
    middle = (alone.double() + together.double()) / 2
    step = 3 * alone.norm() * apart.double() / apart.double().norm()
    centroids = 1000 * torch.randn(20, 32, generator=torch.manual_seed(0))
    centroids[0], centroids[1] = middle - step, middle + step
    tokenizer._set({"centroids": centroids.numpy()}, "a test")
    check_batch_independence(tokenizer, wavs)
    # As if nothing were to be done about it.
    monkeypatch.setattr(pretrained, "UNDECIDED", -1.0)
    found = tokenizer.encode(*pad(wavs))[0]
    assert found.tolist() != encode_alone(tokenizer, wavs[:1])[0]


def test_rate_and_length_follow_the_strides(tmp_path):
    strides = (5, 2, 2, 2, 2, 2, 4)
    save_encoder(tmp_path, conv_stride=strides)
    tokenizer = SSLKMeans(tmp_path, 1, 4, deduplicate=False)
    wavs = speech(RATE, (2.0, 0.01, 0.5))
    two, short, half = tokenizer.features(*pad(wavs))
    assert tokenizer.frame_rate == 25
    assert (len(two), len(short), len(half)) == (50, 0, 12)
    fit(tokenizer, wavs[:1])
    assert encode_alone(tokenizer, wavs)[1] == []


def test_normalization_is_the_preprocessors(tmp_path):
    wav = speech(RATE)[0]
    path = tmp_path / "preprocessor_config.json"
    config = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    save_encoder(tmp_path, **config, conv_bias=True)

    def change(do_normalize):
        if do_normalize is None:
            path.unlink()
        else:
            settings = {"do_normalize": do_normalize, "sampling_rate": RATE}
            path.write_text(json.dumps(settings))
        tokenizer = SSLKMeans(tmp_path, 2, 20)
        one, louder = tokenizer.features(*pad([wav, 3 * wav + 0.1]))
        return (one - louder).abs().max(), tokenizer.config["normalize"]

    # None: as the convolutions are normalized.
    for setting, expected in ((True, True), (None, True), (False, False)):
        path.touch()
        difference, normalize = change(setting)
        assert normalize == (difference < 1e-3) == expected


def test_centroids_from_files(tmp_path):
    wavs = speech(RATE)
    fitted = fit(make(tmp_path), wavs)
    centroids = fitted.tensors["centroids"]
    np.save(tmp_path / "c.npy", centroids)
    save_file({"centroids": centroids}, tmp_path / "c.safetensors")
    for name in ("c.npy", "c.safetensors"):
        tokenizer = SSLKMeans(tmp_path, 2, 20, centroids=tmp_path / name)
        assert tokenizer.fitted
        assert tokenizer.identity == fitted.identity
        assert encode_alone(tokenizer, wavs) == encode_alone(fitted, wavs)
    np.save(tmp_path / "size.npy", centroids[:, :31])
    np.save(tmp_path / "rows.npy", centroids[:19])
    np.save(tmp_path / "pickled.npy", [{}], allow_pickle=True)
    (tmp_path / "km.bin").write_bytes(pickle.dumps(centroids))
    for name, text in {
        "size.npy": r"expected \(20, 32\), found \(20, 31\)",
        "rows.npy": r"found \(19, 32\).*set num_clusters",
        "pickled.npy": "cannot be read: Object arrays",
        "km.bin": r"tools/convert_kmeans\.py",
        "no.npy": "null to fit a codebook",
    }.items():
        tokenizer = SSLKMeans(tmp_path, 2, 20, centroids=tmp_path / name)
        with pytest.raises((ValueError, FileNotFoundError), match=text):
            tokenizer.encode(*pad(wavs))


def test_a_codebook_for_each_language(tmp_path):
    wavs = speech(RATE)
    tokenizer = make(tmp_path, codebooks="language", deduplicate=False)
    frames = [np.asarray(f) for f in tokenizer.features(*pad(wavs))]
    tokenizer.fit({"fr": frames[4:5], "en": frames[1:4]}, seed=0)
    assert tokenizer.vocabulary_size == 40
    english, french = (
        tokenizer.encode(*pad(wavs[:1]), languages=[language])[0]
        for language in ("en", "fr")
    )
    assert 0 <= english.min() <= english.max() < 20
    assert 20 <= french.min() <= french.max() < 40
    tokenizer.save(tmp_path / "saved")
    again = SSLKMeans(tmp_path, 2, 20, codebooks="language", deduplicate=False)
    again.restore(tmp_path / "saved")
    assert again.tensors.keys() == {"centroids.en", "centroids.fr"}
    for languages in (None, ["de"]):
        with pytest.raises(ValueError, match="for en, fr alone"):
            tokenizer.encode(*pad(wavs[:1]), languages=languages)
    file = tmp_path / "saved/centroids.safetensors"
    with pytest.raises(ValueError, match="a codebook for en, fr"):
        SSLKMeans(tmp_path, 2, 20, centroids=file).identity  # noqa: B018


def test_bf16_is_close_and_says_so(tmp_path):
    wavs = speech(RATE)
    exact = fit(make(tmp_path, deduplicate=False), wavs)
    half = SSLKMeans(tmp_path, 2, 20, deduplicate=False, precision="bf16")
    half._set(exact.tensors, "a test")
    one, two = (
        np.concatenate(encode_alone(tokenizer, wavs))
        for tokenizer in (exact, half)
    )
    assert np.mean(one == two) > 0.7


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_models_that_are_not_whole_are_refused(tmp_path):
    def refused(kind, text):
        with pytest.raises(kind, match=text):
            SSLKMeans(tmp_path, 2).config  # noqa: B018

    path = save_encoder(tmp_path, num_hidden_layers=1) / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "num_hidden_layers": 4}))
    refused(ValueError, "would be random")
    (tmp_path / "model.safetensors").unlink()
    refused(FileNotFoundError, "no weights can be read")
    # A pickle is not executed.
    canary = tmp_path / "canary"
    torch.save({"a": Canary(canary)}, tmp_path / "pytorch_model.bin")
    refused(Exception, r"(?i)weights")
    assert not canary.exists()
    path.write_text(json.dumps({**content, "model_type": "bert"}))
    refused(ValueError, "is a bert model; expected hubert")
