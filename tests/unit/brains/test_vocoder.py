"""Training of the offline vocoder: it learns, and resumes exactly."""

import shutil

import numpy as np
import pytest
import torch
from lm_example import HPARAMS

from speechbrain_slm.brains.checkpoints import AtomicCheckpointer
from speechbrain_slm.brains.vocoder import VocoderBrain
from speechbrain_slm.dataio.utterance_plan import UtterancePlan
from speechbrain_slm.models.vocoders.base import load_vocoder
from speechbrain_slm.models.vocoders.mel import MelVocoder
from speechbrain_slm.units.spoken import Spoken

UNITS, STEPS = 6, 8


class Speech:
    """Utterances whose pitch is their unit."""

    train, held = np.arange(10), np.arange(10, 14)

    def read(self, numbers):
        return [self.make(int(number)) for number in numbers]

    @staticmethod
    def make(number):
        generator = np.random.default_rng(number)
        units = np.repeat(generator.integers(0, UNITS, 6), 2 + number % 2)
        pitch = np.repeat(0.1 * (units + 1), 640)
        wav = torch.from_numpy(0.5 * np.sin(np.cumsum(pitch))).float()
        return Spoken(wav, units, number % 2, number // 2 % 2)


def make(folder, learning_rate=0.003, deduplicated=True):
    torch.manual_seed(3)
    names = (["anna", "bruno"], ["en", "fr"])
    sizes = {"width": 16, "fine_width": 8, "num_mels": 20}
    rates = (16000, 25.0, UNITS)
    vocoder = MelVocoder("1a", *names, deduplicated, *rates, **sizes)
    told = {"output_folder": str(folder), "learning_rate": learning_rate}
    return VocoderBrain(
        vocoder,
        Speech(),
        torch.optim.AdamW,
        {**HPARAMS, **told, "valid_interval": 0},
        {"device": "cpu", "noprogressbar": True, "ckpt_interval_steps": 4},
        AtomicCheckpointer(folder / "save"),
    )


def plan(steps=STEPS):
    return UtterancePlan(Speech.train, "data", steps, rows_per_step=4, seed=5)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_resumes_exactly_and_publishes_what_was_trained(tmp_path):
    make(tmp_path / "one").fit(plan())
    whole = files(tmp_path / "one" / "vocoder")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    # As if it was killed behind the first of its two checkpoints.
    shutil.rmtree(tmp_path / "two" / "vocoder")
    shutil.rmtree(tmp_path / "two" / "save" / "CKPT+step-00000008")
    make(tmp_path / "two").fit(plan())
    assert files(tmp_path / "two" / "vocoder") == whole
    vocoder = load_vocoder(tmp_path / "two" / "vocoder")
    (wav,) = vocoder.speak([np.array([1, 2])], ["bruno"], ["fr"])
    assert len(wav) > 0
    assert wav.isfinite().all()


def test_another_run_is_refused(tmp_path):
    make(tmp_path).fit(plan())
    with pytest.raises(ValueError, match="belongs to another run"):
        make(tmp_path, learning_rate=0.1).fit(plan())


@pytest.mark.parametrize("deduplicated", [True, False])
def test_the_loss_is_of_the_frames_alone(tmp_path, deduplicated):
    brain = make(tmp_path, deduplicated=deduplicated)
    brain.measure()
    network = brain.vocoder.network.eval()
    rows = np.array([[0], [1], [13]])
    total = frames = 0
    for part in [rows[:1], rows[1:2], rows[2:]]:
        batch = brain.collate(part)
        count = brain.scored(batch)
        assert count == 4 * len(Speech.make(int(part[0, 0])).units)
        with torch.no_grad():
            total += count * loss_of(brain, network, batch)
        frames += count
    batch = brain.collate(rows)
    assert brain.scored(batch) == frames
    with torch.no_grad():
        together = loss_of(brain, network, batch)
    torch.testing.assert_close(together, total / frames)


def loss_of(brain, network, batch):
    names = ("units", "lengths", "speakers", "languages", "durations")
    outputs = network(*(batch[name] for name in names))
    return brain.compute_objectives(outputs, batch, None)


@pytest.mark.long
def test_it_learns(tmp_path):
    brain = make(tmp_path, learning_rate=0.01)
    brain.fit(plan(60))
    losses = [entry["loss"] for entry in brain.log.entries()]
    assert losses[-1] < 0.6 * losses[0]
