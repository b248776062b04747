"""A value of the command line is what the YAML file has in its place."""

from pathlib import Path

import pytest

from speechbrain_slm.utils.command_line import parse_arguments
from speechbrain_slm.utils.config import load_yaml
from speechbrain_slm.utils.yaml_tree import ConfigurationError, resolve

ROOT = Path(__file__).parents[3]
LM = ROOT / "recipes/TinyStories/LM/hparams/mini.yaml"
YAML = """\
run: first
output_folder: !ref results/<run>
again: !ref <run>
limit: null
items: null
speakers: [anna]
none: []
snapshot_steps: []
bpe: null
switch: False
small: 0.1
steps_of: 3
product: !ref <steps_of> * 2
sources: !new:dict
    valid: [results/valid.csv]
groups: !new:speechbrain_slm.dataio.settings.Sources
    en: {languages: [en]}
    both: {languages: [en, fr], switch_probability: 0.5}
options: !new:collections.OrderedDict
    temperature: 0
plain: {name: a, size: 1}
"""


@pytest.fixture
def yaml_file(tmp_path):
    (tmp_path / "a.yaml").write_text(YAML)
    return str(tmp_path / "a.yaml")


def load(yaml_file, *arguments):
    _, _, overrides = parse_arguments([yaml_file, *arguments])
    return load_yaml(yaml_file, overrides)


def groups(**both):
    """Return those of the file, some of them changed."""
    both = {"languages": ["en", "fr"], "switch_probability": 0.5, **both}
    return {"en": {"languages": ["en"]}, "both": both}


@pytest.mark.parametrize(
    "text",
    [
        *("007", "1.10", "20260115", "2026-01-15", "run #2", "lm:v2", "a: b"),
        *("1e3", "true", "no", "(a)", "*x", "- a", "%x", "[draft] 2", "é", "="),
        *("a<b", "# 3", "C:\\x", "0x1F", ".5", "@x", "`x`", "a, b", "!x"),
    ],
)
def test_a_text_is_what_was_typed(yaml_file, text):
    found = load(yaml_file, "--run", text, "--items", text)
    assert found["run"] == text
    assert found["again"] == text
    assert found["output_folder"] == f"results/{text}"
    assert found["items"] == text
    found = load(yaml_file, f"--speakers=['{text}']", f"--none=['{text}']")
    assert found["speakers"] == found["none"] == [text]


@pytest.mark.parametrize("key", ["speakers", "none", "items", "sources"])
def test_texts_in_a_list_are_what_was_typed(yaml_file, key):
    typed = "[007, no, 2026-01-15, 1e3, (1)]"
    if key == "sources":
        typed = f"{{a: {typed}}}"
    found = load(yaml_file, f"--{key}", typed)[key]
    found = found["a"] if key == "sources" else found
    assert found == ["007", "no", "2026-01-15", "1e3", "(1)"]


@pytest.mark.parametrize(
    ("arguments", "key", "expected"),
    [
        (["--small", "5e-4"], "small", 5e-4),
        (["--product", "7"], "product", 7),
        (["--switch", "true"], "switch", True),
        (["--limit", "10"], "limit", 10),
        (["--limit", "1e3"], "limit", 1000),
        (["--items", "null"], "items", None),
        (["--run", '"null"'], "run", "null"),
        (["--snapshot_steps", "[2, 3]"], "snapshot_steps", [2, 3]),
        (["--run", "!ref <plain[name]>/x"], "run", "a/x"),
        (["--plain", "{name: 007}"], "plain", {"name": "007", "size": 1}),
        # A switch that is off in the YAML file.
        (["--bpe", "{vocabulary_size: 9}"], "bpe", {"vocabulary_size": 9}),
        # A mapping of the user's own names takes the place of all.
        (["--sources", "{01: [x]}"], "sources", {"01": ["x"]}),
        # Any other one changes what it names.
        (
            ["--groups", "{it: {languages: [no]}, both: {span: 2}}"],
            "groups",
            groups(span=2) | {"it": {"languages": ["no"]}},
        ),
        (
            ["--groups", "{both: {switch_probability: {0: 0.1, 1e6: 0.5}}}"],
            "groups",
            groups(switch_probability={0: 0.1, 1e6: 0.5}),
        ),
        (
            ["--options", "{top_p: 0.9, stop: 007}"],
            "options",
            {"temperature": 0, "top_p": 0.9, "stop": "007"},
        ),
    ],
)
def test_others_are_read_as_their_kind(yaml_file, arguments, key, expected):
    found = load(yaml_file, *arguments)[key]
    assert found == expected
    if not isinstance(expected, dict):
        assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "[a, b]"], "--run .* expected a text"),
        (["--run", "a<run>"], "--run .*<run> would be taken for a reference"),
        (["--speakers", "anna"], r"'speakers' is a list, .*'\[anna\]'"),
        (["--speakers", "{a: b}"], r"'speakers' is not a mapping"),
        (["--small", "abc"], "--small 'abc': expected a number"),
        (["--small", "true"], "--small 'true': expected a number"),
        (["--switch", "yes"], "--switch 'yes': expected true or false"),
        (["--switch", "1"], "--switch '1': expected true or false"),
        (["--limit", "many"], "--limit 'many': expected a number"),
        (["--bpe", "{piece: 4}"], "--bpe .*: bpe: nothing reads 'piece'"),
        (["--items", "{a: 1}"], "--items .*: expected no mapping"),
        (["--plain", "{nmae: a}"], "plain: .*'nmae'. Did you mean 'name'"),
        (["--sources", "valid.csv"], "'sources' is a mapping"),
        (["--groups", "{en: {spna: 2}}"], r"'en' has the keys .*'spna'"),
    ],
)
def test_what_is_of_another_kind_is_refused(yaml_file, arguments, message):
    # The sources are checked by their own class.
    with pytest.raises(ValueError, match=message):
        load(yaml_file, *arguments)


