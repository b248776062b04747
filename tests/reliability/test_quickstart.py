"""The quickstart, killed in each stage, ends with the same results.

Takes twice the quickstart's time and more: `bash tools/test.sh --slow`.
"""

import json
import os
import random
import signal
import sys
import time

import pytest
from processes import ROOT, start

STAGES = (
    "synthesis/train.py",
    "units/train.py",
    "vocoder/train.py",
    "LM/hparams/mini.yaml --run en_fr",
    "LM/hparams/mini.yaml --run interleaved_ft",
    "cloze/hparams/mini.yaml --run en_fr",
    "cloze/hparams/mini.yaml --run interleaved_ft",
    "alignment/hparams/mini.yaml --run interleaved_ft",
    "continuation/hparams/mini.yaml --run interleaved_ft",
    "tools/report.py",
)


def quickstart(folder, log):
    """Start the quickstart in this test's own environment."""
    script = f"exec bash tools/quickstart.sh --output_folder {folder} > {log}"
    return start(["bash", "-c", f"cd {ROOT} && {script} 2>&1"], VENV=sys.prefix)


def wait_for(process, log, stage, limit=1200):
    """Wait until the log shows that a stage has begun."""
    end = time.time() + limit
    while time.time() < end:
        if log.exists() and stage in log.read_text():
            return
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.2)
    raise AssertionError(f"{stage} did not begin in {limit} s")


@pytest.mark.slow
def test_kill_in_every_stage(tmp_path):
    seed = int(os.environ.get("KILL_SEED", "1986"))
    generator = random.Random(seed)
    log = tmp_path / "killed.log"
    for stage in STAGES:
        process = quickstart(tmp_path / "killed", log)
        wait_for(process, log, stage)
        # Past the imports, into the work; the last stages are short.
        short = stage == STAGES[-1] or stage.startswith("alignment")
        longest = 6 if short else 25
        time.sleep(generator.uniform(1, longest))
        # The script alone: what it runs has to end with it.
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    for name in ("killed", "whole"):
        process = quickstart(tmp_path / name, tmp_path / f"{name}.log")
        process.communicate(timeout=3000)
        assert process.returncode == 0, (tmp_path / f"{name}.log").read_text()
    for run in ("en_fr", "interleaved_ft"):
        name = f"LM/{run}/model/model.safetensors"
        killed = (tmp_path / "killed" / name).read_bytes()
        assert killed == (tmp_path / "whole" / name).read_bytes()
    killed, records = (
        json.loads((tmp_path / name / "results.json").read_text())
        for name in ("killed", "whole")
    )
    assert killed == records
    assert len(records) == 16
    budgets = [record["tokens"] for record in records]
    for budget in budgets:
        assert budget == pytest.approx(budgets[0], rel=0.01)
