"""Values of the command line, typed by what the YAML file has in their place.

Where that is a text, ``007``, ``2026-01-15``, ``lm:v2`` and ``run #2`` are
names, which YAML would take for a number, a date, a mapping and a comment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ruamel.yaml
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode

from speechbrain_slm.utils import yaml_tree
from speechbrain_slm.utils.ranges import GROUPS, LISTS, RANGES
from speechbrain_slm.utils.yaml_tree import ConfigurationError, tag_of

TEXT, NUMBER, LIST, MAPPING, ANY = "text", "number", "list", "mapping", "any"
_UNKNOWN = object()  # nothing says what may stand
_REFERENCE = re.compile(r"<([^<>]+)>")
_ARITHMETIC = re.compile(r"[-+*/%.() \d]+")
# How a number is written; 007 and 2026-01-15 are none.
_PLAIN_NUMBER = re.compile(
    r"[-+]?(0|[1-9]\d*)(\.\d*)?([eE][-+]?\d+)?|[-+]?\.\d+([eE][-+]?\d+)?"
)
# What is read as YAML where a text stands.
_MORE_THAN_TEXT = re.compile(r"\s*[\[{\"']|!(ref|copy|include:\S*) |null$")


@dataclass
class Place:
    """A node of a YAML file, as far as it says what may take its place."""

    name: str = ""
    node: Any = _UNKNOWN
    root: dict = field(default_factory=dict)
    path: str | Path = ""

    def __post_init__(self) -> None:
        self.node = _followed(self.node, self.root)
        self.tag = tag_of(self.node)

    @property
    def kind(self) -> str:
        """What of ``TEXT``, ``NUMBER``, ``LIST``, ``MAPPING`` may stand."""
        node, tag = self.node, self.tag
        group = tag == yaml_tree.OWN_NAMES or tag.startswith(yaml_tree.INCLUDE)
        if isinstance(node, dict) or group:
            return MAPPING
        if isinstance(node, list):
            return LIST
        if isinstance(node, bool | int | float):
            return NUMBER
        if tag.startswith("!") and tag != "!PLACEHOLDER":
            return ANY
        if self.name in RANGES and not isinstance(node, str):
            return NUMBER
        return ANY if node is _UNKNOWN else TEXT

    def child(self, key: str) -> Place:
        """Return the place of a key."""
        node = self.node if isinstance(self.node, dict) else {}
        if key not in node and self.tag.startswith(yaml_tree.INCLUDE):
            path = yaml_tree.find_fragment(self.path, self.tag)
            tree = yaml_tree.read_tree(path)
            return Place(key, tree.get(key, _UNKNOWN), tree, path)
        # A name of the user's is like the others; {it: {languages: ...}} in
        # sources is typed as en and fr are.
        found, others = _UNKNOWN, list(node.values())
        if others and all(isinstance(other, dict) for other in others):
            found = {k: v for other in others for k, v in other.items()}
        elif others and self.tag == yaml_tree.OWN_NAMES:
            found = others[0]
        return Place(key, node.get(key, found), self.root, self.path)


def _followed(node, root, depth=0):
    """Follow a reference to what it stands for, or to the like of it."""
    # In circles? Then ``resolve`` will say so.
    if tag_of(node) not in ("!ref", "!copy") or depth > 9:
        return node
    whole = _REFERENCE.fullmatch(node.value)
    if not whole:
        # <steps> * 2 is a number, results/<run> a text.
        product = _ARITHMETIC.fullmatch(_REFERENCE.sub("1", node.value))
        return 1 if product else ""
    found = root
    for name in re.findall(r"[^\[\]]+", whole[1]):
        found = found.get(name) if isinstance(found, dict) else _UNKNOWN
    return _followed(found, root, depth + 1)


def typed_value(text: str, place: Place) -> object:
    """Read a value of the command line: a text where a text stands, else YAML.

    A text is what was typed, but for ``null`` and what stands in quotes.
    ``Place()`` is where nothing says what may stand.
    """
    text_stands = place.kind == TEXT
    if text_stands and not _MORE_THAN_TEXT.match(text):
        if found := _REFERENCE.search(text):
            raise ConfigurationError(
                f"{found[0]} would be taken for a reference to a key; write "
                "'!ref ...' for one, and leave out < or > in a name"
            )
        return text
    try:
        node = ruamel.yaml.YAML().compose(text)
        if node is None:
            raise ConfigurationError("empty; write null or '\"\"' for that")
        if _has_tags(text):
            return ruamel.yaml.YAML().load(text)
        value = _converted(node, place)
    except YAMLError as error:
        if text_stands:
            return text  # such as "[draft] 2"
        raise ConfigurationError(f"not valid YAML: {error}") from None
    _check_kind(place, value)
    return value


def _check_kind(place, value):
    expected, node = "", place.node
    if isinstance(value, dict) and node is None:
        known = GROUPS.get(place.name)
        for key in value if known else ():
            if key not in known:
                raise yaml_tree.unknown_key(key, known, place.name)
        expected = "" if known else "no mapping"
    elif isinstance(value, dict | list):
        if place.kind == TEXT and node is not None:
            expected = "a text; it is one in quotes of its own, '\"[...]\"'"
    elif place.kind == NUMBER and value is not None:
        switch = isinstance(node, bool)
        like = node is None or isinstance(value, bool) == switch
        if not (isinstance(value, int | float) and like):
            expected = "true or false" if switch else "a number"
    if expected:
        raise ConfigurationError(f"expected {expected}")


def _has_tags(text):
    """Tell whether something refers, or is made: YAML alone can say it."""
    events = ruamel.yaml.YAML().parse(text)
    return any(re.match("!.", str(getattr(e, "tag", ""))) for e in events)


def _converted(node, place):
    if isinstance(node, ScalarNode):
        return _scalar(node, place.kind)
    if not isinstance(node, MappingNode):
        like = 1 if place.name in LISTS else ""
        if place.kind == LIST and place.node:
            like = place.node[0]
        element = Place(place.name, like, place.root, place.path)
        return [_converted(child, element) for child in node.value]
    value = {}
    # Tokens -> probability, where one probability stands.
    number = place.kind == NUMBER
    for key_node, child in node.value:
        key = _scalar(key_node, ANY if number else TEXT)
        if key in value:
            raise YAMLError(f"'{key}' is given twice")
        value[key] = _converted(child, place if number else place.child(key))
    return value


def _scalar(node, kind):
    text = node.value
    if not isinstance(text, str):
        raise YAMLError("a key that is no text")
    if node.style is not None:
        return text  # in quotes
    if kind == TEXT:
        return None if text in ("null", "") else text
    word = text.lower() in ("true", "false", "null", "")
    if word or kind == NUMBER or _PLAIN_NUMBER.fullmatch(text):
        return ruamel.yaml.YAML(typ="safe").load(text)
    return text
