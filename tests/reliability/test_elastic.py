"""Check 14: a rank dies, torchrun starts the ranks again, the run goes on.

What a hang would look like: the other ranks wait in a collective call for one
that is gone. gloo and NCCL notice that at once on one node, else after the
group's timeout (speechbrain_slm.utils.distributed.TIMEOUT); torchrun ends the
others as soon as one has died. Here a test ends after five minutes.
"""

import pytest
from processes import ROOT, lm_command, log_entries, run

SCRIPT = ROOT / "tests" / "training.py"


@pytest.fixture(scope="module")
def uninterrupted(units, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    assert train(units, output, "none:0:0") == (0, 0)
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
        (0, 3, "ddp"),
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


def test_it_does_not_go_on_for_ever(units, tmp_path):
    """The fault comes back: after one restart torchrun gives up."""
    code, _ = train(units, tmp_path, "nan:1:13")
    assert code != 0
    assert log_entries(tmp_path)[-1]["step"] == 10
    assert not (tmp_path / "run.json").exists()
