"""YAML files as they are written, and the fragments that they include."""

import sys
from pathlib import Path

import ruamel.yaml

from speechbrain_slm.utils.files import read_regular

INCLUDE = "!include:"
_SHARED = "hparams/"  # where the fragments stand in the repository


class ConfigurationError(ValueError):
    """A command line or a YAML file that does not say what to run."""


def read_tree(path: str | Path) -> dict:
    """Read a YAML file without making its objects.

    Returns
    -------
    Its content, tags kept (ruamel's round-trip tree).

    Raises
    ------
    ConfigurationError
        If it is not YAML in UTF-8, or no mapping.
    """
    try:
        tree = ruamel.yaml.YAML().load(read_regular(path).decode("utf-8"))
    except (ruamel.yaml.error.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path}: expected a mapping at the root")
    return tree


def tag_of(node: object) -> str:
    """Return the tag of a YAML node.

    Arguments
    ---------
    node : Of a tree from :func:`read_tree`.

    Returns
    -------
    Empty where it has none.
    """
    tag = getattr(node, "tag", None)
    return (tag.value or "") if tag is not None else ""


def children(node: object) -> list[tuple]:
    """Return what stands in a mapping or a list.

    Arguments
    ---------
    node : Of a tree from :func:`read_tree`.

    Returns
    -------
    (key or number, child); none for anything else.
    """
    if isinstance(node, dict):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, list) else []


def find_fragment(path: str | Path, tag: str) -> Path:
    """Find the file that an ``!include`` names.

    Arguments
    ---------
    path
        The file that includes it. Of a copy of a recipe's file that was put
        elsewhere, ``hparams/...`` is looked for in the repository of the
        script that runs, and of this package.
    tag : ``!include:<path>``, relative to the including file.

    Raises
    ------
    ConfigurationError
        If there is no such file.
    """
    name = tag[len(INCLUDE) :]
    fragment = Path(path).parent / name
    if fragment.is_file():
        return fragment
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
