"""Curves of other loggers than our own, beside the log."""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lm_example import train
from speechbrain.utils.train_logger import FileTrainLogger

from speechbrain_slm.brains.loggers import TrainLoggerBoard
from speechbrain_slm.utils.config import load_yaml

pytestmark = pytest.mark.long
FRAGMENT = Path(__file__).parents[3] / "hparams/loggers/wandb.yaml"


class FakeRun:
    """A run of wandb, as far as a training sees it."""

    def __init__(self, **options):
        self.options, self.logged, self.finished = options, [], False

    def log(self, values, step=None):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    """A module in place of wandb, which notes its runs."""
    runs = []

    def init(**options):
        runs.append(FakeRun(**options))
        return runs[-1]

    module = SimpleNamespace(init=init, runs=runs, Audio=lambda *a, **k: (a, k))
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def fragment(folder):
    return load_yaml(FRAGMENT, {"output_folder": str(folder)})


def test_weights_and_biases_by_yaml_goes_on_where_a_run_resumes(
    units, tmp_path, wandb
):
    plain = train(units, tmp_path / "plain")
    train(units, tmp_path, steps=7, train_logger=fragment(tmp_path))
    brain = train(units, tmp_path, train_logger=fragment(tmp_path))
    first, second = wandb.runs
    assert first.options == second.options
    assert first.options["resume"] == "allow"
    assert first.options["project"] == "speechbrain_slm"
    assert first.finished
    assert second.finished
    logged = [*first.logged, *second.logged]
    # The stop at step 7 made lines there.
    assert [step for step, values in logged if "train" in values] == [
        *(2, 3, 4, 6, 7, 8, 9, 10, 12)
    ]
    step, values = second.logged[-1]
    assert step == values["epoch"] == 12
    assert set(values["valid"]) == {"en", "fr", "interleaved"}
    values = second.logged[-2][1]["train"]
    last = [e for e in brain.log.entries() if "loss" in e][-1]
    assert values["loss"] == last["loss"]
    assert values["seen_fr"] == last["seen"]["fr"]
    for key, value in plain.modules.state_dict().items():
        assert torch.equal(brain.modules.state_dict()[key], value), key


def test_speechbrains_own_loggers_fit(units, tmp_path):
    path = tmp_path / "stats.txt"
    train(units, tmp_path, train_logger=partial(FileTrainLogger, str(path)))
    lines = path.read_text().splitlines()
    assert lines[-1].startswith("epoch: 12 - valid en: 3.")


@pytest.mark.parametrize("there", [False, True])
def test_a_logger_that_does_not_open_says_why(tmp_path, wandb, there):
    def refuse(**options):
        raise RuntimeError("api_key not configured")

    if there:
        wandb.init, reason = refuse, "RuntimeError: api_key not conf"
    else:
        # As Python marks what cannot be imported.
        sys.modules["wandb"], reason = None, "ModuleNotFoundError: .*wandb"
    with pytest.raises(ValueError, match=rf"cannot be opened \({reason}"):
        TrainLoggerBoard(fragment(tmp_path))


def test_training_goes_on_without_a_logger_that_fails(
    units, tmp_path, wandb, caplog
):
    def lost(self, values, step=None):
        raise ConnectionError("no route")

    wandb.init = lambda **options: SimpleNamespace(log=partial(lost, None))
    brain = train(units, tmp_path, train_logger=fragment(tmp_path))
    assert brain.log.entries()[-1]["step"] == 12
    assert caplog.text.count("TrainLoggerBoard gets no more curves: no") == 1
