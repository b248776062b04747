"""What ``train.py --help`` prints: read from the files, nothing is imported."""

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from speechbrain_slm.utils import command_line
from speechbrain_slm.utils.yaml_tree import INCLUDE, find_fragment, read_tree

_KEY = re.compile(r"(\w+):\s*(.*?)\s*(?:(?<=\s)# ?(.*))?$")
_COLUMN = 34  # where what is said of a key begins


def recipe_help(arguments: list[str]) -> str:
    """Describe the script that runs, the keys of a YAML file, the run options.

    Where the arguments begin with no YAML file, the smallest stands for all.
    """
    script = Path(sys.argv[0])
    there = sorted((script.parent / "hparams").glob("*.yaml"))
    # The one that runs without a download comes first.
    there.sort(key=lambda path: path.stem != "mini")
    given = not arguments[0].startswith("-")
    shown = [command_line.find_yaml(arguments)[0]] if given else there[:1]
    lines = [
        (sys.modules["__main__"].__doc__ or script.name).strip(),
        "",
        f"usage: python {script} YAML_FILE [--key value ...]",
        "       a group of keys: --key '{inner: value}'",
    ]
    if there and not given:
        lines += ["", "YAML files:"]
        for path in there:
            first = path.read_text("utf-8").partition("\n")[0].lstrip("# ")
            lines += [f"  {path}", f"      {first}"]
    for path in map(Path, shown):
        lines += ["", f"Keys of {path}, and what they are set to:", ""]
        lines += [*_keys(path), "", "Run options:", ""]
        tree = read_tree(path)
        hidden = command_line.UNSUPPORTED.keys() | tree.keys()
        for name in sorted(command_line.options_of(tree) - hidden):
            lines += _entry(f"  --{name}", command_line.HELP[name])
    return "\n".join(line.rstrip() for line in lines)


def _entry(head: str, text: str | None) -> list[str]:
    lines = textwrap.wrap(text or "", 79 - _COLUMN)
    if len(head) < _COLUMN - 1 and lines:
        head = f"{head:{_COLUMN}}{lines.pop(0)}"
    return [head] + [" " * _COLUMN + line for line in lines]


def _keys(path: Path) -> Iterator[str]:
    """Rewrite a YAML file: its keys as options, its comments as they stand."""
    text = path.read_text(encoding="utf-8")
    # A key with what is indented below it, a comment, or an empty line.
    for block in re.split(r"\n(?=\S|\n|$)", text):
        line, *below = block.split("\n")
        key = _KEY.match(line)
        if key is None:
            yield f"  {line}"
        elif not key[1].startswith("__"):
            yield from _entry(f"  --{key[1]} {key[2]}", key[3])
            yield from (f"  {line}" for line in below)
            if key[2].startswith(INCLUDE):
                fragment = find_fragment(path, key[2].split()[0])
                yield from _others(fragment, "\n".join(below))


def _others(fragment: Path, above: str) -> Iterator[str]:
    """List the keys of a fragment, but those that the recipe's file sets."""
    # Objects are made of the keys: they are not for users.
    objects = ("!new:", "!apply:", "!name:")
    for key in map(_KEY.match, fragment.read_text("utf-8").splitlines()):
        if not key or key[2].startswith(objects):
            continue
        if f" {key[1]}:" not in above:
            yield from _entry(f"      {key[1]}: {key[2]}", key[3])
