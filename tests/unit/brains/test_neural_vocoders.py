"""Training of the neural vocoders: who learns when, and exact resuming."""

import functools

import numpy as np
import pytest
import torch
from lm_example import HPARAMS
from speechbrain.lobes.models import HifiGAN
from tiny_models import save_mimi

from speechbrain_slm.brains.acoustic import AcousticBrain
from speechbrain_slm.brains.checkpoints import AtomicCheckpointer
from speechbrain_slm.brains.hifigan import HifiganBrain
from speechbrain_slm.dataio.utterance_plan import UtterancePlan
from speechbrain_slm.models.vocoders.base import load_vocoder
from speechbrain_slm.models.vocoders.codec import CodecVocoder
from speechbrain_slm.models.vocoders.conditioning import Durations
from speechbrain_slm.models.vocoders.hifigan import HifiganVocoder
from speechbrain_slm.units.spoken import Spoken
from speechbrain_slm.units.tokenizers.base import deduplicate
from speechbrain_slm.units.tokenizers.mimi import Mimi

UNITS, BOOKS, HOP = 8, 3, 20
SIZES = {
    "embedding_dim": 8,
    "conditioning_dim": 4,
    "upsample_factors": [5, 4],
    "upsample_kernel_sizes": [11, 8],
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 2, 3]],
    "duration_hidden_size": 8,
}
ACOUSTIC = {"num_codebooks": BOOKS, "hidden_size": 32, "dilations": [1]}
RUN_OPTS = {"device": "cpu", "noprogressbar": True, "ckpt_interval_steps": 3}


