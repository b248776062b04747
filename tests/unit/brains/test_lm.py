"""What an LM Brain scores, and what it lets one see early."""

import json
import shutil

import numpy as np
import pytest
import torch
from cloze_example import export
from lm_example import make_brain, make_plan, train
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)

from speechbrain_slm.brains import lm
from speechbrain_slm.brains.lm import LMBrain
from speechbrain_slm.models.attention import block_attention
from speechbrain_slm.models.export import (
    load_speech_lm,
    refuse_foreign_model,
)
from speechbrain_slm.utils.atomic import read_json, write_atomic, write_json

pytestmark = pytest.mark.long

ROWS = np.array([[30, 1, 2, 30, 3, 30, 30, 30], [4, 30, 5, 6, 7, 8, 9, 30]])


def brain_on(units, folder, **changes):
    brain = make_brain(folder, **changes)
    brain.plan, _ = make_plan(units)
    return brain


def test_padding_is_not_scored(units, tmp_path):
    brain = brain_on(units, tmp_path, attention="open")
    batch = brain.collate(ROWS)
    assert batch["labels"].tolist() == [
        [1, 2, 30, 3, 30, -100, -100, -100],
        [30, 5, 6, 7, 8, 9, 30, -100],
    ]
    assert brain.scored(batch) == 12


@pytest.mark.parametrize("attention", ["open", "blocked"])
def test_the_loss_is_the_mean_of_what_is_scored(units, tmp_path, attention):
    """Against sums over log-probabilities, one row at a time."""
    brain = brain_on(units, tmp_path, attention=attention)
    if attention == "blocked":
        block_attention(brain.modules.model)
    batch = brain.collate(ROWS)
    with torch.no_grad():
        predictions = brain.compute_forward(batch, None)
        loss = brain.compute_objectives(predictions, batch, None)
        total, count = 0.0, 0
        for row, scores in zip(ROWS, predictions.log_softmax(-1), strict=True):
            for place in range(len(row) - 1):
                if not row[place] == row[place + 1] == 30:
                    total -= scores[place, row[place + 1]].item()
                    count += 1
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_a_batch_of_padding_costs_nothing(units, tmp_path):
    brain = brain_on(units, tmp_path)
    batch = brain.collate(np.full((2, 8), 30))
    assert brain.scored(batch) == 0
    predictions = torch.zeros(2, 8, 31, requires_grad=True)
    loss = brain.compute_objectives(predictions, batch, None)
    loss.backward()
    assert loss.item() == 0
    assert not predictions.grad.any()


def logs(brain):
    """Lines that any division of a batch must share."""
    clock = ("tokens_per_second", "eta", "memory_GB", "mfu")
    entries = brain.log.entries()
    return [{k: e[k] for k in e if k not in clock} for e in entries]


def test_accumulation_weighs_by_scored_positions(units, tmp_path):
    """The rows are padded, each with another number of positions."""
    one = logs(train(units, tmp_path / "1"))
    for factor in (2, 8):
        folder = tmp_path / str(factor)
        found = logs(train(units, folder, grad_accumulation_factor=factor))
        for left, right in zip(one, found, strict=True):
            for name, value in left.items():
                if name != "seen":
                    assert right[name] == pytest.approx(value, abs=2e-6), name


class MeanOfMeans(LMBrain):
    """What the test above must find."""

    def scored(self, batch):
        return 1


def test_a_mean_of_means_would_be_found(units, tmp_path):
    settings = {"grad_accumulation_factor": 8, "valid_interval": 0}
    one = logs(train(units, tmp_path / "a", **settings))
    settings["brain_class"] = MeanOfMeans
    other = logs(train(units, tmp_path / "b", **settings))
    pair = [[e["loss"] for e in log if "loss" in e] for log in (one, other)]
    assert np.abs(np.diff(pair, axis=0)).max() > 1e-4


def test_blocked_attention_is_what_trains(units, tmp_path):
    one = logs(train(units, tmp_path / "open", attention="open"))
    other = logs(train(units, tmp_path / "blocked"))
    assert one[-2]["loss"] != pytest.approx(other[-2]["loss"], abs=1e-5)


def test_sessions_are_bitwise_repeatable(units, tmp_path):
    settings = {"model_attention_dropout": 0.1, "grad_accumulation_factor": 2}
    one = train(units, tmp_path / "a", **settings)
    train(units, tmp_path / "b", steps=5, **settings)
    other = train(units, tmp_path / "b", **settings)
    # The stop at step 5 made a line there.
    assert [e for e in logs(other) if e["step"] > 6] == [
        e for e in logs(one) if e["step"] > 6
    ]
    for key, value in one.modules.state_dict().items():
        assert torch.equal(other.modules.state_dict()[key], value), key


