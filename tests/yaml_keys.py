"""Which keys of the YAML files are read, and by whom."""

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path

from speechbrain_slm.utils.command_line import RUN_OPTIONS
from speechbrain_slm.utils.yaml_tree import (
    INCLUDE,
    children,
    read_tree,
    tag_of,
    walk,
)

ALL = "*"
CALLS = ("call_with", "named")
# What speechbrain_slm.utils.config.load_recipe reads itself.
LOADER = {("output_folder",), ("device",), ("heartbeat_timeout",)}


def references(node):
    """Collect the paths of !ref and !copy: <lm[model]> is ("lm", "model")."""
    if tag_of(node) in ("!ref", "!copy"):
        names = re.findall(r"<([^<>]+)>", node.value)
        return {tuple(re.findall(r"[^\[\]]+", name)) for name in names}
    return {path for _, child in children(node) for path in references(child)}


def _subscripts(node):
    """Return the path of hparams["a"]["b"], or None."""
    if isinstance(node, ast.Name) and node.id == "hparams":
        return ()
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        path = _subscripts(node.value)
        return None if path is None else (*path, str(node.slice.value))
    return None


def _called_with(tree, folder, values):
    """Yield what the signatures name that a script's calls look up.

    ``values`` are those of the YAML file, which may name what is called.
    """
    modules = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in CALLS:
            name = getattr(node.args[1], "id", None)
            if name is None:  # hparams["brain"], and there brain: !name:...
                (key,) = _subscripts(node.args[1])
                told = tag_of(values[key]).partition(":")[2]
                module, _, name = told.rpartition(".")
                modules[name] = module
            # A recipe's own modules stand in the folder above its train.py.
            sys.path.insert(0, str(folder))
            function = getattr(importlib.import_module(modules[name]), name)
            sys.path.remove(str(folder))
            given = {keyword.arg for keyword in node.keywords}
            yield from inspect.signature(function).parameters.keys() - given


def read_by_script(script, values):
    """Collect the paths that a train.py reads from ``hparams``.

    What a signature names is read whole: ``("convention", ALL)``.
    """
    tree = ast.parse(script.read_text(encoding="utf-8"))
    paths = {path for node in ast.walk(tree) if (path := _subscripts(node))}
    for name in _called_with(tree, script.parents[1], values):
        paths |= {(name,), (name, ALL)}
    return paths


def read_by_brains(folder):
    """Collect the attributes that Brains read from ``(self.)hparams``."""
    found = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            of, name = getattr(node, "value", None), getattr(node, "attr", None)
            # getattr(hparams, "name", None): a key that a YAML may lack.
            if getattr(getattr(node, "func", None), "id", None) == "getattr":
                of, name = node.args[0], getattr(node.args[1], "value", None)
            if "hparams" in (getattr(of, "attr", ""), getattr(of, "id", "")):
                found.add((name,))
    return found


def read_from_outside(yaml_file, brains):
    """Collect what train.py, its Brain and the loader read of a recipe."""
    script = yaml_file.parents[1] / "train.py"
    paths = read_by_script(script, read_tree(yaml_file)) | LOADER
    # A Brain is imported by the one, or named in the other.
    texts = (path.read_text(encoding="utf-8") for path in (script, yaml_file))
    if any("speechbrain_slm.brains" in text for text in texts):
        paths |= read_by_brains(brains) | {(name,) for name in RUN_OPTIONS}
    return paths


def unread(yaml_file, outside):
    """List the root keys of a YAML file that nothing reads."""
    tree = read_tree(yaml_file)
    read = {path[0] for path in outside | references(tree)}
    if ALL in read:
        return []
    # HyperPyYAML runs __set_seed and leaves it out.
    return [key for key in tree if key not in read | {"__set_seed"}]


def inclusions(yaml_file, outside):
    """Yield each fragment and the paths that are read of it."""
    tree = read_tree(yaml_file)
    paths = outside | references(tree)
    for key, node in tree.items():
        if tag_of(node).startswith(INCLUDE):
            fragment = Path(yaml_file).parent / tag_of(node)[len(INCLUDE) :]
            inside = {path[1:] for path in paths if path[0] == key and path[1:]}
            yield fragment.resolve(), inside
            yield from inclusions(fragment, inside)


def nested_run_options(node, depth=0):
    """List run options that stand below the root, where no one reads them.

    The arguments of objects and functions are their own affair.
    """
    tag = tag_of(node)
    if tag and not tag.startswith(INCLUDE):
        return []
    return [
        found
        for key, child in children(node)
        for found in (
            *((key,) if depth and key in RUN_OPTIONS else ()),
            *nested_run_options(child, depth + 1),
        )
    ]


def makes_objects(node):
    """Tell whether loading a node makes or calls anything."""
    nodes = [node, *(child for *_, child in walk(node))]
    made = ("!new:", "!apply:", "!name:", INCLUDE)
    return any(tag_of(one).startswith(made) for one in nodes)
