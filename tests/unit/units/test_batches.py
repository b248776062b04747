"""Batches on a device: late units, float64 for doubt, products of matrices."""

import copy

import numpy as np
import pytest
import torch
from tiny_models import (
    check_batch_independence,
    encode_alone,
    fit,
    pad,
    save_encoder,
    save_mimi,
    speech,
)
from torch import nn

from speechbrain_slm.units import audio
from speechbrain_slm.units.tokenizers import (
    batches,
    codebook,
    convolutions,
    mimi,
    pretrained,
)
from speechbrain_slm.units.tokenizers.convolutions import use_products
from speechbrain_slm.units.tokenizers.mimi import Mimi
from speechbrain_slm.units.tokenizers.ssl_kmeans import SSLKMeans

SECONDS = (0.31, 0.9, 1.2345, 0.55, 0.1, 0.9)


@pytest.fixture
def products(monkeypatch):
    """Have the CPU convolve as GPUs do."""
    for module in (convolutions, mimi):
        monkeypatch.setattr(module, "applies", lambda hidden: True)


def make(folder, kind, **options):
    if kind is Mimi:
        return Mimi(save_mimi(folder), **options)
    save_encoder(folder)
    options = {"num_clusters": 20, "deduplicate": False, **options}
    return fit(SSLKMeans(folder, 2, **options), speech(16000, SECONDS))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((8, 6, 3), {}),
        ((8, 6, 3), {"stride": 2, "bias": False}),
        ((8, 6, 8), {"stride": 4}),
        ((8, 6, 7), {"stride": 3}),
        ((8, 6, 1), {}),
        ((1, 6, 10), {"stride": 5}),
        ((8, 6, 3), {"groups": 2}),
        ((64, 6, 4), {"groups": 2, "padding": 2}),
        ((32, 8, 3), {"groups": 2, "stride": 2, "bias": False}),
        ((8, 6, 3), {"dilation": 2}),
        ((8, 6, 3), {"padding": 1}),
        ((8, 6, 3), {"padding": "same"}),
        ((8, 6, 3), {"padding": 1, "padding_mode": "replicate"}),
    ],
)
@pytest.mark.parametrize("length", [3, 10, 11, 97])
def test_products_are_convolutions(products, precision, shape, options, length):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(*shape, **options))
    wav = torch.randn(3, shape[0], length)
    if length < (shape[2] - 1) * options.get("dilation", 1) + 1:
        length = shape[2] + 8
        wav = torch.randn(3, shape[0], length)
    half = torch.autocast("cpu", enabled=precision is torch.bfloat16)
    with torch.no_grad(), half:
        # Of a slice, whose strides are not those of its shape, too.
        wide = torch.randn(3, shape[0], length + 5)[:, :, 2:-3]
        expected = [model(one) for one in (wav, wide)]
        use_products(model)
        found = [model(one) for one in (wav, wide)]
    near = {"atol": 1e-5} if precision is torch.float32 else {"atol": 0.1}
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype == precision
        assert torch.allclose(one, other, **near)


@pytest.mark.parametrize("doubled", [False, True])
def test_positional_convolutions_are_products(products, monkeypatch, doubled):
    """HuBERT's: in groups, its weights normalized; float64 is a copy."""
    torch.manual_seed(0)
    conv = nn.Conv1d(96, 96, 128, padding=64, groups=4)
    conv = nn.utils.parametrizations.weight_norm(conv, dim=2)
    model = nn.Sequential(conv).requires_grad_(False)
    wavs = torch.randn(3, 96, 70)
    exact = copy.deepcopy(model).double()(wavs.double())
    names = list(model.state_dict())
    use_products(model)
    use_products(model)  # once more changes nothing
    kind = torch.float64 if doubled else torch.float32
    model = copy.deepcopy(model).to(kind)
    monkeypatch.delattr(nn.Conv1d, "forward")
    found = model(wavs.to(kind))
    assert list(model.state_dict()) == names
    assert found.dtype == kind
    wrong = (found - exact).abs().max() / exact.abs().max()
    assert wrong < (1e-14 if doubled else 1e-6)


def test_a_codec_of_products_gives_the_same_units(tmp_path, monkeypatch):
    tokenizer = make(tmp_path, Mimi, num_codebooks=3)
    wavs = pad(speech(24000, SECONDS))
    library = tokenizer.encode(*wavs)
    used = []
    for module in (convolutions, mimi):
        monkeypatch.setattr(module, "applies", lambda _: not used.append(1))
    for one, other in zip(tokenizer.encode(*wavs), library, strict=True):
        assert one.tolist() == other.tolist()
    assert used


