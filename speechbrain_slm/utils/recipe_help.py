"""What ``train.py --help`` prints: read from the files, nothing is imported."""

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from speechbrain_slm.utils.command_line import (
    HELP,
    UNSUPPORTED,
    options_of,
)
from speechbrain_slm.utils.yaml_tree import INCLUDE, find_fragment, read_tree

_KEY = re.compile(r"(\w+):\s*(.*?)\s*(?:(?<=\s)# ?(.*))?$")
_COLUMN = 34  # where what is said of a key begins


def recipe_help(arguments: list[str]) -> str:
    """Describe the script that runs, the keys of a YAML file, the run options.

    Arguments
    ---------
    arguments : May begin with the YAML file; else the script's smallest stands
        for all of them.
    """
    script = Path(sys.argv[0])
    there = sorted((script.parent / "hparams").glob("*.yaml"))
    # The one that runs without a download comes first.
    there.sort(key=lambda path: path.stem != "mini")
    given = [Path(text) for text in arguments[:1] if not text.startswith("-")]
    shown = (given or there)[:1]
    lines = [
        (sys.modules["__main__"].__doc__ or script.name).strip(),
        "",
        f"usage: python {script} YAML_FILE [--key value ...]",
        "       a group of keys: --key '{inner: value}'",
    ]
    if there and not given:
        lines += ["", "YAML files:", *(f"  {path}" for path in there)]
    for path in shown:
        lines += ["", f"Keys of {path}, and what they are set to:", ""]
        lines += _keys(path)
        lines += ["", "Run options:", ""]
        tree = read_tree(path)
        for name in sorted(options_of(tree) - UNSUPPORTED.keys() - tree.keys()):
            lines += _entry(f"  --{name}", HELP[name])
    return "\n".join(line.rstrip() for line in lines)


def _entry(head: str, text: str | None) -> list[str]:
    """Lay out what is said of a key: beside it, or below where it is long."""
    lines = textwrap.wrap(text or "", 79 - _COLUMN)
    if len(head) < _COLUMN - 1 and lines:
        head = f"{head:{_COLUMN}}{lines.pop(0)}"
    return [head] + [" " * _COLUMN + line for line in lines]


def _keys(path: Path) -> Iterator[str]:
    """Rewrite a YAML file: its keys as options, its comments as they stand."""
    text = path.read_text(encoding="utf-8")
    for block in re.split(r"\n(?=\S|\n)", text):
        line, *below = block.split("\n")
        key = _KEY.match(line)
        if key is None or key[1].startswith("__"):
            yield from () if key else ["  " + block if block else ""]
            continue
        yield from _entry(f"  --{key[1]} {key[2]}", key[3])
        yield from ("  " + line for line in below)
        if key[2].startswith(INCLUDE):
            tag = key[2].split()[0]
            fragment = find_fragment(path, tag).read_text(encoding="utf-8")
            for key in map(_KEY.match, fragment.splitlines()):
                # Objects are made of keys; what the recipe sets stands above.
                made = ("!new:", "!apply:", "!name:")
                if not key or key[2].startswith(made):
                    continue
                if not any(f" {key[1]}:" in line for line in below):
                    yield from _entry(f"      {key[1]}: {key[2]}", key[3])
