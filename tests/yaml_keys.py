"""Which keys of the YAML files are read, and by whom."""

import ast
import re
from pathlib import Path

from speechbrain_slm.utils.command_line import RUN_OPTIONS
from speechbrain_slm.utils.yaml_tree import INCLUDE, read_tree

# What speechbrain_slm.utils.config.load_recipe reads itself.
LOADER = {("output_folder",), ("device",)}


def tag_of(node):
    """Return the tag of a YAML node, or an empty string."""
    tag = getattr(node, "tag", None)
    return (tag.value or "") if tag is not None else ""


def children(node):
    """Return the (key, value) pairs of a mapping or a list."""
    if isinstance(node, dict):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, list) else []


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


def read_by_script(script):
    """Collect the paths that a train.py reads from ``hparams``."""
    nodes = ast.walk(ast.parse(script.read_text(encoding="utf-8")))
    return {path for node in nodes if (path := _subscripts(node))}


def read_by_brains(folder):
    """Collect the attributes that Brains read from ``self.hparams``."""
    return {
        (node.attr,)
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "hparams"
    }


def read_from_outside(yaml_file, brains):
    """Collect what train.py, its Brain and the loader read of a recipe."""
    script = yaml_file.parents[1] / "train.py"
    paths = read_by_script(script) | LOADER
    if "speechbrain_slm.brains" in script.read_text(encoding="utf-8"):
        paths |= read_by_brains(brains) | {(name,) for name in RUN_OPTIONS}
    return paths


def unread(yaml_file, outside):
    """List the root keys of a YAML file that nothing reads."""
    tree = read_tree(yaml_file)
    read = {path[0] for path in outside | references(tree)}
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
    if tag_of(node).startswith(("!new:", "!apply:", "!name:", INCLUDE)):
        return True
    return any(makes_objects(child) for _, child in children(node))
