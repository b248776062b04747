"""What stands beside results says how these were made, and nothing else."""

import importlib.metadata
from pathlib import Path

import pytest
import torch

from speechbrain_slm.utils import config, experiment
from speechbrain_slm.utils.jobs import FolderInUse


@pytest.fixture
def begin(monkeypatch, tmp_path):
    """Begin a run in a folder, as a process of its own would."""
    logger = experiment.sb.utils.logger
    monkeypatch.setattr(logger, "setup_logging", lambda *options: None)
    monkeypatch.setattr(experiment, "_locks", [])
    monkeypatch.setattr(experiment.atexit, "register", print)
    script = tmp_path / "train.py"
    monkeypatch.setattr(experiment.sys, "argv", [str(script)])

    def begin(text):
        monkeypatch.setattr(experiment, "_pending", [])
        for lock in experiment._locks:
            lock.close()
        script.write_text(text)
        experiment.begin_experiment(tmp_path / "run", "a.yaml", text)

    yield begin
    for lock in experiment._locks:
        lock.close()


def described(folder):
    text = (folder / "train.py").read_text("utf-8")
    origin = f"# Resolved from {Path('a.yaml').resolve()}\n"
    assert (folder / "hyperparams.yaml").read_text("utf-8") == origin + text
    return text


def test_a_refused_run_leaves_the_description_of_the_other(
    begin, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    begin("seed: 1\n")
    assert described(folder) == "seed: 1\n"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    begin("seed: 2\n")
    monkeypatch.setattr(experiment, "has_failed", lambda: True)
    experiment._end_experiment()
    assert described(folder) == "seed: 1\n"
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_a_run_that_is_allowed_describes_itself(begin, tmp_path):
    begin("seed: 1\n")
    begin("seed: 2\n")
    experiment._end_experiment()
    assert described(tmp_path / "run") == "seed: 2\n"
    begin("seed: 3\n")
    experiment.work_begins()
    assert described(tmp_path / "run") == "seed: 3\n"


def test_a_folder_in_use_is_refused_untouched(begin, tmp_path):
    with experiment.lock_folder(tmp_path / "run"):
        with pytest.raises(FolderInUse):
            begin("seed: 1\n")
        assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]


def test_the_packages_are_those_of_the_python_that_runs(tmp_path, monkeypatch):
    (tmp_path / "pip").write_text("#!/bin/sh\necho another==1.0\n")
    (tmp_path / "pip").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    lines = experiment.environment().splitlines()
    for name in ("torch", "speechbrain", "pytest"):
        assert f"{name}=={importlib.metadata.version(name)}" in lines
    assert "another==1.0" not in lines


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("cuda", "cuda:0"):
        config.check_device(name)
    for name, message in (
        ("cuda:7", "'cuda:7'; this machine has 1 GPU "),
        *((name, "expected cpu or cuda") for name in ("0", "cuda:x", "meta")),
    ):
        with pytest.raises(ValueError, match=message):
            config.check_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"'cuda'; this machine has no GPUs"):
        config.check_device("cuda")
    tree = {"tts": [{"device": "cuda:1"}], "device": "cpu"}
    assert set(config._devices(tree)) == {"cuda:1", "cpu"}
