"""Checks 7, 11, 12: training that stops, resumes and splits exactly."""

import pytest
import torch
from processes import (
    ROOT,
    TINY_LM,
    kill,
    lm_command,
    log_entries,
    run,
    start,
    wait_until,
)
from safetensors.torch import load_file


def trained(*arguments, **options):
    """Train to the end; return what was printed."""
    code, text = run(lm_command(*arguments, **options), FAULT="none:0:0")
    assert code == 0, text
    return text


@pytest.fixture(scope="module")
def uninterrupted(units, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    trained(units, output)
    return output


def newest(output):
    return max((output / "save").glob("CKPT+*"))


def assert_equal_tensors(one, other):
    mine = load_file(one)
    for key, value in load_file(other).items():
        assert torch.equal(mine[key], value), key


def test_resume_is_exact(units, uninterrupted, tmp_path):
    """Check 11: killed after step 20, with dropout on."""
    process = start(lm_command(units, tmp_path))
    wait_until(
        lambda: any(entry["step"] >= 25 for entry in log_entries(tmp_path)),
        process,
    )
    kill(process)
    assert not (tmp_path / "run.json").exists()
    assert "Resumed at step" in trained(units, tmp_path)
    assert log_entries(tmp_path) == log_entries(uninterrupted)
    assert log_entries(tmp_path)[-1]["step"] == 40
    mine, other = newest(tmp_path), newest(uninterrupted)
    assert mine.name == other.name
    for name in ("model.ckpt", "optimizer.ckpt"):
        same = (mine / name).read_bytes() == (other / name).read_bytes()
        assert same, name
    weights = "model/model.safetensors"
    assert_equal_tensors(tmp_path / weights, uninterrupted / weights)


def test_finished_run_trains_no_more(units, uninterrupted):
    before = log_entries(uninterrupted)
    weights = uninterrupted / "model" / "model.safetensors"
    modified = weights.stat().st_mtime
    trained(units, uninterrupted)
    assert log_entries(uninterrupted) == before
    assert weights.stat().st_mtime == modified


def test_two_ranks_equal_one(units, tmp_path):
    """Check 12: the same global batches, the same losses (no dropout).

    With one validation row, which leaves the second rank without any.
    """
    lm = TINY_LM["lm"].replace("dropout: 0.1", "dropout: 0.0")
    logs = []
    for ranks in (1, 2):
        output = tmp_path / str(ranks)
        trained(units, output, ranks, lm=lm, valid_rows=1)
        logs.append(log_entries(output))
    assert len(logs[0]) == len(logs[1]) >= 8
    for one, two in zip(*logs, strict=True):
        assert one["step"] == two["step"]
        assert one.get("tokens") == two.get("tokens")
        name = "loss" if "loss" in one else "valid"
        assert one[name] == pytest.approx(two[name], abs=1e-4)


@pytest.mark.parametrize(
    "parallel", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"]
)
def test_nan_on_one_rank_stops_both(units, tmp_path, parallel):
    """Check 7: no hang, no newer checkpoint, the weights of step k - 1."""
    script = ROOT / "tests" / "training.py"
    reference = tmp_path / "reference"
    options = {"ranks": 2, "script": script, "parallel": parallel}
    trained(units, reference, optimizer_step_limit=10, **options)
    output = tmp_path / "faulty"
    arguments = lm_command(units, output, **options)
    code, text = run(arguments, FAULT="nan:1:13")
    assert code != 0
    assert text.count("error: Step 13: loss") == 1
    assert newest(output).name == "CKPT+step-00000010"
    name = "model.ckpt"
    assert_equal_tensors(newest(output) / name, newest(reference) / name)
