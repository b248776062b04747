"""Check 12: any number of ranks, DDP or FSDP, trains the same model.

Each group of ranks is started once and trains several sessions. All of them
pack stories with padding and block attention between them, so that ranks and
micro-batches score different numbers of positions.
"""

import json
import sys

import pytest
import torch
from processes import ROOT, log_entries, run
from runs import run_sessions
from safetensors.torch import load_file

from speechbrain_slm.models.export import load_speech_lm

HALF = 6
ONE = [{"name": "one"}, {"name": "one_half", "steps": HALF}]
TWO = [
    {"name": "ddp_2"},
    {"name": "fsdp_2", "parallel": "fsdp"},
    {"name": "fsdp_2_parts", "parallel": "fsdp", "grad_accumulation_factor": 2},
    {"name": "ddp_2_parts", "grad_accumulation_factor": 4},
    {"name": "fsdp_2_half", "parallel": "fsdp", "steps": HALF},
    {"name": "ddp_2_half", "steps": HALF},
    {"name": "fsdp_2_then_ddp_2", "from": "fsdp_2_half"},
    {"name": "one_then_fsdp_2", "from": "one_half", "parallel": "fsdp"},
    {
        "name": "fsdp_2_recomputed",
        "parallel": "fsdp",
        "model_activation_checkpointing": True,
    },
    {"name": "ddp_2_recomputed", "model_activation_checkpointing": True},
    {"name": "fsdp_2_bf16", "parallel": "fsdp", "precision": "bf16"},
    {"name": "ddp_2_bf16", "precision": "bf16"},
    {
        "name": "fsdp_2_untied",
        "parallel": "fsdp",
        "tie_word_embeddings": False,
    },
    {"name": "ddp_2_untied", "tie_word_embeddings": False},
]
FOUR = [
    {"name": "fsdp_4", "parallel": "fsdp"},
    {"name": "ddp_4_half", "steps": HALF},
    {"name": "fsdp_4_half", "parallel": "fsdp", "steps": HALF},
    {"name": "fsdp_2_then_fsdp_4", "from": "fsdp_2_half", "parallel": "fsdp"},
    {"name": "ddp_2_then_ddp_4", "from": "ddp_2_half"},
]
AGAIN = [
    {"name": "fsdp_4_then_one", "from": "fsdp_4_half"},
    {"name": "ddp_4_then_one", "from": "ddp_4_half"},
]
COMPILED = [
    {"name": "fsdp_2_compiled", "parallel": "fsdp", "compile": True},
    {"name": "ddp_2_compiled", "compile": True},
]


def start_ranks(ranks, units, output, sessions):
    script = ROOT / "tests" / "distributed" / "runs.py"
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    code, text = run(
        [
            *start,
            f"--nproc_per_node={ranks}",
            *map(str, (script, units, output, json.dumps(sessions))),
        ],
        timeout=500,
        PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}",
    )
    assert code == 0, text


@pytest.fixture(scope="module")
def output(units, tmp_path_factory):
    """The folders of all sessions."""
    folder = tmp_path_factory.mktemp("runs")
    run_sessions(units, folder, ONE)
    start_ranks(2, units, folder, TWO)
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


FULL = [
    session["name"]
    for session in [*TWO, *FOUR, *AGAIN]
    if "steps" not in session
    and "precision" not in session
    and "tie_word_embeddings" not in session
]


@pytest.mark.parametrize("name", FULL)
def test_it_equals_one_process(output, name):
    assert_equal_logs(output / "one", output / name)


@pytest.mark.parametrize("name", ["bf16", "untied"])
def test_fsdp_equals_ddp(output, name):
    tolerance = 3e-2 if name == "bf16" else 1e-4
    pair = (output / f"{kind}_2_{name}" for kind in ("ddp", "fsdp"))
    assert_equal_logs(*pair, tolerance)


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
    assert sorted(p.name for p in pair[0].iterdir()) == sorted(
        p.name for p in pair[1].iterdir()
    )
    for files in (
        [folder / "model.ckpt" for folder in pair],
        [output / n / "model" / "model.safetensors" for n in (one, other)],
    ):
        left, right = map(load_file, files)
        assert left.keys() == right.keys()
        for key, value in left.items():
            torch.testing.assert_close(right[key], value, atol=2e-4, rtol=1e-3)
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
    embeddings = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    assert (head is embeddings) == tied
    state = model.state_dict()
    assert len(saved) == len(state) - tied
    for key, value in saved.items():
        assert torch.equal(state[key], value), key


@pytest.mark.slow
def test_compiled_ranks(units, output):
    start_ranks(2, units, output, COMPILED)
    for session in COMPILED:
        assert_equal_logs(output / "one", output / session["name"])
