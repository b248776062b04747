"""Check 12: any number of ranks, DDP or FSDP, trains the same model.

Each group of ranks is started once and trains several sessions. All of them
pack stories with padding and block attention between them, so that ranks and
micro-batches score different numbers of positions.
"""

import json
import sys

import pytest
import torch
from lm_example import SOURCES, save_vocoder
from processes import ROOT, log_entries, run
from runs import run_sessions
from safetensors.torch import load_file

from speechbrain_slm.models.export import load_speech_lm

# Session -> its settings; it goes on from a copy of the folder named "from".
FSDP = {"parallel": "fsdp"}
RECOMPUTED = {"model_activation_checkpointing": True}
BF16, UNTIED = {"precision": "bf16"}, {"tie_word_embeddings": False}
HALF = {"steps": 6}
# Open attention is one graph on a CPU, too: with gradients, and without.
GRAPHS = {"compile": True, "attention": "open", "graphs": 2}
PAIRS = {"pairs": True}
# What validation says, and curves; the fixture adds the vocoder.
HEARD = {"audio_samples": 1, "tensorboard": True}
ONE = {"one": {}, "one_graphs": GRAPHS, "one_half": HALF, "one_pairs": PAIRS}
TWO = {
    "ddp_2": HEARD,
    "fsdp_2": FSDP,
    "fsdp_2_parts": FSDP
    | {"snapshot_steps": [12], "grad_accumulation_factor": 2},
    "ddp_2_parts": {"grad_accumulation_factor": 4},
    "fsdp_2_half": FSDP | HALF,
    "ddp_2_half": HALF,
    "fsdp_2_then_ddp_2": {"from": "fsdp_2_half"},
    "one_then_fsdp_2": {"from": "one_half", **FSDP},
    "fsdp_2_recomputed": FSDP | RECOMPUTED,
    "ddp_2_recomputed": RECOMPUTED,
    "fsdp_2_bf16": FSDP | BF16,
    "ddp_2_bf16": BF16,
    "fsdp_2_untied": FSDP | UNTIED,
    "ddp_2_untied": UNTIED,
    "ddp_2_graphs": GRAPHS,
    "fsdp_2_graphs": FSDP | GRAPHS | HEARD,
    "ddp_2_pairs": PAIRS,
    "fsdp_2_pairs": PAIRS | FSDP,
    "ddp_2_pairs_graphs": PAIRS | {"compile": True, "graphs": 2},
}
FOUR = {
    "fsdp_4": FSDP,
    "ddp_4_half": HALF,
    "fsdp_4_half": FSDP | HALF,
    "fsdp_2_then_fsdp_4": {"from": "fsdp_2_half", **FSDP},
    "ddp_2_then_ddp_4": {"from": "ddp_2_half"},
}
AGAIN = {
    "fsdp_4_then_one": {"from": "fsdp_4_half"},
    "ddp_4_then_one": {"from": "ddp_4_half"},
}
COMPILED = {
    "fsdp_2_compiled": {"compile": True, **FSDP},
    "ddp_2_compiled": {"compile": True},
}


