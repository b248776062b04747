"""Strict checks of a YAML file and the fragments that it includes.

HyperPyYAML loads a file whose keys nothing reads: a misspelt key given to an
included fragment is simply without effect. Here each key that is set must be
there already, and an error names the nearest one.
"""

import difflib
from pathlib import Path

import ruamel.yaml
from hyperpyyaml.core import recursive_update

INCLUDE = "!include:"


class ConfigurationError(ValueError):
    """A command line or a YAML file that does not say what to run."""


def unknown_key(name, known, where):
    """Make the error for a key that nothing reads.

    Arguments
    ---------
    name : str
        The key.
    known : set of str
        The keys that there are.
    where : str
        Named in the error.

    Returns
    -------
    ConfigurationError
        With the nearest known key, if one is near.
    """
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return ConfigurationError(
        f"{where}: nothing reads '{name}'.{hint} Known: "
        f"{', '.join(sorted(known))}"
    )


def read_tree(path):
    """Read a YAML file without making its objects.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    dict
        Its content, tags kept (ruamel's round-trip tree).

    Raises
    ------
    ConfigurationError
        If it is not YAML, or no mapping.
    """
    try:
        tree = ruamel.yaml.YAML().load(Path(path).read_text(encoding="utf-8"))
    except ruamel.yaml.error.YAMLError as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path}: expected a mapping at the root")
    return tree


def check_tree(path, tree, overrides):
    """Set values in a tree; refuse keys that no part of it reads.

    Arguments
    ---------
    path : str or Path
        The YAML file; ``!include`` paths are relative to it.
    tree : dict
        Its content, from :func:`read_tree`. Gets the new values.
    overrides : dict
        What the command line, or the including file, sets in it.

    Raises
    ------
    ConfigurationError
        If an override names a key that is not there or gives a mapping where
        there is none (or the reverse), or if a mapping given to an
        ``!include`` names a key that the fragment does not have.
    """
    _check_overrides(str(path), tree, overrides)
    recursive_update(tree, overrides)
    _check_includes(Path(path), tree)


def _tag(node):
    tag = getattr(node, "tag", None)
    return (tag.value or "") if tag is not None else ""


def _check_overrides(where, tree, overrides):
    for name, value in overrides.items():
        if name not in tree:
            raise unknown_key(name, set(tree), where)
        old, new = isinstance(tree[name], dict), isinstance(value, dict)
        tag = _tag(tree[name])
        if new and not old:
            raise ConfigurationError(
                f"{where}: '{name}' is not a mapping, found {dict(value)}"
            )
        # Null switches a group of settings off, and a reference may stand for
        # one; but others refer to what a fragment makes.
        plain = value is not None and not _tag(value)
        if old and not new and (tag.startswith(INCLUDE) or (not tag and plain)):
            raise ConfigurationError(
                f"{where}: '{name}' is a mapping, found {value!r}; give it "
                "as '{key: value}'"
            )
        # The arguments of an object are checked by its constructor, and those
        # of a fragment in _check_includes, where the fragment is known.
        if new and not tag:
            _check_overrides(f"{where}: {name}", tree[name], value)


def _check_includes(path, node):
    tag = _tag(node)
    if tag.startswith(INCLUDE):
        fragment = path.parent / tag[len(INCLUDE) :]
        if not fragment.is_file():
            raise ConfigurationError(
                f"{path} includes {fragment}, which does not exist"
            )
        if not isinstance(node, dict):
            raise ConfigurationError(
                f"{path}: give {tag} a mapping ({{}} where nothing is set), so "
                "that the command line can override its keys"
            )
        check_tree(fragment, read_tree(fragment), dict(node))
    if isinstance(node, dict):
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        _check_includes(path, child)
