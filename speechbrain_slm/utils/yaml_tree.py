"""A YAML file and the fragments that it includes, as one strict tree.

HyperPyYAML loads a file whose keys nothing reads: a misspelt key given to an
included fragment is simply without effect. Here each key that is set must be
there already, and an error names the nearest one.

A mapping changes the values that it names and leaves the others. Only where
the YAML file has ``!new:dict``, a mapping whose names are the user's, does one
take the place of all that stood there.
"""

import datetime
import difflib
import os
import re
from pathlib import Path

import ruamel.yaml
from hyperpyyaml.core import recursive_resolve
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from speechbrain_slm.utils.yaml_files import (
    INCLUDE,
    ConfigurationError,
    children,
    find_fragment,
    read_tree,
    tag_of,
)

OWN_NAMES = "!new:dict"


def unknown_key(name: str, known: set[str], where: str) -> ConfigurationError:
    """Make the error for a key that nothing reads.

    Arguments
    ---------
    known : The keys that there are.

    Returns
    -------
    With the nearest known key, if one is near.
    """
    known = sorted(key for key in map(str, known) if not key.startswith("__"))
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return ConfigurationError(
        f"{where}: nothing reads '{name}'.{hint} Known: {', '.join(known)}"
    )


def resolve(path: str | Path, overrides: dict | None = None) -> dict:
    """Set values in a YAML file, and put in what it includes and refers to.

    Arguments
    ---------
    overrides
        What the command line, or the including file, sets in it. A ``~`` at
        the start of a text becomes the home folder, here and in the files.

    Returns
    -------
    A tree without ``!ref``, ``!copy`` and ``!include``.

    Raises
    ------
    ConfigurationError
        If an override names a key that is not there, gives a mapping where
        there is none (or the reverse) or a list where there is one value (or
        the reverse); likewise for what is given to an ``!include``. If a
        fragment does not exist, a reference leads nowhere, or a placeholder
        was not filled.
    """
    try:
        return _expand(_resolve_file(path, _quoted(overrides or {})))
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        if isinstance(error, ConfigurationError):
            raise
        text = " ".join(str(part) for part in error.args)
        raise ConfigurationError(f"{path}: {text}") from error


def _resolve_file(path, overrides):
    tree = read_tree(path)
    _merge(str(path), tree, overrides)
    return _resolve("", tree, tree, path)


def _resolve(name, node, root, path):
    for key, child in children(node):
        label = f"{name}[{key}]" if name else str(key)
        node[key] = _resolve(label, child, root, path)
    tag = tag_of(node)
    if tag == "!PLACEHOLDER":
        raise ConfigurationError(
            f"{path}: '{name}' has no value yet; set it, in a copy of the "
            "file or on the command line"
        )
    if tag in ("!ref", "!copy"):
        return recursive_resolve(node.value, [], root, tag == "!copy")
    if tag.startswith(INCLUDE):
        fragment = find_fragment(path, tag)
        if not isinstance(node, dict):
            raise ConfigurationError(
                f"{path}: give {tag} a mapping ({{}} where nothing is set), so "
                "that the command line can override its keys"
            )
        return _resolve_file(fragment, dict(node))
    if isinstance(node, datetime.date):
        raise ConfigurationError(
            f"{path}: {name} is the date {node}; put a text in quotes"
        )
    return node


def _merge(where, tree, overrides):
    """Set values in a mapping; refuse what has no place in it."""
    for name, value in overrides.items():
        if name not in tree:
            raise unknown_key(name, set(tree), where)
        _check_shape(where, name, tree[name], value)
        both = isinstance(value, dict) and isinstance(tree[name], dict)
        if both and not tag_of(tree[name]):
            _merge(f"{where}: {name}", tree[name], value)
        else:
            _set(tree, name, value)


def _set(tree, name, value):
    """Set a value; the arguments of an object are checked by its class.

    Those of a fragment are where it is read.
    """
    old, tag = tree.get(name), tag_of(tree.get(name))
    if not isinstance(value, dict) or tag_of(value):
        tree[name] = value
    elif isinstance(old, dict) and tag != OWN_NAMES:
        for key, child in value.items():
            _set(old, key, child)
    else:
        tree[name] = ruamel.yaml.comments.CommentedMap(value)
        if tag.startswith(("!new:", "!apply:", "!name:", INCLUDE)):
            tree[name].yaml_set_ctag(ruamel.yaml.tag.Tag(suffix=tag))


def _check_shape(where, name, old, value):
    new, tag = isinstance(value, dict), tag_of(old)
    # Null may stand for a group that is switched off (on the command line
    # ``ranges.GROUPS`` says which), a reference for a group.
    if new and not isinstance(old, dict) and not tag and old is not None:
        raise ConfigurationError(
            f"{where}: '{name}' is not a mapping, found {dict(value)}"
        )
    # Null switches a group of settings off, and a reference may stand for
    # one; but others refer to what a fragment makes.
    plain = value is not None and not tag_of(value)
    if (
        isinstance(old, dict)
        and not new
        and (tag.startswith(INCLUDE) or (tag in ("", OWN_NAMES) and plain))
    ):
        raise ConfigurationError(
            f"{where}: '{name}' is a mapping, found {value!r}; give it as "
            "'{key: value}'"
        )
    if isinstance(old, list) and not (tag or isinstance(value, list)) and plain:
        raise ConfigurationError(
            f"{where}: '{name}' is a list, found {value!r}; give it as "
            f"'[{value}]'"
        )


def _quoted(value):
    """Keep texts texts: plain, ``007`` would be read as a number again."""
    if isinstance(value, str):
        return DoubleQuotedScalarString(value)
    if isinstance(value, dict) and not tag_of(value):
        return {key: _quoted(child) for key, child in value.items()}
    if isinstance(value, list) and not tag_of(value):
        return [_quoted(child) for child in value]
    return value


def _expand(node, key="", seen=None):
    """Write paths out, whichever file or command line they are from.

    ``~`` is the home folder. Arrow takes ``lm:v2/x`` for an address; so a
    folder of that name is given its absolute path.
    """
    seen = set() if seen is None else seen
    if isinstance(node, str):
        path = os.path.expanduser(node)
        address = re.match(r"[A-Za-z][\w+.-]*:(?!//)", path)
        folder = str(key).endswith("_folder")
        if address and (folder or os.path.exists(path)):
            path = os.path.abspath(path)
        return node if path == node else DoubleQuotedScalarString(path)
    if isinstance(node, dict | list) and id(node) not in seen:
        seen.add(id(node))
        for name, child in children(node):
            node[name] = _expand(child, name, seen)
    return node