def start_ranks(ranks, units, output, sessions):
    script = ROOT / "tests" / "distributed" / "runs.py"
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    start += [f"--nproc_per_node={ranks}", script, units, output]
    start = [*map(str, start), json.dumps(sessions)]
    code, text = run(start, timeout=500, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    assert code == 0, text


@pytest.fixture(scope="module")
def output(units, tmp_path_factory):
    """The folders of all sessions."""
    folder = tmp_path_factory.mktemp("runs")
    run_sessions(units, folder, ONE)
    heard = {"vocoder_folder": save_vocoder(folder / "vocoder")}
    two = {k: v | heard if "audio_samples" in v else v for k, v in TWO.items()}
    start_ranks(2, units, folder, two)
    start_ranks(4, units, folder, FOUR)
    run_sessions(units, folder, AGAIN)
    return folder


def assert_equal_logs(one, other, tolerance=1e-4):
    one, other = log_entries(one), log_entries(other)
    assert len(one) == 10  # Every 2 and every 3 steps; validation twice.
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name, value in left.items():
            if name == "seen":
                assert value == right[name]
            else:
                assert value == pytest.approx(right[name], abs=tolerance), name


PARTIAL = {"steps", "precision", "tie_word_embeddings", "graphs", "pairs"}
FULL = [k for k, v in (TWO | FOUR | AGAIN).items() if not PARTIAL & v.keys()]


@pytest.mark.parametrize("name", FULL)
def test_it_equals_one_process(output, name):
    assert_equal_logs(output / "one", output / name)


@pytest.mark.parametrize("name", ["ddp_2", "fsdp_2"])
def test_compiled_ranks_equal_one_process(output, name):
    assert_equal_logs(output / "one_graphs", output / f"{name}_graphs")


@pytest.mark.parametrize("name", ["ddp_2", "fsdp_2", "ddp_2_pairs_graphs"])
def test_ranks_prefer_as_one_process(output, name):
    """Five pairs are held out, of which a rank has three and one two."""
    name = name if name.endswith("graphs") else f"{name}_pairs"
    one, other = (log_entries(output / n) for n in ("one_pairs", name))
    assert len(one) == 7
    for left, right in zip(one, other, strict=True):
        for key, value in left.items():
            assert right[key] == pytest.approx(value, abs=1e-3), key


@pytest.mark.parametrize("name", ["bf16", "untied"])
def test_fsdp_equals_ddp(output, name):
    tolerance = 3e-2 if name == "bf16" else 1e-4
    pair = (output / f"{kind}_2_{name}" for kind in ("ddp", "fsdp"))
    assert_equal_logs(*pair, tolerance)


@pytest.mark.parametrize("name", ["ddp_2", "fsdp_2_graphs"])
def test_one_rank_speaks_and_draws_curves(output, name):
    sounds = (output / name / "samples").rglob("*.flac")
    steps = "step-00000006", "step-00000012"
    assert sorted(f"{p.parent.name}/{p.stem}" for p in sounds) == [
        f"{step}/{source}-0" for step in steps for source in SOURCES
    ]
    assert len([*(output / name / "tensorboard").iterdir()]) == 1


def newest(folder):
    return max((folder / "save").glob("CKPT+*"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("one", "fsdp_4"),
        ("one", "fsdp_4_then_one"),
        ("ddp_2_untied", "fsdp_2_untied"),
    ],
)
def test_checkpoints_and_exports_have_one_form(output, one, other):
    pair = [newest(output / name) for name in (one, other)]
    left, right = ({p.name for p in folder.iterdir()} for folder in pair)
    assert left == right
    for files in (
        [folder / "model.ckpt" for folder in pair],
        [output / n / "model" / "model.safetensors" for n in (one, other)],
    ):
        left, right = map(load_file, files)
        torch.testing.assert_close(right, left, atol=2e-4, rtol=1e-3)
    left, right = (
        torch.load(folder / "optimizer.ckpt", weights_only=True)
        for folder in pair
    )
    assert left["param_groups"] == right["param_groups"]
    for number, values in left["state"].items():
        for name, value in values.items():
            found = right["state"][number][name]
            assert type(found) is torch.Tensor
            torch.testing.assert_close(found, value, atol=2e-4, rtol=1e-2)


@pytest.mark.parametrize("name", ["fsdp_4", "fsdp_2_untied", "fsdp_2_bf16"])
def test_an_exported_model_is_the_trained_one(output, name):
    folder = output / name
    model, _ = load_speech_lm(folder / "model")
    assert model.config.architectures == ["Qwen2ForCausalLM"]
    assert model.dtype == torch.float32
    saved = load_file(newest(folder) / "model.ckpt")
    tied = name != "fsdp_2_untied"
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    assert (ends[0].weight is ends[1].weight) == tied
    state = model.state_dict()
    assert len(saved) == len(state) - tied
    for key, value in saved.items():
        assert torch.equal(state[key], value), key


def test_ranks_make_a_snapshot_of_whole_weights(output):
    folder = output / "fsdp_2_parts"
    pair = folder / "snapshots/step-000012", folder / "model"
    left, right = (load_speech_lm(one)[0].state_dict() for one in pair)
    for name, value in right.items():
        assert torch.equal(left[name], value), name


@pytest.mark.slow
def test_compiled_ranks(units, output):
    start_ranks(2, units, output, COMPILED)
    for name in COMPILED:
        assert_equal_logs(output / "one", output / name)
