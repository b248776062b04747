"""Ranks train the vocoder that one process trains."""

import sys

import pytest
import torch
from processes import ROOT, run
from safetensors.torch import load_file
from vocoder_runs import KINDS, train

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", name="output")
def _output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocoders")
    train(folder / "1")
    script = ROOT / "tests" / "distributed" / "vocoder_runs.py"
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    start += ["--nproc_per_node=2", str(script), str(folder / "2")]
    paths = f"{ROOT}:{ROOT / 'tests'}"
    code, text = run(start, timeout=300, PYTHONPATH=paths)
    assert code == 0, text
    return folder


def weights_of(output, name):
    path = f"{name}/vocoder/vocoder.safetensors"
    return (load_file(output / ranks / path) for ranks in ("1", "2"))


@pytest.mark.parametrize("name", KINDS)
def test_it_equals_one_process(output, name):
    one, two = weights_of(output, name)
    torch.testing.assert_close(two, one, atol=3e-4, rtol=0)
