"""Checks 16 and 17: what is typed is what runs, and every YAML file loads."""

import json
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from neural_voices import save_pocket
from processes import LM, ROOT, command, run, start
from yaml_keys import (
    inclusions,
    makes_objects,
    nested_run_options,
    read_from_outside,
    unread,
)

from speechbrain_slm.utils.command_line import RUN_OPTIONS, parse_arguments
from speechbrain_slm.utils.config import load_yaml
from speechbrain_slm.utils.yaml_tree import (
    INCLUDE,
    find_fragment,
    read_tree,
    resolve,
    tag_of,
)

BRAINS = ROOT / "speechbrain_slm" / "brains"
YAML = LM / "hparams" / "mini.yaml"
RECIPES = sorted((ROOT / "recipes").rglob("hparams/*.yaml"))
FRAGMENTS = sorted((ROOT / "hparams").glob("*/*.yaml"))
# A model of full size is neither looked up on a hub nor made here.
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 2, "num_key_value_heads": 2}
SMALL_LM = {"warm_start": None, "from_scratch": SHAPE}


def short(path):
    return path.relative_to(ROOT).as_posix()


each_recipe = pytest.mark.parametrize("yaml_file", RECIPES, ids=short)
each_fragment = pytest.mark.parametrize("fragment", FRAGMENTS, ids=short)

# ------------------------------------------------------ 16: the command line
# What load_recipe returns, as train.py gets it.
ECHO = """
import json, sys
from speechbrain_slm.utils.config import load_recipe
hparams, run_opts = load_recipe(sys.argv[1:])
names = ("output_folder", "precision", "max_grad_norm")
print(json.dumps([{name: hparams[name] for name in names}, run_opts]))
"""


def test_a_typo_trains_nothing(tmp_path):
    given = ["--output_folder", str(tmp_path / "output"), "--max_grad", "1"]
    code, text = run([sys.executable, str(LM / "train.py"), str(YAML), *given])
    assert code == 1, text
    assert text.startswith("error: command line: nothing reads 'max_grad'.")
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


def test_what_is_typed_reaches_the_recipe(tmp_path):
    output = tmp_path / "a=b"
    given = ["--output_folder", str(output), "--precision", "bf16"]
    given += ["--max_grad_norm", "-1", "--optimizer_step_limit", "5"]
    given += ["--debug", "--device=cpu", "--lm", "{num_layers: 1}"]
    given += ["--vocabulary_size", "30"]
    process = start([sys.executable, "-c", ECHO, str(YAML), *given])
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    hparams, run_options = json.loads(text.splitlines()[-1])
    both = {"precision": "bf16", "max_grad_norm": -1.0}
    assert hparams == {"output_folder": str(output), **both}
    both |= {"optimizer_step_limit": 5, "debug": True}
    assert run_options == both | {
        "device": "cpu",
        "distributed_backend": "gloo",
    }
    written = load_yaml(output / "hyperparams.yaml")
    assert written["output_folder"] == str(output)
    assert written["precision"] == "bf16"
    assert written["lm"]["num_layers"] == 1


# ------------------------------------------------------ 17: every YAML file
def weights(hparams):
    return torch.nn.ModuleDict(hparams.get("modules", {})).state_dict()


@each_recipe
def test_every_key_of_a_fragment_may_be_set(yaml_file):
    """On the command line, to what it is."""
    for key, node in read_tree(yaml_file).items():
        if not tag_of(node).startswith(INCLUDE):
            continue
        path = find_fragment(yaml_file, tag_of(node))
        for inner, value in read_tree(path).items():
            if tag_of(value).startswith("!"):
                continue
            typed = f"{{{inner}: {json.dumps(value)}}}"
            arguments = [str(yaml_file), f"--{key}", typed]
            _, _, overrides = parse_arguments(arguments)
            assert list(overrides[key]) == [inner]
            found = resolve(yaml_file, overrides)[key][inner]
            assert json.dumps(found) == json.dumps(value)


