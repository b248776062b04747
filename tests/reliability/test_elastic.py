"""Check 14: a rank dies, torchrun starts the ranks again, the run goes on.

What a hang would look like: the other ranks wait in a collective call for one
that is gone. gloo and NCCL notice that at once where a process has ended, and
torchrun ends the others; one that is stopped, or whose machine is gone, is
noticed by its heartbeat. Here a test ends after five minutes.
"""

import re

import pytest
from processes import (
    ROOT,
    by_hand,
    free_port,
    lm_command,
    log_entries,
    run,
    start,
)

SCRIPT = ROOT / "tests" / "training.py"
LIMIT = 4  # seconds


@pytest.fixture(scope="module")
def uninterrupted(units, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    # A rank that is slow is waited for, longer than for one that is lost.
    slow = f"slow:1:25:{output / 'slow'}:{2 * LIMIT}"
    output /= "run"
    found = train(units, output, slow, heartbeat_timeout=LIMIT)
    assert found == (0, 0)
    return output


def train(units, output, fault, **overrides):
    """Return the exit code, and how many times the run was resumed."""
    arguments = lm_command(units, output, 2, SCRIPT, restarts=1, **overrides)
    code, text = run(arguments, timeout=300, FAULT=fault)
    return code, text.count("Resumed at step")


@pytest.mark.parametrize(
    ("rank", "step", "parallel"),
    [
        (1, 25, "ddp"),
        pytest.param(0, 3, "ddp", marks=pytest.mark.slow),
        pytest.param(1, 25, "fsdp", marks=pytest.mark.slow),
    ],
)
def test_a_killed_rank(units, uninterrupted, tmp_path, rank, step, parallel):
    """The main rank, which holds the folder, or another one.

    At step 25 there is a checkpoint of step 20; at step 3 there is none.
    """
    output = tmp_path / "run"
    fault = f"kill:{rank}:{step}:{tmp_path / 'died'}"
    code, resumed = train(units, output, fault, parallel=parallel)
    assert code == 0
    assert (tmp_path / "died").exists()
    assert resumed == (step > 20)
    expected, found = log_entries(uninterrupted), log_entries(output)
    if parallel == "ddp":
        assert found == expected
    else:
        for one, two in zip(found, expected, strict=True):
            assert one["step"] == two["step"]
            if "loss" in one:
                assert one["loss"] == pytest.approx(two["loss"], abs=1e-4)
    assert list(output.rglob(".tmp-*")) == []
    assert (output / "run.json").exists()


def test_a_stopped_rank(units, uninterrupted, tmp_path):
    """Without torchrun, which would end the other one itself."""
    settings = {"heartbeat_timeout": LIMIT}
    arguments = lm_command(units, tmp_path / "run", 1, SCRIPT, **settings)
    fault, port = f"stop:1:25:{tmp_path / 'stopped'}", free_port()
    ranks = [start(arguments, FAULT=fault, **by_hand(n, port)) for n in (0, 1)]
    try:
        text, _ = ranks[0].communicate(timeout=120)
        assert ranks[1].poll() is None
    finally:
        for rank in ranks:
            rank.kill()
    assert ranks[0].returncode == 1
    (line,) = [one for one in text.splitlines() if "error: " in one]
    assert "Rank 1 has shown no sign of life for 4 s" in line
    waited = re.search(
        r"Rank 0 has stood for (\d+) s after step 25 of 40", line
    )
    assert LIMIT - 1 <= int(waited[1]) <= LIMIT + 3
    assert "accumulate > backward (update.py, line" in line
    # The ranks exchange gradients in there.
    assert "self.scaler.scale(loss).backward()" in line
    code, resumed = train(units, tmp_path / "run", fault)
    assert (code, resumed) == (0, 1)
    assert log_entries(tmp_path / "run") == log_entries(uninterrupted)


def test_it_does_not_go_on_for_ever(units, tmp_path):
    """The fault comes back: after one restart torchrun gives up."""
    code, _ = train(units, tmp_path, "nan:1:13")
    assert code != 0
    assert log_entries(tmp_path)[-1]["step"] == 10
    assert not (tmp_path / "run.json").exists()
