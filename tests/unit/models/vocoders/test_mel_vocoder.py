"""The offline vocoder: what it says depends on one utterance alone."""

import numpy as np
import pytest
import torch

from speechbrain_slm.models.vocoders.base import load_vocoder
from speechbrain_slm.models.vocoders.log_mel import LogMel
from speechbrain_slm.models.vocoders.mel import MelVocoder

FACTS = ("1a", ["anna", "bruno"], ["en", "fr"])
UNITS = [np.array([3, 1, 4, 1, 5]), np.array([2]), np.array([], np.int64)]


def make(deduplicated=True, **settings):
    torch.manual_seed(1)
    rates = (16000, 25.0, 8)
    sizes = {"width": 16, "fine_width": 8, "num_mels": 20, **settings}
    return MelVocoder(*FACTS, deduplicated, *rates, **sizes)


def test_speech_comes_back_from_its_spectrum():
    places = torch.arange(16000) / 16000
    wav = 0.3 * torch.sin(2 * torch.pi * (300 + 200 * places) * places)
    log_mel = LogMel(16000, 160, 512, 80)
    again = log_mel(log_mel.speech(log_mel(wav)))
    loud = log_mel(wav) > -4
    assert loud.any()
    assert (again - log_mel(wav))[loud].abs().mean() < 0.3


def test_a_batch_says_what_each_says_alone():
    vocoder = make()
    together = vocoder.speak(UNITS, ["anna", "bruno", "anna"], ["en"] * 3)
    names = (["anna", "bruno", "anna"], ["en"] * 3)
    for units, wav, *told in zip(UNITS, together, *names, strict=True):
        (alone,) = vocoder.speak([units], *([name] for name in told))
        assert torch.equal(alone, wav)
        assert len(wav) % 640 == 0
    assert [len(wav) > 0 for wav in together] == [True, True, False]


def test_voices_and_languages_are_heard():
    vocoder, units = make(), UNITS[:1]
    (first,) = vocoder.speak(units, ["anna"], ["en"])
    for told in ((["bruno"], ["en"]), (["anna"], ["fr"]), (["anna"], None)):
        (other,) = vocoder.speak(units, *told)
        assert len(other) != len(first) or not torch.equal(other, first)
    for told, fault in (
        ((["carl"], None), "speaker 'carl' is none"),
        ((None, ["de"]), "language 'de' is none"),
    ):
        with pytest.raises(ValueError, match=fault):
            vocoder.speak(units, *told)
    with pytest.raises(ValueError, match="Are these pieces of BPE"):
        vocoder.speak([np.array([8])])
    for wrong in (np.array([1.5]), np.array([[1, 2]])):
        with pytest.raises(ValueError, match="expected integers"):
            vocoder.speak([wrong])


def test_padding_changes_nothing():
    network = make().network.eval()
    units = torch.tensor([[3, 1, 4], [5, 0, 0]])
    durations = torch.tensor([[2, 1, 3], [2, 0, 0]])
    told = (torch.tensor([0, 1]), torch.tensor([0, 2]))
    both, _ = network(units, torch.tensor([3, 1]), *told, durations)
    one, _ = network(
        units[1:, :1],
        torch.tensor([1]),
        *(number[1:] for number in told),
        durations[1:, :1],
    )
    assert both.shape == (2, 24, 20)
    torch.testing.assert_close(both[1, :8], one[0])


def test_a_unit_each_frame_lasts_one_frame():
    (wav,) = make(deduplicated=False).speak(UNITS[:1])
    assert len(wav) == 640 * len(UNITS[0])
    with pytest.raises(ValueError, match="expected a hop that divides"):
        make(hop=300)


@pytest.mark.parametrize("frames", range(1, 13))
def test_units_of_whole_samples_are_taken(frames):
    """16,000 / (1,000 / 30) is 479.99..., and 480 is meant."""
    rates = (16000, 1000 / (10 * frames), 8)
    vocoder = MelVocoder(*FACTS, False, *rates, width=8)
    (wav,) = vocoder.speak([np.array([3, 1])])
    assert len(wav) == 2 * 160 * frames


def test_saved_and_loaded_it_says_the_same(tmp_path):
    vocoder = make()
    vocoder.network.mean.fill_(-3.0)
    vocoder.save(tmp_path)
    again = load_vocoder(tmp_path)
    assert again.identity == vocoder.identity
    for one, other in zip(
        vocoder.speak(UNITS), again.speak(UNITS), strict=True
    ):
        assert torch.equal(one, other)
