"""What every tokenizer must do, whatever it is made of."""

import json

import pytest
from tiny_models import (
    KINDS,
    check_batch_independence,
    encode_alone,
    fit,
    save_encoder,
    save_mimi,
    save_whisper,
    speech,
)

from speechbrain_slm.units.tokenizers.base import save_description, saved_files
from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans
from speechbrain_slm.units.tokenizers.mimi import Mimi
from speechbrain_slm.units.tokenizers.ssl_kmeans import SSLKMeans
from speechbrain_slm.units.tokenizers.whisper_kmeans import WhisperKMeans


def mel(folder, **options):
    return MelKMeans(20, **options)


def ssl(folder, layer=2, seed=0, kind="hubert", norm="group", **options):
    settings = {"conv_pos_batch_norm": True} if norm == "batch" else {}
    norm = "group" if norm == "batch" else norm
    save_encoder(folder, kind, norm, seed, **settings)
    return SSLKMeans(folder, layer, 20, **options)


def whisper(folder, layer=2, seed=0, **options):
    save_whisper(folder, seed)
    return WhisperKMeans(folder, layer, num_clusters=20, **options)


def mimi(folder, seed=0, **options):
    return Mimi(save_mimi(folder, seed), **options)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (mel, {}),
        *((ssl, {"kind": kind, "norm": norm}) for kind, norm in KINDS),
        (ssl, {"norm": "batch"}),
        *((whisper, {"silence": seconds}) for seconds in (0.0, 0.2, 30.0)),
        *((mimi, {"num_codebooks": number}) for number in (1, 3)),
    ],
)
def test_units_do_not_depend_on_batch_mates(tmp_path, make, options):
    tokenizer = make(tmp_path, deduplicate=False, **options)
    wavs = speech(tokenizer.sample_rate)
    if not tokenizer.fitted:
        fit(tokenizer, wavs)
    check_batch_independence(tokenizer, wavs)


@pytest.mark.parametrize(
    ("make", "choices"),
    [
        (mel, [{"num_mfcc": 12}, {"context_frames": 1}]),
        (ssl, [{"seed": 1}, {"layer": 3}, {"precision": "bf16"}]),
        (
            whisper,
            [{"seed": 1}, {"layer": 1}, {"frames_per_unit": 1}, {"silence": 0}],
        ),
        (mimi, [{"seed": 1}, {"num_codebooks": 2}, {"precision": "bf16"}]),
    ],
)
def test_configuration_names_weights_and_choices(tmp_path, make, choices):
    choices = [{}, *choices, {"deduplicate": make is mimi}]
    configs = [
        make(tmp_path / str(number), **chosen).config
        for number, chosen in enumerate(choices)
    ]
    assert all(configs.count(config) == 1 for config in configs)


@pytest.mark.parametrize("kind", [SSLKMeans, WhisperKMeans])
def test_a_saved_tokenizer_is_restored_from_a_moved_model(tmp_path, kind):
    make = {SSLKMeans: ssl, WhisperKMeans: whisper}[kind]
    wavs = speech(16000)
    tokenizer = fit(make(tmp_path / "model"), wavs)
    tokenizer.save(tmp_path / "saved")
    (tmp_path / "model").rename(tmp_path / "moved")
    restored = kind(tmp_path / "moved", 2, num_clusters=20)
    restored.restore(tmp_path / "saved")
    assert restored.identity == tokenizer.identity
    assert encode_alone(restored, wavs) == encode_alone(tokenizer, wavs)
    other = kind(tmp_path / "moved", 1, num_clusters=20)
    with pytest.raises(ValueError, match="layer: expected 1, found 2"):
        other.restore(tmp_path / "saved")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda folder: ssl(folder, 5), "layer is 5.*1 to 4"),
        (lambda folder: whisper(folder, 3), "layer is 3.*1 to 2"),
        (lambda folder: mimi(folder, num_codebooks=5), "num_codebooks is 5"),
        (lambda _: Mimi("any", 2, deduplicate=True), "2 codebooks; expected F"),
        (lambda folder: Mimi(save_encoder(folder)), "hubert.*expected mimi"),
        (
            lambda folder: WhisperKMeans(save_encoder(folder), 1),
            "is a hubert model; expected whisper",
        ),
        (
            lambda _: SSLKMeans("any", 1, precision="fp16"),
            "one of fp32, tf32, bf16",
        ),
        (lambda _: MelKMeans(codebooks="both"), "one of joint, language"),
        (lambda _: MelKMeans(normalization="variance"), "one of none, mean"),
    ],
)
def test_choices_that_cannot_be_are_refused(tmp_path, make, text):
    with pytest.raises(ValueError, match=text):
        make(tmp_path).config  # noqa: B018


@pytest.mark.parametrize("kind", [SSLKMeans, WhisperKMeans, Mimi])
def test_a_model_that_is_not_there_says_what_to_fetch(kind):
    text = "hf download no/such-model --local-dir"
    with pytest.raises(FileNotFoundError, match=text):
        kind("no/such-model", 1).config  # noqa: B018


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        (None, None),  # a tokenizer without a model
        ("facebook/hubert", "facebook/hubert"),
        ("/somebody/models/hubert", None),
        (".", None),
    ],
)
def test_what_is_published_with_a_model_names_no_path(tmp_path, source, kept):
    save_description(tmp_path, {}, "1a", source)
    found = json.loads(saved_files(tmp_path, "1a")["tokenizer.json"])
    assert (found.get("source"), found["identity"]) == (kept, "1a")
    assert saved_files(tmp_path, "2b") == {}