def test_what_is_listed_as_known_is_accepted(tmp_path):
    """Neither HyperPyYAML's own keys nor options that are then refused."""
    with pytest.raises(ConfigurationError) as caught:
        parse_arguments([str(LM), "--nothing_like_it", "1"])
    known = str(caught.value).partition("Known: ")[2].split(", ")
    assert {"seed", "device", "max_grad_norm"} <= set(known)
    assert "__set_seed" not in known
    for name in ("debug_epochs", "jit", "log_config", "profile_steps"):
        assert name not in known
        with pytest.raises(ConfigurationError, match=f"'{name}' is not supp"):
            parse_arguments([str(LM), f"--{name}", "1"])


def test_tilde_is_the_home_folder_wherever_it_stands(yaml_file, monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    found = load(
        yaml_file,
        *("--run=~/x", "--speakers", "[~/y, a~]", "--items", "~"),
        *("--sources", "{train: [~/z.csv]}"),
    )
    assert found["run"] == found["again"] == "/somewhere/x"
    assert found["speakers"] == ["/somewhere/y", "a~"]
    assert found["items"] == "/somewhere"
    assert found["sources"] == {"train": ["/somewhere/z.csv"]}
    text = "a: ~/x\nb: !ref <a>/y\nc: {d: [~/z]}\ne: ~\n"
    Path(yaml_file).write_text(text, encoding="utf-8")
    found = load_yaml(yaml_file)
    assert (found["a"], found["b"]) == ("/somewhere/x", "/somewhere/x/y")
    assert (found["c"], found["e"]) == ({"d": ["/somewhere/z"]}, None)


def test_a_folder_is_not_taken_for_an_address(yaml_file, tmp_path, monkeypatch):
    """Arrow opens 'lm:v2/x' by the protocol 'lm'."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b:c.csv").touch()
    found = load(yaml_file, "--output_folder", "lm:v2", "--items", "b:c.csv")
    assert found["output_folder"] == str(tmp_path / "lm:v2")
    assert found["items"] == str(tmp_path / "b:c.csv")
    found = load(yaml_file, "--items", "hub:x:y:train")
    assert found["items"] == "hub:x:y:train"


def test_a_copy_of_a_recipes_yaml_file_finds_its_fragments(tmp_path):
    for name in ("LM/hparams/mini.yaml", "units/hparams/mini.yaml"):
        original = ROOT / "recipes/TinyStories" / name
        copy = tmp_path / "mine" / "copy.yaml"
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(original.read_bytes())
        trees = [resolve(copy), resolve(original)]
        for tree in trees:  # of what has a tag, every reading is another one
            tree.pop("opt_class", None)
        assert trees[0] == trees[1]
    # A fragment that is put beside the copy is the one that it names.
    fragment = tmp_path / "hparams" / "units"
    fragment.mkdir(parents=True)
    (fragment / "own.yaml").write_text("num_clusters: 7\ntokenizer: null\n")
    copy.write_text("units: !include:../hparams/units/own.yaml {}\n")
    assert resolve(copy)["units"]["num_clusters"] == 7
    copy.write_text("units: !include:../hparams/units/none.yaml {}\n")
    with pytest.raises(ConfigurationError, match="as seen from the copy"):
        resolve(copy)


def test_a_fragment_takes_the_place_of_null():
    fragment = ROOT / "hparams/loggers/wandb.yaml"
    given = f"!include:{fragment} {{output_folder: !ref <output_folder>}}"
    arguments = [str(LM), "--train_logger", given, "--run", "fr"]
    tree = resolve(LM, parse_arguments(arguments)[2])
    initializer = tree["train_logger"]["train_logger"]["initializer"]
    assert initializer["folder"] == "results/mini/LM/fr"
    assert initializer["mode"] == "online"


def test_a_tuple_that_is_given_to_a_fragment_stays_one(tmp_path):
    (tmp_path / "inner.yaml").write_text("betas: null\n")
    text = "opt: !include:inner.yaml\n    betas: (0.9, 0.98)\n"
    (tmp_path / "a.yaml").write_text(text)
    assert load_yaml(tmp_path / "a.yaml")["opt"]["betas"] == (0.9, 0.98)


def test_a_placeholder_is_filled_on_the_command_line(yaml_file):
    text = "data: !PLACEHOLDER\nseed: 1\n"
    Path(yaml_file).write_text(text, encoding="utf-8")
    assert load(yaml_file, "--data", "007")["data"] == "007"
    with pytest.raises(ConfigurationError, match="'data' has no value yet"):
        load(yaml_file, "--seed", "2")
