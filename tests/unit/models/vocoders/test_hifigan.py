"""Unit HiFi-GAN: who speaks is heard, what stands beside it is not."""

import numpy as np
import pytest
import torch

from speechbrain_slm.models.vocoders.base import load_vocoder
from speechbrain_slm.models.vocoders.hifigan import (
    Discriminator,
    HifiganVocoder,
)

SIZES = {
    "embedding_dim": 8,
    "conditioning_dim": 8,
    "upsample_factors": [5, 4],
    "upsample_kernel_sizes": [11, 8],
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 3]],
    "duration_hidden_size": 8,
}
SPEAKERS, LANGUAGES = ["anna", "bruno"], ["en", "fr"]


def make(deduplicated=False, seed=0):
    """Make a vocoder of 1,600 Hz whose every weight matters."""
    torch.manual_seed(seed)
    vocoder = HifiganVocoder(
        "1a", SPEAKERS, LANGUAGES, deduplicated, 1600, 80.0, 20, **SIZES
    )
    with torch.no_grad():
        for name, one in vocoder.network.named_parameters():
            if name.endswith("original0"):
                one.mul_(3)  # a layer's gain
    return vocoder


def sentences(seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 20, n) for n in (0, 1, 3, 40, 17, 90)]


@pytest.mark.parametrize("deduplicated", [False, True])
def test_units_sound_the_same_alone_and_in_a_batch(deduplicated):
    vocoder = make(deduplicated)
    units, who = sentences(), ["anna", "bruno"] * 3
    languages = ["fr", "en", "en", "fr", "fr", "en"]
    together = vocoder.speak(units, who, languages)
    for one, name, language, wav in zip(
        units, who, languages, together, strict=True
    ):
        (alone,) = vocoder.speak([one], [name], [language])
        torch.testing.assert_close(wav, alone, rtol=0, atol=5e-5)
        assert len(wav) >= 20 * len(one)
        assert len(one) == 0 or wav.std() > 0.01


def test_reach_is_as_far_as_a_sample_sees():
    vocoder = make()
    network, units = vocoder.network, torch.full((1, 120), 3)
    changed = units.clone()
    changed[:, 60] = 4
    told = network.conditioning(torch.tensor([0]), torch.tensor([1]))
    one, other = (network.generate(u, told)[0] for u in (units, changed))
    frames = (one != other).reshape(-1, 20).any(dim=1).nonzero()[:, 0]
    assert 60 - network.reach <= frames.min() < 60 < frames.max()
    # Rounded up, layer by layer.
    assert network.reach - 5 <= frames.max() - 60 <= network.reach


def test_a_duration_is_of_speaker_and_context():
    vocoder = make(deduplicated=True)
    with torch.no_grad():
        vocoder.network.durations.predictor.proj.bias.fill_(1.5)
    one, other = (
        len(vocoder.speak([sentences()[5]], [name])[0]) // 20
        for name in SPEAKERS
    )
    assert one != other
    assert 90 < min(one, other) < max(one, other) < 9000


def test_speaker_and_language_are_heard():
    vocoder = make()
    units = sentences()[3:4]
    options = [(["anna"], ["en"]), (["bruno"], ["en"]), (["anna"], None)]
    options += [(["anna"], ["fr"])]
    found = [vocoder.speak(units, *one)[0] for one in options]
    for number, wav in enumerate(found):
        for other in found[number + 1 :]:
            assert (wav - other).abs().max() > 1e-3
    assert torch.equal(vocoder.speak(units)[0], found[2])


def test_folder(tmp_path):
    """Weight norm is folded in, and what is loaded sounds the same."""
    vocoder = make(deduplicated=True)
    vocoder.save(tmp_path)
    loaded = load_vocoder(tmp_path)
    assert loaded.identity == vocoder.identity
    assert loaded.deduplicated
    assert loaded.sample_rate == 1600
    units = sentences()
    trained = vocoder.network.state_dict()
    assert any("parametrizations" in name for name in trained)
    names = loaded.network.state_dict()
    assert not any("parametrizations" in name for name in names)
    for one, other in zip(
        vocoder.speak(units), loaded.speak(units), strict=True
    ):
        torch.testing.assert_close(one, other, atol=5e-5, rtol=0)
    # What a folder holds can be saved again.
    loaded.save(tmp_path / "again")
    assert load_vocoder(tmp_path / "again").identity == vocoder.identity


def test_what_cannot_be_spoken_is_refused():
    vocoder = make()
    with pytest.raises(ValueError, match="speaker 'eve' is none that the"):
        vocoder.speak([np.array([1])], ["eve"])
    with pytest.raises(ValueError, match="2 languages are named for 1 utt"):
        vocoder.speak([np.array([1])], None, ["en", "fr"])
    with pytest.raises(ValueError, match=r"units from 3 to 20; .* has 20"):
        vocoder.speak([np.array([3, 20])])
    with pytest.raises(ValueError, match="make 20 samples of a frame; exp"):
        HifiganVocoder("1a", ["a"], ["en"], False, 1600, 50.0, 20, **SIZES)


@pytest.mark.parametrize(("periods", "scales"), [((2, 3), 0), ((3,), 1)])
def test_some_discriminators(periods, scales):
    scores, features = Discriminator(periods, scales)(torch.randn(2, 1, 900))
    assert len(scores) == len(features) == len(periods) + scales