@pytest.fixture(scope="module")
def pocket(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pocket")
    return save_pocket(folder, speakers=("alba", "jean"))


@each_recipe
def test_it_loads_from_two_folders_with_equal_weights(
    yaml_file, tmp_path, monkeypatch, pocket
):
    folder = yaml_file.parents[1]
    before = sorted(folder.rglob("*"))
    output = {"output_folder": str(tmp_path / "output")}
    if yaml_file.stem.startswith(("360M", "1B")):
        output["lm"] = SMALL_LM
    if "tts/pocket.yaml" in yaml_file.read_text():
        # Of the benchmark, whom the speaker check has kept.
        output["speakers"] = ["alba", "jean"]
        output["speech"] = {"source": pocket}
    if folder == LM:
        output["vocabulary_size"] = 30  # No store stands here.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    one = load_yaml(yaml_file, output)
    # As its README says: from the recipe's folder.
    monkeypatch.chdir(folder)
    two = load_yaml(yaml_file.relative_to(folder), output)
    assert one.keys() == two.keys()
    assert weights(one).keys() == weights(two).keys()
    for name, value in weights(one).items():
        assert torch.equal(value, weights(two)[name]), name
    assert sorted(folder.rglob("*")) == before
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not [p for p in (tmp_path / "output").rglob("*") if p.is_file()]


def test_another_seed_gives_other_weights(tmp_path):
    output = {"output_folder": str(tmp_path), "vocabulary_size": 30}
    one = weights(load_yaml(YAML, output))
    two = weights(load_yaml(YAML, {**output, "seed": 1}))
    assert any(not torch.equal(one[name], two[name]) for name in one)


@each_recipe
def test_every_key_is_read_and_the_seed_comes_first(yaml_file):
    assert unread(yaml_file, read_from_outside(yaml_file, BRAINS)) == []
    tree = read_tree(yaml_file)
    assert nested_run_options(tree) == []
    first = next(key for key, node in tree.items() if makes_objects(node))
    assert first == "__set_seed"
    assert tag_of(tree[first]) == "!apply:speechbrain.utils.seed_everything"


@each_fragment
def test_every_key_of_a_fragment_is_read(fragment):
    assert not RUN_OPTIONS & set(read_tree(fragment))
    # A fragment may take the place of another of its folder.
    uses = [
        paths
        for one in RECIPES
        for used, paths in inclusions(one, read_from_outside(one, BRAINS))
        if used.parent == fragment.parent
    ]
    if fragment.parent.name == "loggers":  # included on the command line
        uses = [{("train_logger",)}]
    assert uses, "no recipe includes a fragment of this folder"
    assert unread(fragment, set().union(*uses)) == []


# ----------------------------------- the checks above find what they look for
@pytest.fixture
def planted(tmp_path):
    """A copy of the LM recipe and its fragment, to be spoilt."""
    for name in ("recipes/TinyStories/LM", "hparams/lm"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path / short(YAML), tmp_path / "hparams/lm/qwen2_mini.yaml"


def append(path, text):
    path.write_text(path.read_text() + text)


def test_planted_keys_that_nothing_reads_are_found(planted):
    recipe, fragment = planted
    append(recipe, "\nwarm_up: 3\ncompile_mode: default\n")
    append(fragment, "\nnum_head: 3\n")
    outside = read_from_outside(recipe, BRAINS)
    assert unread(recipe, outside) == ["warm_up"]
    ((used, paths),) = inclusions(recipe, outside)
    assert used == fragment
    assert unread(used, paths) == ["num_head"]
    # Without a reader, keys that are read are not.
    script = recipe.parents[1] / "train.py"
    text = script.read_text().replace('["valid_rows"]', '["x"]')
    text = text.replace("hparams, TokenPlan", "hparams, open_stores")
    script.write_text(text)
    outside = read_from_outside(recipe, BRAINS)
    assert unread(recipe, outside) == [
        *("stages", "row_length", "rows_per_step", "packing", "valid_rows"),
        "warm_up",
    ]


def test_planted_run_options_and_late_seeds_are_found(planted):
    recipe, _ = planted
    text = recipe.read_text().replace("    vocabulary_size: !ref", "    jit: 1")
    recipe.write_text(f"first: !new:torch.nn.Identity {{}}\n{text}")
    tree = read_tree(recipe)
    assert nested_run_options(tree) == ["jit"]
    assert next(key for key in tree if makes_objects(tree[key])) == "first"


def test_a_refused_synthesis_writes_nothing_to_the_data(tmp_path):
    data = tmp_path / "data"
    (data / "text").mkdir(parents=True)
    table = pa.table({"mine": [1]})  # a user's own
    pq.write_table(table, data / "text" / "train.parquet")
    folder = ROOT / "recipes" / "TinyStories" / "synthesis"
    places = {"data_folder": data, "output_folder": tmp_path / "logs"}
    yaml_file = folder / "hparams" / "mini.yaml"
    code, output = run(command(folder / "train.py", yaml_file, **places))
    assert code == 1, output
    assert "stands where this run would write" in output
    assert [p.name for p in data.rglob("*")] == ["text", "train.parquet"]
