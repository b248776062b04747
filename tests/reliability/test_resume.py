"""Check 13: a run is resumed as the run that it was, or not at all."""

import shutil

import pytest
from conftest import write_store
from lm_example import PLAN, SOURCES, train


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    folder = tmp_path_factory.mktemp("units")
    for name, identity in (("", "codebook-a"), ("other", "codebook-b")):
        write_store(folder / name / "train", identity=identity)
        write_store(folder / name / "valid", identity=identity, seed=1)
    write_store(folder / "more" / "train", stories=41)
    write_store(folder / "more" / "valid", seed=1)
    return folder


@pytest.fixture(scope="module")
def begun(units, tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    train(units, folder, steps=3)
    return folder


def source(**changes):
    changes = {"languages": BOTH, "switch_probability": 0.5} | changes
    return {"sources": {**SOURCES, "interleaved": changes}}


BOTH = ["en", "fr"]
FIRST, SECOND = PLAN["stages"]
SHORTER = [FIRST, {**SECOND, "tokens": 5 * 8 * 48}]
TAGS = {"language_tags": BOTH, "model_language_tags": BOTH}
SOURCE = "sources.interleaved"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 8}, "seed: expected 7, found 8"),
        ({"row_length": 64}, "row_length: expected 48, found 64"),
        ({"rows_per_step": 4}, "rows_per_step: expected 8, found 4"),
        ({"packing": "concatenate"}, "packing: expected 'best_fit'"),
        ({"stages": [FIRST]}, "stages: expected "),
        ({"stages": SHORTER}, "stages: expected "),
        (
            source(switch_probability=0.9),
            f"{SOURCE}.switch_probability: expected 0.5, found 0.9",
        ),
        (source(span=2), f"{SOURCE}.span: expected nothing, found 2"),
        (
            source(shuffle_alignment=True),
            f"{SOURCE}.shuffle_alignment: expected nothing",
        ),
        (TAGS, "language_tags: expected [], found ['en', 'fr']"),
        ({"attention": "open"}, "attention: expected 'blocked'"),
        ({"schedule": "stage"}, "schedule: expected 'run'"),
        ({"learning_rate": 0.1}, "learning_rate: expected 0.02, found 0.1"),
        ({"warmup": 0.2}, "warmup: expected 0.1, found 0.2"),
        ({"max_grad_norm": 0.5}, "max_grad_norm: expected 1.0, found 0.5"),
        ({"precision": "bf16"}, "precision: expected 'fp32'"),
        ({"weight_decay": 5}, "optimizer.weight_decay: expected '0.1'"),
        (
            {"remove_vector_weight_decay": True},
            "remove_vector_weight_decay: expected False",
        ),
        (
            {"model_attention_dropout": 0.5},
            "model.attention_dropout: expected '0.0', found '0.5'",
        ),
        ({"hidden_size": 64}, "model.hidden_size: expected '32'"),
        ({"units": "other"}, "tokenizer: expected 'codebook-a', found 'code"),
        ({"units": "more"}, "stores.en: expected "),
    ],
)
def test_another_run_is_refused_by_field(units, begun, changes, message):
    plan = {n: v for n, v in changes.items() if n in PLAN}
    others = {n: v for n, v in changes.items() if n not in {*PLAN, "units"}}
    before = sorted(begun.rglob("*"))
    with pytest.raises(ValueError, match="belongs to another run") as caught:
        train(units / changes.get("units", ""), begun, plan=plan, **others)
    assert message in str(caught.value)
    assert sorted(begun.rglob("*")) == before


def test_what_does_not_change_the_result_may_change(units, begun, tmp_path):
    """Where the run is resumed, not what it is."""
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    moved = tmp_path / "units"
    shutil.copytree(units, moved)
    brain = train(
        moved,
        folder,
        parallel="fsdp",  # Of one process: it trains as it is.
        grad_accumulation_factor=2,
        log_interval=1,
        valid_interval=0,
        peak_tflops=0.1,
        tensorboard=True,
        ckpt_interval_steps=5,
    )
    assert brain.optimizer_step == 12
    assert brain.monitor.first == 3
    assert (folder / "run.json").exists()
