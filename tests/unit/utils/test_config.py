"""The command line and the YAML checks, one rule a test."""

import hashlib
import os

import pytest

from speechbrain_slm.utils.command_line import parse_arguments
from speechbrain_slm.utils.config import call_with, load_yaml
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.yaml_tree import ConfigurationError

RECIPE = """\
seed: 1
rate: 0.1
name: en_fr
output_folder: results
precision: fp32
languages: [en, fr]
bpe: {pieces: 100, widest: {units: 16}}
nothing: null
lm: !include:fragments/lm.yaml
    width: !ref <seed>
layer: !new:torch.nn.Identity {}
modules:
    layer: !ref <layer>
"""
FRAGMENT = "width: !PLACEHOLDER\ndepth: 2\nshape: {heads: 4}\n"
MORE = {"pieces": 100, "widest": {"units": 3}}


@pytest.fixture
def recipe(tmp_path):
    return write(tmp_path)


def write(folder, text=RECIPE, fragment=FRAGMENT):
    (folder / "fragments").mkdir()
    (folder / "fragments" / "lm.yaml").write_text(fragment)
    (folder / "recipe.yaml").write_text(text)
    return str(folder / "recipe.yaml")


def load(yaml_file, *arguments):
    """Load as load_recipe does; return hparams and run options."""
    _, run_options, overrides = parse_arguments([yaml_file, *arguments])
    return load_yaml(yaml_file, overrides), run_options


@pytest.mark.parametrize(
    ("arguments", "key", "expected"),
    [
        (["--seed", "3"], "seed", 3),
        (["--rate", "-1"], "rate", -1),
        (["--output_folder=/a=b=c"], "output_folder", "/a=b=c"),
        (["--name=--x"], "name", "--x"),
        (["--name", '""'], "name", ""),
        (["--name", "!ref <output_folder>/<seed>"], "name", "results/1"),
        (["--nothing", "null"], "nothing", None),
        (["--languages", "[de]"], "languages", ["de"]),
        (["--bpe", "null"], "bpe", None),
        (["--bpe={widest: {units: 3}}"], "bpe", MORE),
        (
            ["--lm", "{depth: 4, shape: {heads: 8}}"],
            "lm",
            {"width": 1, "depth": 4, "shape": {"heads": 8}},
        ),
    ],
)
def test_overrides_work_as_typed(recipe, arguments, key, expected):
    hparams, run_options = load(recipe, *arguments)
    assert hparams[key] == expected
    assert type(hparams[key]) is type(expected)
    assert run_options == {}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--debug"], {"debug": True}),
        (["--debug=false"], {"debug": False}),
        (["--max_grad_norm", "-1"], {"max_grad_norm": -1.0}),
        (["--optimizer_step_limit", "5"], {"optimizer_step_limit": 5}),
        (["--device", "cuda:0"], {"device": "cuda:0"}),
        (
            ["--compile_module_keys", "a", "b", "--compile"],
            {"compile_module_keys": ["a", "b"], "compile": True},
        ),
    ],
)
def test_run_options_have_their_types(recipe, arguments, expected):
    _, run_options = load(recipe, *arguments)
    assert run_options == expected
    for name, value in expected.items():
        assert type(run_options[name]) is type(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max_grad", "1"], r"'max_grad'\. Did you mean 'max_grad_norm'"),
        (["--typo_key", "3"], r"reads 'typo_key'\. Known: .* bpe, "),
        (["--sede", "3"], r"'sede'\. Did you mean 'seed'"),
        (["--", "3"], r"nothing reads ''"),
        (["--a=b=c"], r"nothing reads 'a'"),
        (["--lm[depth]", "3"], r"nothing reads 'lm\[depth\]'"),
        (["-seed", "3"], r"'-seed' follows no --key"),
        (["--seed"], r"--seed has no value"),
        (["--seed", "--rate", "3"], r"--seed has no value"),
        (["--seed", "3", "4"], r"--seed has 2 values"),
        (["--seed", " "], r"--seed ' ' is empty"),
        (["--seed", "# 3"], r"--seed '# 3': empty"),
        (["--seed", "3", "--seed=3"], r"--seed is given twice"),
        (["--debug", "--debug"], r"--debug is given twice"),
        (["--seed", "[1"], r"--seed '\[1': not valid YAML"),
        (["--lm", "{depth: 1, depth: 2}"], r"--lm .*: not valid YAML"),
        # The types of run options
        (["--debug", "5"], r"--debug 5: expected bool"),
        (["--max_grad_norm", "big"], r"--max_grad_norm 'big': expected float"),
        (["--max_grad_norm", "true"], r"--max_grad_norm True: expected float"),
        (["--ckpt_interval_steps", "1.5"], r"1\.5: expected int"),
        (["--optimizer_step_limit", "five"], r"'five': expected int"),
        (["--optimizer_step_limit", "true"], r"True: expected int"),
        (["--precision", "bf17"], r"expected one of fp32, fp16, bf16"),
        (["--compile_module_keys"], r"--compile_module_keys has no value"),
        (["--device="], r"--device '' is empty"),
        # Mappings
        (["--lm", "{dpeth: 4}"], r"lm\.yaml: .*'dpeth'\. Did you mean 'depth'"),
        (["--lm", "4"], r"'lm' is a mapping, found 4"),
        (["--lm", "null"], r"'lm' is a mapping, found None"),
        (["--bpe", "{widest: {unit: 4}}"], r"bpe: widest: .*'units'"),
        (["--seed", "{a: 1}"], r"'seed' is not a mapping, found {'a': 1}"),
    ],
)
def test_refused(recipe, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        load(recipe, *arguments)


def test_without_a_brain_its_run_options_are_read_by_nothing(tmp_path):
    yaml_file = write(tmp_path, RECIPE.partition("modules:")[0])
    _, run_options = load(yaml_file, "--device", "cpu")
    assert run_options == {"device": "cpu"}
    with pytest.raises(ConfigurationError, match="reads 'max_grad_norm'"):
        load(yaml_file, "--max_grad_norm", "1")
    with pytest.raises(ConfigurationError, match="must be a YAML file"):
        load("--seed", "3")


LM = "lm: !include:fragments/lm.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LM}\n    widht: 1", r"lm\.yaml: .*'widht'\. Did you mean 'width'"),
        (f"{LM}\n    shape: 1", r"lm\.yaml: 'shape' is a mapping, found 1"),
        (f"{LM}\n    shape: {{head: 1}}", r"lm\.yaml: shape: .*'heads'"),
        (f"{LM}", r"recipe\.yaml: give !include:.*lm\.yaml a mapping"),
        (f"a: [{{{LM} {{x: 1}}}}]", r"lm\.yaml: nothing reads 'x'"),
        ("a: !include:lm.yaml {}", r"includes .*/lm\.yaml, which does not ex"),
        ("a: [1", r"recipe\.yaml is not valid YAML"),
        ("a: 1\na: 2", r"recipe\.yaml is not valid YAML.*duplicate"),
        ("- a", r"recipe\.yaml: expected a mapping at the root"),
        ("", r"recipe\.yaml: expected a mapping at the root"),
    ],
)
def test_refused_in_the_file_itself(tmp_path, text, message):
    yaml_file = write(tmp_path, text)
    with pytest.raises(ConfigurationError, match=rf"(?s){message}"):
        load_yaml(yaml_file)