def test_features_of_products_are_those_of_convolutions(tmp_path, monkeypatch):
    tokenizer = make(tmp_path, SSLKMeans)
    wavs = pad(speech(16000, SECONDS))
    library = tokenizer.features(*wavs)
    monkeypatch.setattr(convolutions, "applies", lambda _: True)
    for one, other in zip(tokenizer.features(*wavs), library, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("kind", [Mimi, SSLKMeans])
def test_what_is_doubtful_is_settled_over_batches(tmp_path, monkeypatch, kind):
    """All frames doubtful: float64 alone decides, in batches of its own."""
    tokenizer = make(tmp_path, kind)
    rate = tokenizer.sample_rate
    wavs = speech(rate, SECONDS)
    decided = encode_alone(tokenizer, wavs)
    for module in (pretrained, mimi):
        monkeypatch.setattr(module, "UNDECIDED", 1e9)
    started, start = [], tokenizer._start

    def watched(wavs, lengths, languages, precision):
        started.append((precision, len(wavs)))
        return start(wavs, lengths, languages, precision)

    monkeypatch.setattr(tokenizer, "_start", watched)
    given = [
        (*pad(wavs[i:][:2]), None if kind is Mimi else ["en"] * 2)
        for i in range(0, len(wavs), 2)
    ]
    empty = torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64), []
    given.insert(1, empty)
    found = list(tokenizer.encode_batches(given))
    assert [len(batch) for batch in found] == [2, 0, 2, 2]
    units = [units.tolist() for batch in found for units in batch]
    assert units == decided
    exact = [count for precision, count in started if precision == "fp64"]
    assert sum(exact) == len(wavs)
    # The next batch is with the device before the first one is settled.
    assert [precision for precision, _ in started[:2]] == ["fp32"] * 2
    # What would not fit in float64 is computed alone.
    monkeypatch.setattr(batches, "EXACT_SECONDS", 0)
    started.clear()
    units = [
        batch for part in tokenizer.encode_batches(given) for batch in part
    ]
    assert [one.tolist() for one in units] == decided
    assert started.count(("fp32", 1)) == len(wavs)


def test_units_wait_for_few_batches(tmp_path, monkeypatch):
    tokenizer = make(tmp_path, Mimi)
    # Which sets how much is settled at once: more than comes together.
    first = pad(speech(24000, (3.0, 0.1, 0.1)))
    batch = pad(speech(24000, (0.1, 0.1)))
    monkeypatch.setattr(mimi, "UNDECIDED", 1e9)
    monkeypatch.setattr(batches, "LATE", 3)
    taken = []

    def given():
        for number in range(9):
            taken.append(number)
            yield (*(batch if number else first), None)

    next(tokenizer.encode_batches(given()))
    assert len(taken) == 3 + 2


@pytest.mark.parametrize("kind", [Mimi, SSLKMeans])
def test_a_lower_precision_says_what_it_changes(tmp_path, kind):
    wavs = pad(speech(16000, (8.0, 5.0)))
    exact = make(tmp_path / "a", kind)
    exact.precision, before = "bf16", exact.identity
    share = exact.share_changed(*wavs, None)
    half = exact.encode(*wavs)
    exact.precision = "fp32"
    assert exact.share_changed(*wavs, None) == 0
    full = exact.encode(*wavs)
    assert exact.identity == before
    differ = np.concatenate(half) != np.concatenate(full)
    assert share == pytest.approx(differ.mean())
    assert 0 < share < 0.5


@pytest.mark.parametrize("kind", [Mimi, SSLKMeans])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_distances_are_in_float32(tmp_path, monkeypatch, kind, precision):
    seen = []
    nearest = codebook.Codebook.nearest

    def told(self, points):
        half = torch.is_autocast_enabled("cpu")
        seen.append((torch.get_float32_matmul_precision(), half))
        return nearest(self, points)

    monkeypatch.setattr(codebook.Codebook, "nearest", told)
    tokenizer = make(tmp_path, kind)
    tokenizer.precision = precision
    # As SpeechBrain's quirks leave it.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        tokenizer.encode(*pad(speech(16000, (0.9, 0.5))))
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) == {("highest", False)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", [Mimi, SSLKMeans])
def test_on_a_gpu_units_are_those_of_the_cpu(tmp_path, kind):
    tokenizer = make(tmp_path, kind)
    wavs = speech(tokenizer.sample_rate, SECONDS)
    expected = encode_alone(tokenizer, wavs)
    tokenizer.to("cuda")
    check_batch_independence(tokenizer, wavs)
    given = [(*audio.pad(wavs[i:][:2], pinned=True), None) for i in range(5)]
    for i, units in enumerate(tokenizer.encode_batches(given)):
        assert [one.tolist() for one in units] == expected[i:][:2]


def test_tf32_is_allowed_inside_and_as_before_outside():
    matmul = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.allow_tf32
    seen = {}
    for precision in ("fp32", "tf32"):
        with pretrained.inference(torch.device("cpu"), precision):
            seen[precision] = (
                torch.get_float32_matmul_precision(),
                torch.backends.cudnn.allow_tf32,
            )
    assert seen == {"fp32": ("highest", False), "tf32": ("high", True)}
    assert torch.get_float32_matmul_precision() == matmul
    assert torch.backends.cudnn.allow_tf32 == cudnn
