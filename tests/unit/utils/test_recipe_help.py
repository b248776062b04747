"""--help, and a typo: answered from the files alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from speechbrain_slm.utils.yaml_tree import read_tree

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted((ROOT / "recipes").rglob("train.py"))
# What takes seconds to import.
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except (SystemExit, ValueError) as error:
    print(error or "")
slow = {"torch", "speechbrain", "transformers", "pyarrow"} & set(sys.modules)
assert not slow, slow
"""


def answer(script, *arguments):
    """Return what a recipe prints that imports nothing to say so."""
    command = [sys.executable, "-c", RUN, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def first_comment(path):
    return path.read_text("utf-8").splitlines()[0].lstrip("# ")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.parts[-3:-1])
def test_help_says_what_a_recipe_does_and_its_keys(script):
    text = answer(script, "--help")
    first = script.read_text("utf-8").split('"""')[1].splitlines()[0]
    assert text.startswith(first)
    files = sorted((script.parent / "hparams").glob("*.yaml"))
    for path in files:
        assert f"\n  {path}\n      {first_comment(path)}" in text
        told = answer(script, str(path), "-h")
        for key in read_tree(path):
            shown = f"\n  --{key} " in told or f"\n  --{key}\n" in told
            assert shown != key.startswith("__"), key
        assert "\n  --device " in told.split("Run options:")[1]


def test_help_has_the_comments_of_the_keys():
    text = answer(ROOT / "recipes/TinyStories/units/train.py", "--help")
    for line in (
        "# One store a file, named after it; k-means and BPE are fitted on tr",
        "--fit_seconds 3600              speech that k-means is fitted on",
        "    # A coarse codebook: sentences are shorter, and a small model lea",
        # Of the fragment: what the recipe's file sets, and what it does not.
        "    num_clusters: 30",
        "    num_mfcc: 13                coefficients kept, energy included",
    ):
        assert f"\n  {line}" in text
    # A recipe without a Brain has no training.
    assert "--max_grad_norm" not in text


def test_help_of_a_file_that_is_called_otherwise_or_is_not_there():
    script = ROOT / "recipes/TinyStories/LM/train.py"
    old = script.parent / "hparams/1B_en.yaml"
    assert f"{script.parent}/hparams/1B.yaml, and" in answer(
        script, str(old), "--help"
    )
    assert "there is no such YAML file" in answer(script, "none.yaml", "-h")


def test_a_typo_and_a_bad_value_are_answered_as_soon():
    script = ROOT / "recipes/TinyStories/LM/train.py"
    yaml_file = str(script.parent / "hparams/mini.yaml")
    for arguments, message in (
        ([yaml_file, "--max_grad", "1"], "Did you mean 'max_grad_norm'?"),
        ([yaml_file, "--lm", "{d_modle: 4}"], "nothing reads 'd_modle'"),
        ([yaml_file, "--learning_rate=-1"], "learning_rate is -1; expected"),
        ([], "or --help"),
    ):
        assert message in answer(script, *arguments)