def test_fragments_of_fragments_are_checked(tmp_path):
    inner = "lm: !include:inner.yaml\n    wdith: 1\n"
    yaml_file = write(tmp_path, f"{LM} {{}}", fragment=inner)
    path = tmp_path / "fragments" / "inner.yaml"
    path.write_text("width: 2\n")
    with pytest.raises(ConfigurationError, match=r"inner\.yaml: .*'width'"):
        load_yaml(yaml_file)
    # A pipe in its place is not waited for.
    path.unlink()
    os.mkfifo(path)
    with pytest.raises((OSError, ValueError), match=r"inner\.yaml"):
        load_yaml(yaml_file)


def test_a_file_of_the_kernel_has_the_hash_of_its_size():
    # Others of its kind have no end; all of them have no size.
    assert sha256_file("/proc/self/status") == hashlib.sha256().hexdigest()


def test_a_mapping_may_be_given_by_reference(tmp_path):
    text = f"own: {{heads: 2}}\n{LM}\n    width: 1\n    shape: !ref <own>\n"
    overrides = {"lm": {"depth": 4}}
    lm = load_yaml(write(tmp_path, text), overrides)["lm"]
    assert lm == {"width": 1, "depth": 4, "shape": {"heads": 2}}
    assert overrides == {"lm": {"depth": 4}}


def rows(stores, row_length, packing="concatenate"):
    return stores, row_length, packing


def test_a_function_gets_what_its_signature_names():
    hparams = {"row_length": 4, "seed": 1, "stores": 2}
    assert call_with(hparams, rows) == (2, 4, "concatenate")
    hparams["packing"] = None
    assert call_with(hparams, rows, stores=5) == (5, 4, None)
    with pytest.raises(TypeError, match="does not name its arguments"):
        call_with(hparams, lambda **settings: settings)


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"row_length": 4}, "'stores', which rows needs"),
        ({"row_lenght": 4}, "'row_lenght'. Did you mean 'row_length'"),
        # Not the default, silently.
        ({"row_length": 4, "packign": 1}, "'packign'. Did you mean 'packing'"),
    ],
)
def test_a_function_that_lacks_what_it_needs(hparams, message):
    with pytest.raises(ConfigurationError, match=message):
        call_with(hparams, rows)
