"""A YAML file and the fragments that it includes, as one strict tree.

HyperPyYAML passes over a misspelt key that is given to a fragment. Here each
key that is set must be there already, and an error names the nearest one.
"""

import datetime
import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ruamel.yaml
from hyperpyyaml.core import recursive_resolve
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from speechbrain_slm.utils.files import read_regular

INCLUDE = "!include:"
# A mapping whose names are the user's: another takes the place of all of it,
# where elsewhere one changes what it names and leaves the rest.
OWN_NAMES = "!new:dict"
_SHARED = "hparams/"  # where the fragments stand in the repository


class ConfigurationError(ValueError):
    """A command line or a YAML file that does not say what to run."""


def unknown_key(name: str, known: Iterable, where: str) -> ConfigurationError:
    """Return the error for a key that nothing reads; it names the nearest."""
    there = sorted(key for key in map(str, known) if not key.startswith("__"))
    close = difflib.get_close_matches(str(name), there, n=1, cutoff=0.6)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return ConfigurationError(
        f"{where}: nothing reads '{name}'.{hint} Known: {', '.join(there)}"
    )


def read_tree(path: str | Path) -> dict:
    """Read a YAML file without making its objects, tags kept."""
    try:
        tree = ruamel.yaml.YAML().load(read_regular(path).decode("utf-8"))
    except (ruamel.yaml.error.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path}: expected a mapping at the root")
    return tree


def tag_of(node: object) -> str:
    """Return the tag of a node, empty where it has none."""
    return getattr(getattr(node, "tag", None), "value", None) or ""


def children(node: object) -> list[tuple]:
    """Return (key or number, child) of a mapping or a list, else nothing."""
    if isinstance(node, dict):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, list) else []


def walk(node: Any, seen: set[int] | None = None) -> Iterator[tuple]:
    """Yield (parent, key or number, child) of all that is below a node."""
    # A node that several refer to is one object: visited once.
    seen = set() if seen is None else seen
    if id(node) not in seen:
        seen.add(id(node))
        for key, child in children(node):
            yield node, key, child
            yield from walk(child, seen)


def find_fragment(path: str | Path, tag: str) -> Path:
    """Find the file that the tag ``!include:<path>`` of a file names."""
    name = tag[len(INCLUDE) :]
    fragment = Path(path).parent / name
    if fragment.is_file():
        return fragment
    # A copy of a recipe's file may stand anywhere: hparams/... is that of the
    # script that runs, or of this package.
    _, shared, inside = name.rpartition(_SHARED)
    roots = [*Path(sys.argv[0]).resolve().parents, *Path(__file__).parents]
    for root in roots if shared else ():
        if (root / _SHARED / inside).is_file():
            return root / _SHARED / inside
    raise ConfigurationError(
        f"{path} includes {fragment}, which does not exist. In a copy of a "
        "YAML file, give the fragment's path as seen from the copy, or its "
        "absolute path"
    )


def resolve(path: str | Path, overrides: dict | None = None) -> dict:
    """Set values in a YAML file, and put in what it includes and refers to.

    The tree has no ``!ref``, ``!copy`` and ``!include``; paths are written out.
    ConfigurationError if an override names a key that is not there or is of
    another shape (mapping, list, one value) than what it replaces, here or in a
    fragment; if a reference leads nowhere, or a placeholder was not filled.
    """
    tree = _resolve_file(path, _quoted(overrides or {}))
    for parent, key, text in walk(tree):
        if isinstance(text, str):
            parent[key] = _written_out(key, text)
    return tree


def _resolve_file(path, overrides):
    tree = read_tree(path)
    _merge(str(path), tree, overrides)
    try:
        return _resolve("", tree, tree, path)
    except ConfigurationError:
        raise  # of a fragment: it names that
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        text = " ".join(map(str, error.args))
        raise ConfigurationError(f"{path}: {text}") from error


def _resolve(name, node, root, path):
    # What is given to a fragment refers to keys of this file: it comes first.
    for key, child in children(node):
        label = f"{name}[{key}]" if name else str(key)
        node[key] = _resolve(label, child, root, path)
    tag = tag_of(node)
    if tag == "!PLACEHOLDER":
        where = "in a copy of the file or on the command line"
        raise ValueError(f"'{name}' has no value yet; set it, {where}")
    if tag in ("!ref", "!copy"):
        return recursive_resolve(node.value, [], root, tag == "!copy")
    if tag.startswith(INCLUDE):
        fragment = find_fragment(path, tag)
        if not isinstance(node, dict):
            raise ValueError(f"give {tag} a mapping ({{}} for no changes)")
        return _resolve_file(fragment, dict(node))
    # 2026-01-15 as the name of a run.
    if isinstance(node, datetime.date):
        raise ValueError(f"{name} is the date {node}; put a text in quotes")
    return node


def _merge(where, tree, overrides, strict=True):
    for name, value in overrides.items():
        old, tag = tree.get(name), tag_of(tree.get(name))
        if strict and name not in tree:
            raise unknown_key(name, tree, where)
        if strict and (fault := _misfit(old, tag, value)):
            raise ConfigurationError(f"{where}: '{name}' {fault}")
        if not isinstance(value, dict) or tag_of(value):
            tree[name] = value
        elif isinstance(old, dict) and tag != OWN_NAMES:
            # New names may be given to an object, whose class checks its
            # arguments, and to a fragment, which is checked where it is read.
            _merge(f"{where}: {name}", old, value, strict and not tag)
        else:
            tree[name] = ruamel.yaml.comments.CommentedMap(value)
            if tag.startswith(("!new:", "!apply:", "!name:", INCLUDE)):
                tree[name].yaml_set_ctag(ruamel.yaml.tag.Tag(suffix=tag))


def _misfit(old, tag, value):
    """Say why a value cannot take the place of an old one, or nothing."""
    # Null may stand for a group of settings that is switched off (on the
    # command line ``ranges.GROUPS`` says which), and a reference for any. But a
    # fragment stays: others refer to what it makes.
    plain = value is not None and not tag_of(value)
    if isinstance(value, dict):
        fits = isinstance(old, dict) or tag or old is None
        return "" if fits else f"is not a mapping, found {dict(value)}"
    group = tag.startswith(INCLUDE) or (tag in ("", OWN_NAMES) and plain)
    if isinstance(old, dict) and group:
        return f"is a mapping, found {value!r}; give it as '{{key: value}}'"
    if isinstance(old, list) and plain and not (tag or isinstance(value, list)):
        return f"is a list, found {value!r}; give it as '[{value}]'"
    return ""


def _quoted(value):
    """Keep texts texts: plain, ``007`` would be read as a number again."""
    if isinstance(value, str):
        return DoubleQuotedScalarString(value)
    if tag_of(value):
        return value
    if isinstance(value, dict):
        return {key: _quoted(child) for key, child in value.items()}
    return [*map(_quoted, value)] if isinstance(value, list) else value


def _written_out(key, text):
    """Write out ``~``, whichever file or command line it is from."""
    path = os.path.expanduser(text)
    # Arrow takes lm:v2/x for an address; a folder of that name is given its
    # absolute path.
    address = re.match(r"[A-Za-z][\w+.-]*:(?!//)", path)
    if address and (str(key).endswith("_folder") or os.path.exists(path)):
        path = os.path.abspath(path)
    return text if path == text else DoubleQuotedScalarString(path)