class Speech:
    """Utterances whose pitch is their unit; the codes follow from it, too."""

    speakers, languages = ("anna", "bruno"), ("en", "fr")
    train, held = np.arange(12), np.arange(12, 16)

    def read(self, numbers):
        return [self.make(int(number)) for number in numbers]

    @staticmethod
    def make(number):
        generator = np.random.default_rng(number)
        units = np.repeat(generator.integers(0, UNITS, 12), 3)
        pitch = np.repeat(0.05 * (units + 1), HOP)
        wav = torch.from_numpy(0.5 * np.sin(np.cumsum(pitch))).float()
        codes = np.stack([units, 5 * units + number % 2, 63 - units], axis=1)
        return Spoken(wav, units, number % 2, number // 2 % 2, codes)


class Judge(torch.nn.Module):
    """A discriminator of two layers."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv1d(1, 8, 9, 4)
        self.last = torch.nn.Conv1d(8, 1, 3)

    def forward(self, wavs):
        found = torch.relu(self.first(wavs))
        score = self.last(found)
        return [score[:, 0]], [[found, score]]


def hparams(folder, **values):
    return {
        **HPARAMS,
        "output_folder": str(folder),
        "learning_rate": 0.003,
        "segment_frames": 12,
        "generator_loss": HifiGAN.GeneratorLoss(
            mseg_loss=HifiGAN.MSEGLoss(),
            mseg_loss_weight=1,
            feat_match_loss=HifiGAN.MelganFeatureLoss(),
            feat_match_loss_weight=10,
            l1_spec_loss=HifiGAN.L1SpecLoss(
                *(1600, 20, 64), n_mel_channels=8, n_fft=64, mel_fmax=800
            ),
            l1_spec_loss_weight=45,
        ),
        "discriminator_loss": HifiGAN.DiscriminatorLoss(HifiGAN.MSEDLoss()),
        **values,
    }


def gan(folder, kind=HifiganBrain, deduplicated=True, run_opts=(), **values):
    torch.manual_seed(0)
    vocoder = HifiganVocoder(
        *("1a", Speech.speakers, Speech.languages, deduplicated),
        *(1600, 80.0, UNITS),
        **SIZES,
    )
    return kind(
        vocoder,
        Speech(),
        functools.partial(torch.optim.AdamW, betas=(0.8, 0.99)),
        hparams(folder, **values),
        {**RUN_OPTS, **dict(run_opts)},
        AtomicCheckpointer(folder / "save"),
        {"discriminator": Judge()},
    )


def plan(steps=6, rows=4):
    return UtterancePlan(Speech.train, "2b", steps, rows, seed=7)


class WatchedBrain(HifiganBrain):
    """Says which weights each half of a step changes."""

    def update(self, optimizer, loss):
        before = {k: v.clone() for k, v in self.modules.state_dict().items()}
        norm = super().update(optimizer, loss)
        now = self.modules.state_dict()
        changed = {k for k in now if not torch.equal(now[k], before[k])}
        self.halves.append({name.partition(".")[0] for name in changed})
        learnt = [self.modules.discriminator.first.weight.grad is None]
        self.grads += learnt
        return norm


@pytest.mark.parametrize("deduplicated", [False, True])
def test_each_half_of_a_step_changes_one_of_the_two(tmp_path, deduplicated):
    brain = gan(tmp_path, WatchedBrain, deduplicated)
    brain.halves, brain.grads = [], []
    brain.fit(plan(steps=2))
    assert brain.halves == [{"discriminator"}, {"generator"}] * 2
    assert all(brain.grads)  # none is left for the next step
    judge = brain.modules.discriminator
    assert all(one.requires_grad for one in judge.parameters())


def test_a_resumed_run_is_the_same(tmp_path):
    """Both networks, both optimizers, segments and what is not told."""
    whole = gan(tmp_path / "whole")
    whole.fit(plan(), {"held_out": Speech.held[:, None]})
    first = gan(tmp_path / "run", run_opts={"optimizer_step_limit": 3})
    first.fit(plan())
    assert not (tmp_path / "run" / "vocoder").exists()
    resumed = gan(tmp_path / "run")
    resumed.fit(plan(), {"held_out": Speech.held[:, None]})
    expected = whole.modules.state_dict()
    for name, tensor in resumed.modules.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    one, other = (
        brain.log.entries()[-1]["valid"] for brain in (whole, resumed)
    )
    assert one == other
    loaded = load_vocoder(tmp_path / "run" / "vocoder")
    assert loaded.identity == whole.vocoder.identity


@pytest.mark.parametrize("deduplicated", [False, True])
def test_parts_of_a_step_add_up(tmp_path, deduplicated):
    """Utterances are of unequal numbers of units."""
    options = {"grad_accumulation_factor": 2}
    how = {"deduplicated": deduplicated}
    brains = [gan(tmp_path / "1", **how)]
    brains += [gan(tmp_path / "2", run_opts=options, **how)]
    for brain in brains:
        # Adam makes a whole step of the rounding of a gradient that is 0.
        brain.opt_class = torch.optim.SGD
        brain.told_languages = lambda batch, stage: batch["languages"]
        if deduplicated:
            brain.vocoder.network.durations.predictor.dropout = 0.0
        brain.fit(plan(steps=2))
    losses = [brain.log.entries()[-1]["loss"] for brain in brains]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    one, other = (brain.modules.state_dict() for brain in brains)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-5, rtol=0)


def test_durations_count_as_the_codes_of_their_utterance_do():
    predicted = torch.randn(3, 5)
    frames = torch.tensor([[1, 2, 3, 4, 5], [2, 1, 0, 0, 0], [9, 9, 9, 0, 0]])
    lengths = frames.sum(dim=1)
    whole = Durations.loss(predicted, frames, lengths)
    parts = [
        Durations.loss(predicted[rows], frames[rows], lengths[rows])
        * (lengths[rows].sum() / lengths.sum())
        for rows in ([0], [1, 2])
    ]
    assert torch.isclose(sum(parts), whole)
    error = (predicted[1, :2] - torch.tensor([2.0, 1.0]).log()).square()
    assert torch.isclose(
        Durations.loss(predicted[1:2], frames[1:2]), error.mean()
    )


def test_what_is_kept_in_memory_is_bounded(tmp_path):
    brain, read = gan(tmp_path), []
    example = brain.example
    brain.example = lambda number: read.append(number) or example(number)
    size = sum(tensor.nbytes for tensor in brain.cached(0).values())
    brain._room = int(1.5 * size)  # for one more
    for _ in range(2):
        for number in range(3):
            assert brain.cached(number)["speakers"] == number % 2
    assert read == [0, 1, 2, 2]


@pytest.mark.parametrize("half", ["generator", "discriminator"])
def test_what_is_not_finite_stops_the_run(tmp_path, half):
    brain = gan(tmp_path)
    loss = getattr(brain.hparams, f"{half}_loss")
    key = {"generator": "G_loss", "discriminator": "D_loss"}[half]
    forward = loss.forward

    def broken(*arguments):
        found = forward(*arguments)
        return found | {key: found[key] * float("nan")}

    loss.forward = broken
    with pytest.raises(FloatingPointError, match="Step 0: loss nan"):
        brain.fit(plan())
    assert not list((tmp_path / "save").glob("CKPT*"))


def test_other_segments_are_another_run(tmp_path):
    gan(tmp_path).fit(plan(steps=3))
    with pytest.raises(ValueError, match="belongs to another run"):
        gan(tmp_path, segment_frames=10).fit(plan(steps=3))


def test_sharding_is_refused(tmp_path):
    with pytest.raises(ValueError, match="parallel is fsdp; expected ddp"):
        gan(tmp_path, parallel="fsdp")


@pytest.mark.long
def test_it_learns_to_speak(tmp_path):
    """Units of which it is told nothing else, for as long as they last."""
    options = {"valid_interval": 10, "learning_rate": 0.01}
    brain = gan(tmp_path, run_opts={"ckpt_interval_steps": 0}, **options)
    brain.fit(plan(steps=80), {"held": Speech.held[:, None]})
    distances = [
        e["valid"]["held"] for e in brain.log.entries() if "valid" in e
    ]
    assert distances[-1] < 0.8 * distances[0]
    one = Speech.make(12)
    units = deduplicate(one.units)
    (wav,) = load_vocoder(brain.folder).speak([units], ["anna"], ["en"])
    assert len(wav) == pytest.approx(len(one.wav), rel=0.4)


@pytest.mark.long
@pytest.mark.parametrize("deduplicated", [False, True])
def test_acoustic_codes_are_learnt(tmp_path, deduplicated):
    source = save_mimi(tmp_path / "mimi")
    tokenizer = Mimi(source, deduplicate=deduplicated)
    torch.manual_seed(0)
    vocoder = CodecVocoder(
        tokenizer, Speech.speakers, Speech.languages, ACOUSTIC
    )
    brain = AcousticBrain(
        vocoder,
        Speech(),
        torch.optim.AdamW,
        hparams(tmp_path, valid_interval=10, learning_rate=0.01),
        {**RUN_OPTS, "ckpt_interval_steps": 0},
        AtomicCheckpointer(tmp_path / "save"),
    )
    brain.fit(plan(steps=80), {"held": Speech.held[:, None]})
    losses = [e["valid"]["held"] for e in brain.log.entries() if "valid" in e]
    # As good as sure, of 64 codes (4.2 nats) at first.
    assert losses[-1] < 0.2 < losses[0]
    loaded = load_vocoder(tmp_path / "vocoder", tokenizer)
    one = Speech.make(13)
    units = one.units
    if deduplicated:
        units = deduplicate(units)
    (wav,) = loaded.speak([units], ["bruno"], ["fr"])
    if not deduplicated:
        assert torch.equal(wav, tokenizer.waveform(one.codes.T.copy()))
    assert len(wav) == pytest.approx(1920 * len(one.units), rel=0.2)