def test_early_information(units, tmp_path):
    """Every number of the log, and a resumed run's points stand once."""
    settings = {"tensorboard": True, "peak_tflops": 0.05}
    train(units, tmp_path, steps=7, **settings)
    # A run that was killed at step 7 had come as far as the log says, and
    # resumes at step 6.
    newest = max((tmp_path / "save").iterdir())
    assert newest.name == "CKPT+step-00000007"
    newest.rename(tmp_path / "lost")
    brain = train(units, tmp_path, **settings)
    entries = brain.log.entries()
    trained = [entry for entry in entries if "loss" in entry]
    assert [e["step"] for e in trained] == [2, 3, 4, 6, 8, 9, 10, 12]
    last = trained[-1]
    assert last["tokens"] == 12 * 8 * 48 == sum(last["seen"].values())
    assert 0 < last["mfu"] < 1
    assert last["memory_GB"] > 0.1
    assert min(last["seen"]["padding"], last["grad_norm"], last["lr"]) > 0
    assert last["eta"] == "0:00"
    assert set(entries[-1]["valid"]) == {"en", "fr", "interleaved"}
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    for name, steps in (
        ("train/loss", [2, 3, 4, 6, 8, 9, 10, 12]),
        ("seen/fr", [2, 3, 4, 6, 8, 9, 10, 12]),
        ("valid/interleaved", [6, 12]),
    ):
        assert [event.step for event in reader.Scalars(name)] == steps
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["tokens"] == last["seen"]
    assert run["sources"]["interleaved"]["switches"] > 0


def test_nothing_is_shown_that_was_not_asked_for(units, tmp_path):
    brain = train(units, tmp_path, steps=2)
    assert "mfu" not in brain.log.entries()[0]
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize(
    ("plan", "changes", "message"),
    [
        ({}, {"attention": "closed"}, "attention is 'closed'; expected open"),
        ({}, {"vocabulary_size": 31}, r"Set vocabulary_size to 30\."),
        ({"language_tags": ["en", "fr"]}, {}, "language_tags to .'en', 'fr'."),
    ],
)
def test_it_is_refused_at_the_start(units, tmp_path, plan, changes, message):
    with pytest.raises(ValueError, match=message):
        train(units, tmp_path, plan=plan, **changes)
    assert not list(tmp_path.rglob("train_log*"))


@pytest.mark.parametrize(
    "name", ["model/thesis.txt", "model/README.md", "run.json"]
)
def test_what_another_wrote_is_refused_at_the_start(units, tmp_path, name):
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("[]")
    with pytest.raises(FileExistsError, match="stands where"):
        train(units, tmp_path)
    assert theirs.read_text() == "[]"
    assert not list(tmp_path.rglob("train_log*"))


