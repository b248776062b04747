"""What is heard of a model in training changes nothing of it."""

import numpy as np
import pytest
import soundfile
import torch
from cloze_example import tiny_model
from lm_example import make_plan, save_vocoder, train
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)

from speechbrain_slm.brains.samples import AudioSamples
from speechbrain_slm.models.attention import block_attention, open_attention
from speechbrain_slm.models.generation import SAMPLING, generate_units

pytestmark = pytest.mark.long
SOURCES = ("en", "fr", "interleaved")


@pytest.fixture
def vocoder(tmp_path):
    return save_vocoder(tmp_path / "vocoder")


def content(folder):
    """What a training leaves behind, but for clocks and the vocoder."""
    model = folder / "model"
    names = ("model.safetensors", "config.json", "generation_config.json")
    return [(model / name).read_bytes() for name in names]


def test_validation_is_heard_and_training_stays_as_it_was(
    units, tmp_path, vocoder
):
    settings = {"model_attention_dropout": 0.1, "valid_interval": 4}
    plain = train(units, tmp_path / "plain", **settings)
    settings |= {"vocoder_folder": vocoder, "audio_samples": 2}
    settings["tensorboard"] = True
    train(units, tmp_path / "heard", steps=9, **settings)
    heard = train(units, tmp_path / "heard", **settings)
    folders = tmp_path / "plain", tmp_path / "heard"
    assert content(folders[0]) == content(folders[1])
    losses = [
        [e["valid"] for e in brain.log.entries() if "valid" in e]
        for brain in (plain, heard)
    ]
    # The stop at step 9 was validated, too.
    assert [losses[1][n] for n in (0, 1, 3)] == losses[0]
    names = [f"{source}-{n}" for source in SOURCES for n in range(2)]
    samples = tmp_path / "heard/samples"
    for step in (4, 8, 12):
        folder = samples / f"step-{step:08d}"
        assert sorted(p.stem for p in folder.iterdir()) == sorted(names)
    sound, rate = soundfile.read(folder / "en-0.flac")
    assert rate == 8000
    assert len(sound) > 200
    assert np.abs(sound).max() > 0
    reader = EventAccumulator(str(tmp_path / "heard/tensorboard"))
    reader.Reload()
    assert set(reader.Tags()["audio"]) == {f"samples/{n}" for n in names}
    assert (tmp_path / "heard/model/vocoder/vocoder.json").is_file()


def test_a_sample_that_fails_is_one_less(
    units, tmp_path, vocoder, monkeypatch, caplog
):
    spoken, speak = [], AudioSamples.speak

    def fail_once(samples, symbols):
        spoken.append(symbols)
        if len(spoken) == 2:
            raise RuntimeError("out of memory")
        return speak(samples, symbols)

    monkeypatch.setattr(AudioSamples, "speak", fail_once)
    how = {"valid_interval": 4, "vocoder_folder": vocoder, "audio_samples": 1}
    train(units, tmp_path, steps=4, **how)
    assert "No audio sample fr-0: out of memory" in caplog.text
    (folder,) = (tmp_path / "samples").iterdir()
    found = {path.stem for path in folder.iterdir()}
    assert found == {"en-0", "interleaved-0"}


def test_what_is_said_goes_on_from_a_story(units, vocoder):
    plan, valid_sets = make_plan(units)
    samples = AudioSamples(plan, vocoder, 3, 7, "cpu", speak=True)
    found = dict(samples.continuations(tiny_model(), valid_sets))
    row = valid_sets["en"][0].tolist()
    story = max(" ".join(map(str, row)).split("30"), key=len).split()
    half = [int(unit) for unit in story[: len(story) // 2]]
    assert found["en-0"][: len(half)].tolist() == half
    assert len(found["en-0"]) > len(half) > 3
    assert max(map(max, found.values())) < plan.boundary
    sound, rate = samples.speak(found["en-0"])
    again, _ = samples.speak(found["en-0"])
    assert torch.equal(sound, again)
    assert rate == 8000


def test_a_codec_is_heard_in_whole_frames(units, vocoder):
    plan, _ = make_plan(units)
    plan.tokenizer = {"config": {"num_codebooks": 3}}
    samples = AudioSamples(plan, vocoder, 2, 7, "cpu", speak=False)
    frame = np.array([1, 11, 21])  # a unit of each codebook
    # The row begins in the middle of one.
    rows = np.roll(np.tile(frame, (2, 5)), 1, axis=1)
    for _, symbols in samples.continuations(tiny_model(), {"en": rows}):
        assert symbols[:6].tolist() == [*frame, *frame]
        assert (symbols // 10).tolist() == [0, 1, 2] * (len(symbols) // 3)


@pytest.mark.parametrize("prepare", [open_attention, block_attention])
def test_attention_as_it_is_trained_continues_alike(prepare):
    model, prepared = tiny_model(), tiny_model()
    prepare(prepared)
    prompts = [[1, 2, 3, 4, 5, 6], [7], [8, 9, 10]]
    how = {"max_units": 20, "seeds": [1, 2, 3], "boundary": 30, **SAMPLING}
    found = [generate_units(m, prompts, **how) for m in (model, prepared)]
    for one, other in zip(*found, strict=True):
        assert one.tolist() == other.tolist()
