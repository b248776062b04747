"""The report as one HTML page that needs nothing but itself."""

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report_figures as figures
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from report_runs import span_of

from speechbrain_slm.utils.files import read_regular

SIZE = {
    "width": figures.WIDTH,
    "height": figures.HEIGHT,
    "right": figures.RIGHT,
    "strip": figures.STRIP,
}
# What results hang on most; the whole list is folded.
PACKAGES = (
    *("speechbrain_slm", "speechbrain", "torch", "torchaudio"),
    *("transformers", "numpy", "scikit-learn", "ctranslate2"),
)
MAX_BYTES = 1 << 20  # of a file that is shown
# A path in quotes may hold spaces; // begins the rest of an address.
_QUOTED = re.compile(r"""(["'])/(?!/)(?:[^"'\n]*/)?([^"'/\n]+)/?\1""")
_BEGIN = r"(?<![\w.~…/-])(?<!:/)/(?!/)"
_PART = r"""[^\s"',:;=(){}\[\]/]+"""
_PATH = re.compile(f"{_BEGIN}(?:{_PART}/)*({_PART})/?")
_HERE = re.compile(f"{_BEGIN}(?:{_PART}/)*?(?=(?:recipes|tools|hparams)/)")


@dataclass(frozen=True)
class Made:
    """How a stage was run, without the places of this disk."""

    name: str  # of its folder
    command: str
    settings: str  # hyperparams.yaml


def render(script: str = "report.js", **content: Any) -> str:
    """Fill the template; whatever is text in ``content`` is text there."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder, encoding="utf-8"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["arrow"] = lambda name: name.replace(">", " → ")
    environment.filters |= {"versions": versions, "span": span_of}
    code = (folder / script).read_text(encoding="utf-8")
    # The browser runs the script of this sum, and no other.
    digest = hashlib.sha256(code.encode("utf-8")).digest()
    return environment.get_template("report.html").render(
        script=Markup(code),
        script_hash=base64.b64encode(digest).decode("ascii"),
        size=SIZE,
        **content,
    )


def without_places(text: str) -> str:
    """Leave the last part of every absolute path.

    Example
    -------
    >>> without_places("--units_folder /home/anna/units, see https://a.b/c")
    '--units_folder …/units, see https://a.b/c'
    >>> without_places("# Resolved from /home/anna/slm/recipes/A/train.py")
    '# Resolved from recipes/A/train.py'
    """
    # Of the repository, more may be told.
    text = _HERE.sub("", text)
    return _PATH.sub(r"…/\1", _QUOTED.sub(r"\1…/\2\1", text))


def how_made(folders: dict[str, Path]) -> tuple[list[Made], dict]:
    """Read how stages were run, and on what; some say nothing.

    The second is text of ``env.log`` -> names of stages.
    """
    found, environments = [], {}
    for name, folder in folders.items():
        texts = {}
        for file in ("hyperparams.yaml", "env.log"):
            path = folder / file
            if path.is_file():
                content = read_regular(path, MAX_BYTES)
                texts[file] = without_places(content.decode("utf-8", "replace"))
        around, _, command = texts.get("env.log", "").partition("\nCommand: ")
        if around:
            environments.setdefault(around, []).append(name)
        if settings := texts.get("hyperparams.yaml"):
            found.append(Made(name, command.partition("\n")[0], settings))
    return found, environments


def versions(environment: str) -> list[str]:
    r"""Choose the lines of ``env.log`` that results hang on most.

    Example
    -------
    >>> versions("Python 3.11.7 (main)\n…/python\n\ntorch==2.14.1\na==1\n")
    ['Python 3.11.7', 'torch 2.14.1']
    """
    lines = environment.splitlines()
    found = dict(line.split("==", 1) for line in lines if "==" in line)
    python = [" ".join(line.split()[:2]) for line in lines[:1]]
    other = [line for line in lines if line.startswith(("Git ", "CUDA: "))]
    known = [f"{name} {found[name]}" for name in PACKAGES if name in found]
    return python + known + other