def test_a_model_that_is_exported_anew_loses_nothing_of_a_user(tmp_path):
    folder = export(tmp_path / "model")
    refuse_foreign_model(folder)
    (folder / "README.md").write_text("Edited.")
    refuse_foreign_model(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt, which no export"):
        refuse_foreign_model(folder)


def test_warm_up_anew_in_every_stage(units, tmp_path):
    rates = {}
    for schedule in ("run", "stage"):
        settings = {"schedule": schedule, "log_interval": 1, "warmup": 0.5}
        brain = train(units, tmp_path / schedule, **settings)
        entries = brain.log.entries()
        rates[schedule] = [entry["lr"] for entry in entries if "lr" in entry]
    # Stages of 4 and 8 steps.
    assert np.argmax(rates["run"]) == 5
    assert np.argmax(rates["stage"][:4]) == 1
    assert np.argmax(rates["stage"][4:]) == 3
    assert rates["stage"][4] < rates["stage"][3]


COMMAND = ["/home/me/x/recipes/LM/train.py", "hparams/mini.yaml", "--seed", "7"]


def test_the_exported_folder_says_all_that_its_user_needs(
    units, tmp_path, monkeypatch
):
    """The tokenizer, the model card, and no place on this machine."""
    shutil.copytree(units, tmp_path / "units")
    config = {"type": "hubert_kmeans", "weights": "5e"}
    saved = {"config": config, "identity": "codebook-a"}
    saved["source"] = str(tmp_path / "encoder")
    write_json(tmp_path / "units/tokenizer/tokenizer.json", saved)
    write_atomic(tmp_path / "units/tokenizer/centroids.safetensors", b"c")
    speaker = tmp_path / "vocoder"
    write_json(speaker / "vocoder.json", {"tokenizer_identity": "codebook-a"})
    settings = {"attention": "open", "vocoder_folder": str(speaker)}
    monkeypatch.setattr("sys.argv", [*COMMAND, f"--x={{a: [{tmp_path}/b]}}"])
    brain = train(tmp_path / "units", tmp_path / "lm", **settings)
    folder = tmp_path / "lm" / "model"
    del saved["source"]
    assert read_json(folder / "tokenizer/tokenizer.json") == saved
    assert (folder / "tokenizer/centroids.safetensors").read_bytes() == b"c"
    card = (folder / "README.md").read_text()
    for language, count in brain.plan.count(brain.plan.num_steps).items():
        if language in ("en", "fr"):
            assert f"| {language} | {count:,} |" in card
    assert "12 steps of 8 rows of 48 tokens (best_fit,\nattention open)" in card
    assert "- 1,536 tokens of en 1\n- 3,072 tokens of fr 1, inter" in card
    for path in folder.rglob("*"):
        assert path.is_dir() or bytes(tmp_path) not in path.read_bytes()
    shown = (
        "python recipes/LM/train.py hparams/mini.yaml --seed 7 '--x={a: [b]}'"
    )
    assert f"```bash\n{shown}\n```" in card
    assert "the encoder `encoder`, of the weights `5e`" in card
    assert (folder / "vocoder/vocoder.json").is_file()
    _, told = load_speech_lm(folder)
    facts = ("boundary", "languages", "row_length", "attention", "frame_rate")
    assert [told[name] for name in facts] == [30, ["en", "fr"], 48, "open", 25]
    assert told["base_identity"] == "codebook-a"
    assert told["encoder"] == {"name": "encoder", "weights": "5e"}


def test_a_tokenizer_of_other_units_is_not_published(units, tmp_path, caplog):
    shutil.copytree(units, tmp_path / "units")
    saved = {"config": {}, "identity": "codebook-b"}
    write_json(tmp_path / "units/tokenizer/tokenizer.json", saved)
    train(tmp_path / "units", tmp_path / "lm")
    assert "goes without its tokenizer" in caplog.text
    folder = tmp_path / "lm/model"
    assert not (folder / "tokenizer").exists()
    assert "is not in this folder" in (folder / "README.md").read_text()


def test_a_vocoder_of_other_units_is_refused_at_the_start(units, tmp_path):
    speaker = tmp_path / "vocoder"
    write_json(speaker / "vocoder.json", {"tokenizer_identity": "codebook-b"})
    with pytest.raises(ValueError, match="speaks units of the tokenizer codeb"):
        train(units, tmp_path / "lm", vocoder_folder=str(speaker))
    assert not list((tmp_path / "lm").rglob("train_log*"))


@pytest.mark.parametrize("name", ["saved_files", "model_card"])
def test_what_goes_with_a_model_never_keeps_it_from_being_exported(
    units, tmp_path, monkeypatch, caplog, name
):
    def fail(*arguments):
        raise KeyError("source")

    monkeypatch.setattr(lm, name, fail)
    stages = [{"steps": 1, "mixture": {"en": 1}}]
    train(units, tmp_path, plan={"stages": stages})
    load_speech_lm(tmp_path / "model")
    assert (tmp_path / "run.json").exists()
    assert "KeyError: 'source'" in caplog.text


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_snapshots_are_the_models_of_their_steps(units, tmp_path):
    """Killed behind one, and resumed: made once, and training is the same."""
    train(units, tmp_path / "plain")
    folder = tmp_path / "killed"
    steps = {"snapshot_steps": [4, 12]}
    # Of another training, whose checkpoints are gone.
    save = export(folder / "snapshots/step-000004")
    theirs = (save / "model.safetensors").read_bytes()
    export(folder / "snapshots/step-000009")
    train(units, folder, steps=5, **steps)
    assert [*(folder / "snapshots").iterdir()] == [save]
    made = files(folder / "snapshots")
    assert made["step-000004/model.safetensors"] != theirs
    # From before the snapshot, and then from behind it.
    shutil.rmtree(max((folder / "save").glob("CKPT+*")))
    first = train(units, folder, steps=7, **steps).monitor.first
    brain = train(units, folder, **steps)
    assert (first, brain.monitor.first) == (3, 7)
    end = files(folder / "snapshots")
    assert made.items() <= end.items()
    model, told = load_speech_lm(folder / "snapshots/step-000012")
    whole, also = load_speech_lm(folder / "model")
    assert told["boundary"] == also["boundary"] == 30
    for left, right in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(left, right)
    name = "model/model.safetensors"
    weights = (folder / name).read_bytes()
    assert weights == (tmp_path / "plain" / name).read_bytes()
    seen = read_json(folder / "run.json")["snapshots"]
    assert seen["12"] == read_json(folder / "run.json")["tokens"]
    assert seen["4"] == brain.plan.count(4)
    assert "snapshots" not in read_json(tmp_path / "plain/run.json")
    with pytest.raises(ValueError, match=r"asks for \[7\], and this run res"):
        train(units, folder, snapshot_steps=[7, 12])


@pytest.mark.parametrize("steps", [[13], [0], 4, [True]])
def test_a_snapshot_that_never_comes_is_refused(units, tmp_path, steps):
    with pytest.raises(ValueError, match="a list of steps from 1 to 12"):
        train(units, tmp_path, snapshot_steps=steps)
    assert not list(tmp_path.rglob("train_log*"))
