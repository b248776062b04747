"""Numbers are checked at the door: every one that a YAML file has."""

import math
from pathlib import Path

import pytest

from speechbrain_slm.utils import ranges, yaml_tree
from speechbrain_slm.utils.config import load_yaml
from speechbrain_slm.utils.ranges import RANGES, check_ranges
from speechbrain_slm.utils.yaml_tree import ConfigurationError, read_tree

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "recipes").rglob("hparams/*.yaml"))
FILES += sorted((ROOT / "hparams").rglob("*.yaml"))


def numbers(node, path=()):
    """Yield the path of each number, each switch and each product."""
    for key, child in yaml_tree.children(node):
        here = (*path, key) if isinstance(key, str) else path
        product = yaml_tree.tag_of(child) == "!ref" and set(child.value) & set(
            "*+"
        )
        if isinstance(child, bool | int | float) or product:
            yield here
        kind, _, target = yaml_tree.tag_of(child).partition(":")
        ours = target.startswith("speechbrain_slm.") or target == "dict"
        # Those of SpeechBrain's classes, and of others', are theirs.
        if ours or kind not in ("!new", "!name"):
            yield from numbers(child, here)


def lacking(tree):
    """List the numbers of which no range is known."""
    return [
        path
        for path in numbers(tree)
        if path[-1] not in RANGES | ranges.LISTS
        and not set(path[-2:-1]) & ranges.VALUES.keys()
        and path[0] != "__set_seed"
    ]


def test_every_number_of_every_yaml_file_has_a_range():
    assert len(FILES) > 40
    for path in FILES:
        assert lacking(read_tree(path)) == [], path
        check_ranges(read_tree(path), path)


def test_a_number_without_a_range_is_found():
    tree = {"new": 3, "shares": {"mine": 0.5}, "deep": [{"other": False}]}
    assert lacking(tree) == [("new",), ("deep", "other")]


@pytest.mark.parametrize("key", sorted(RANGES))
def test_what_no_key_may_be(key):
    wrong = [math.nan, math.inf, -math.inf, "many", "1", [], {}]
    wrong += [] if key in ranges.NULLS else [None]
    wrong += [0, 1] if RANGES[key] == ranges.SWITCH else [True, False]
    wrong += [2.5, -1] if "whole" in RANGES[key] else []
    for value in wrong:
        if not isinstance(value, ranges.SEVERAL.get(key, ())):
            with pytest.raises(ConfigurationError, match=f"a: {key} is .*expe"):
                check_ranges({"group": {key: value}}, "a")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"learning_rate": -0.003}, "learning_rate is -0.003; .* above 0"),
        ({"stories_per_shard": 0}, "stories_per_shard is 0; .* at least 1"),
        ({"seed": 2**32}, "seed is 4294967296; .* at most 4294967295"),
        ({"warmup": 1}, "warmup is 1; .* below 1"),
        ({"tie": 1.5}, "tie is 1.5; .* at most 1"),
        ({"periods": [2, 0]}, r"periods\[1\] is 0; .* at least 1"),
        ({"dilations": [[1], [2, 1.5]]}, r"dilations\[1\] is 1.5; .* integer"),
        ({"job": 2, "num_jobs": 2}, "job is 2; expected 0 to 1"),
        ({"limit": 0}, "limit is 0; .* at least 1, or null"),
        ({"stages": [{"mixture": {"en": -1}}]}, r"mixture\[en\] is -1"),
        ({"shares": {"valid": 1.5}}, r"shares\[valid\] is 1.5"),
        ({"a": {"b": [1, {"c": math.inf}]}}, "c is inf; expected a finite"),
        (
            {"sources": {"x": {"switch_probability": {0: 0.1, 9: 2}}}},
            r"switch_probability\[9\] is 2; .* at most 1",
        ),
        # Lists of names, each another one
        ({"speakers": "anna"}, "speakers is 'anna'; expected a list"),
        ({"languages": ["en", "en"]}, "none of them twice"),
        ({"languages": []}, "expected one name or more"),
        ({"speakers": [7]}, "needs quotes"),
        ({"language_tags": ["en", "en"]}, "none of them twice"),
        ({"splits": ["../train"]}, "splits names '../train'"),
        ({"shares": {"../valid": 0.1}}, "shares names '../valid'"),
        ({"sources": {"a/b": []}}, "sources names 'a/b'"),
    ],
)
def test_what_is_out_of_its_range(tree, message):
    with pytest.raises(ConfigurationError, match=message):
        check_ranges(tree, "a.yaml")


def test_what_is_right():
    tree = {
        "plots": ["lost", "found"],
        "limit": None,
        "job": 1,
        "num_jobs": 2,
        "seed": 2**32 - 1,
        "thousand_steps": 1e6,
        "options": {"seed": -1, "n": True},
        "learning_rate": 5e-4,
        "speakers": None,
        "language_tags": [],
        "languages": ["en", "no"],
    }
    check_ranges(tree, "a.yaml")
    assert tree["thousand_steps"] == 1000000
    assert type(tree["thousand_steps"]) is int
    assert type(tree["learning_rate"]) is float


def test_a_range_reaches_fragments_and_stops_at_classes_of_others(tmp_path):
    text = "lm: !include:lm.yaml {num_layers: 0}\n"
    (tmp_path / "lm.yaml").write_text("num_layers: 2\n")
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match="num_layers is 0; expected"):
        load_yaml(tmp_path / "a.yaml")
    text = "x: !new:collections.Counter {layer: -3}\n"
    (tmp_path / "a.yaml").write_text(text)
    assert load_yaml(tmp_path / "a.yaml")["x"] == {"layer": -3}
