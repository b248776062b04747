"""What tools/slurm.sh starts, by an srun that only says what it was told."""

import os
import subprocess

import pytest
from processes import ROOT

COMMAND = ["train.py", "file.yaml", "--run", "en"]
JOB = {"ID": "12345", "NODELIST": "node[7-8]", "NUM_NODES": "2"}
JOB = {f"SLURM_JOB_{name}": JOB[name] for name in JOB}
JOB["SLURM_CPUS_PER_TASK"] = "16"
ARRAY = {"ID": "5", "MIN": "1", "MAX": "7", "STEP": "2", "COUNT": "4"}
ARRAY = {f"SLURM_ARRAY_TASK_{name}": ARRAY[name] for name in ARRAY}


@pytest.fixture
def slurm(tmp_path):
    for name, script in (
        ("srun", 'printf "%s\\n" "$@" "OMP=$OMP_NUM_THREADS"'),
        ("scontrol", "echo node7; echo node8"),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)

    def start(*arguments, **environment):
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", str(ROOT / "tools" / "slurm.sh"), *arguments],
            env={"PATH": path, **JOB, **environment},
            capture_output=True,
            text=True,
        )

    return start


def told(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_training_on_nodes_of_gpus(slurm):
    lines = told(slurm(*COMMAND, SLURM_RESTART_COUNT="1"))
    assert lines[:2] == ["--kill-on-bad-exit=1", "torchrun"]
    options = {"--nnodes=2", "--nproc_per_node=4", "--rdzv_id=12345-1"}
    assert {*options, "--rdzv_endpoint=node7:32345"} <= set(lines)
    assert lines[-6:] == ["--", *COMMAND, "OMP=4"]


@pytest.mark.parametrize("form", [["--output_folder", "a b"], None])
def test_an_array_job_makes_its_share_in_a_folder_of_its_own(slurm, form):
    arguments = [*COMMAND, *(form or ["--output_folder=a b"]), "--seed", "1"]
    lines = told(slurm(*arguments, **ARRAY, GPUS="2"))
    assert lines[lines.index("--") + 1 : -1] == [
        *COMMAND,
        *(["--output_folder", "a b/2"] if form else ["--output_folder=a b/2"]),
        *("--seed", "1", "--job", "2", "--num_jobs", "4"),
    ]
    assert "--nproc_per_node=2" in lines


def test_without_gpus_there_is_a_rank_for_each_cpu(slurm):
    lines = told(slurm(*COMMAND, GPUS="0"))
    assert "--nproc_per_node=16" in lines
    assert lines[-3:] == ["--device", "cpu", "OMP=1"]
    assert "--nproc_per_node=3" in told(slurm(*COMMAND, GPUS="0", RANKS="3"))


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["train.py"], {}, "usage: sbatch"),
        (COMMAND, {"SLURM_JOB_ID": ""}, "start this script with sbatch"),
        (COMMAND, ARRAY, "array jobs need --output_folder"),
        (COMMAND, {**ARRAY, "SLURM_ARRAY_TASK_COUNT": "3"}, "array with gaps"),
    ],
)
def test_what_cannot_be_is_refused(slurm, arguments, environment, message):
    done = slurm(*arguments, **environment)
    assert done.returncode != 0
    assert message in done.stderr
    assert done.stdout == ""
