"""The YAML files of the LM recipe: one text a size, but for its stages."""

import re
from pathlib import Path

import pytest

HPARAMS = Path(__file__).parents[2] / "recipes/TinyStories/LM/hparams"
RUNS = ("en", "fr", "en_fr", "interleaved", "interleaved_ft")
SIZES = ("mini", "360M", "1B")
# The comment at the top, the run's name, and the stages.
DIFFERING = r"\A(?:#.*\n)+|^run: .*\n|^stages:\n(?: .*\n)+"


def common_part(text):
    """Leave out of a YAML file what tells the runs of a size apart."""
    kept, count = re.subn(DIFFERING, "", text, flags=re.MULTILINE)
    assert count == 3, text[:200]
    return kept


def test_there_is_every_run_at_every_size():
    there = {path.stem for path in HPARAMS.glob("*.yaml")}
    assert there == {f"{size}_{run}" for size in SIZES for run in RUNS}


@pytest.mark.parametrize("size", SIZES)
def test_runs_of_a_size_differ_in_their_stages_alone(size):
    texts = {run: (HPARAMS / f"{size}_{run}.yaml").read_text() for run in RUNS}
    for run, text in texts.items():
        assert f"\nrun: {run}\n" in text
        assert common_part(text) == common_part(texts["en"]), run
    assert len({text.split("\nstages:\n")[1] for text in texts.values()}) == 5


@pytest.mark.parametrize("run", RUNS)
def test_the_full_sizes_differ_in_their_model_alone(run):
    one = (HPARAMS / f"360M_{run}.yaml").read_text()
    two = (HPARAMS / f"1B_{run}.yaml").read_text()
    one = one.replace("360M", "1B").replace("qwen2_0.5b", "llama3.2_1b")
    # The comment at the top is wrapped anew.
    assert one.split("\n\n", 1)[1] == two.split("\n\n", 1)[1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed: 1986", "seed: 1987"),
        ("weight_decay: 0.1", "weight_decay: 0.2"),
        ("vocabulary_size: null", "vocabulary_size: 400"),
        ("thousand_steps: 16384", "thousand_steps: 16000"),
    ],
)
def test_another_difference_is_found(old, new):
    text = (HPARAMS / "mini_interleaved_ft.yaml").read_text()
    assert text.count(old) == 1
    assert common_part(text.replace(old, new)) != common_part(text)
