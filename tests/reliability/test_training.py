"""Checks 7, 11, 12: training that stops, resumes and splits exactly."""

import hashlib

import pytest
import torch
from processes import (
    LM,
    ROOT,
    TINY_LM,
    command,
    kill,
    log_entries,
    run,
    start,
    wait_until,
)
from safetensors.torch import load_file

YAML = LM / "hparams" / "mini.yaml"


def lm_command(units, output, ranks=1, script=LM / "train.py", **overrides):
    settings = {**TINY_LM, "units_folder": units, "output_folder": output}
    return command(script, YAML, ranks, **{**settings, **overrides})


@pytest.fixture(scope="module")
def uninterrupted(units, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    code, text = run(lm_command(units, output))
    assert code == 0, text
    return output


def newest(output):
    return max((output / "save").glob("CKPT+*"))


def test_resume_is_exact(units, uninterrupted, tmp_path):
    """Check 11: killed after step 20, with dropout on."""
    process = start(lm_command(units, tmp_path))
    wait_until(
        lambda: any(entry["step"] >= 25 for entry in log_entries(tmp_path)),
        process,
    )
    kill(process)
    assert not (tmp_path / "run.json").exists()
    code, text = run(lm_command(units, tmp_path))
    assert code == 0, text
    assert "Resumed at step" in text
    assert log_entries(tmp_path) == log_entries(uninterrupted)
    assert log_entries(tmp_path)[-1]["step"] == 40
    assert newest(tmp_path).name == newest(uninterrupted).name
    for name in ("model.ckpt", "optimizer.ckpt"):
        digests = [
            hashlib.sha256((newest(folder) / name).read_bytes()).hexdigest()
            for folder in (tmp_path, uninterrupted)
        ]
        assert digests[0] == digests[1], name
    weights = "model/model.safetensors"
    mine = load_file(tmp_path / weights)
    for key, value in load_file(uninterrupted / weights).items():
        assert torch.equal(mine[key], value), key


def test_finished_run_trains_no_more(units, uninterrupted):
    before = log_entries(uninterrupted)
    modified = (uninterrupted / "model" / "model.safetensors").stat().st_mtime
    code, text = run(lm_command(units, uninterrupted))
    assert code == 0, text
    assert log_entries(uninterrupted) == before
    after = (uninterrupted / "model" / "model.safetensors").stat().st_mtime
    assert after == modified


def test_two_ranks_equal_one(units, tmp_path):
    """Check 12: the same global batches, the same losses (no dropout).

    With one validation row, which leaves the second rank without any.
    """
    lm = TINY_LM["lm"].replace("dropout: 0.1", "dropout: 0.0")
    logs = []
    for ranks in (1, 2):
        output = tmp_path / str(ranks)
        code, text = run(
            lm_command(units, output, ranks=ranks, lm=lm, valid_rows=1)
        )
        assert code == 0, text
        logs.append(log_entries(output))
    assert len(logs[0]) == len(logs[1]) >= 8
    for one, two in zip(*logs, strict=True):
        assert one["step"] == two["step"]
        if "loss" in one:
            assert one["tokens"] == two["tokens"]
            assert one["loss"] == pytest.approx(two["loss"], abs=1e-4)
        else:
            assert one["valid"] == pytest.approx(two["valid"], abs=1e-4)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_nan_on_one_rank_stops_both(units, tmp_path, parallel):
    """Check 7: no hang, no newer checkpoint, the weights of step k - 1."""
    script = ROOT / "tests" / "training.py"
    reference = tmp_path / "reference"
    options = {"ranks": 2, "script": script, "parallel": parallel}
    arguments = lm_command(units, reference, **options)
    code, text = run(
        [*arguments, "--optimizer_step_limit", "10"], FAULT="none:0:0"
    )
    assert code == 0, text
    output = tmp_path / "faulty"
    arguments = lm_command(units, output, **options)
    code, text = run(arguments, FAULT="nan:1:13")
    assert code != 0
    assert text.count("error: Step 13: loss") == 1
    assert newest(output).name == "CKPT+step-00000010"
    mine = load_file(newest(output) / "model.ckpt")
    expected = load_file(newest(reference) / "model.ckpt")
    for key, value in expected.items():
        assert torch.equal(mine[key], value), key
