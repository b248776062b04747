"""The layers of the package, read from the imports."""

import ast
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "speechbrain_slm"
SECOND = ("stories", "speech", "benchmarks", "units", "dataio", "models")
BELOW = {
    "": {"inference"},  # its front door, which opens when it is knocked at
    "utils": set(),
    **{name: {"utils"} for name in SECOND},
    "evaluation": {"utils", *SECOND},
    "brains": {"utils", *SECOND, "evaluation"},
    "inference": {"utils", *SECOND, "evaluation"},
}
# What is run, not imported, beside the package.
SCRIPTS = ("recipes", "tools", "tests")


def imported(path, root):
    """Yield the dotted names that a file imports, relative ones resolved."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                parts = path.relative_to(root).with_suffix("").parts
                base = [*parts[: len(parts) - node.level], *base]
            # Each name may be a module: from speechbrain_slm import units.
            for alias in node.names:
                yield ".".join([*base, alias.name])


def local_names(root, folder):
    return {path.stem for path in (root / folder).rglob("*.py")}


def violations(root):
    """List every import that a file's layer does not allow."""
    found = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).parts
        own = parts[1] if len(parts) > 2 else ""
        here = path.relative_to(root).as_posix()
        if own not in BELOW:
            found.append(f"{here}: '{own}' has no layer")
            continue
        for name in imported(path, root):
            head, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if head in SCRIPTS or (
                head == PACKAGE
                and other in BELOW.keys() - {own}
                and other not in BELOW[own]
            ):
                found.append(f"{here} imports {name}")
    for folder, foreign in (("recipes", "tools"), ("tools", "recipes")):
        others = local_names(root, foreign) | set(SCRIPTS)
        for path in sorted((root / folder).rglob("*.py")):
            found += [
                f"{path.relative_to(root).as_posix()} imports {name}"
                for name in imported(path, root)
                if name.partition(".")[0] in others
            ]
    return found


def test_layers():
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (
            "speechbrain_slm/utils/a.py",
            "import speechbrain_slm.units.bpe",
        ),
        ("speechbrain_slm/units/a.py", "from speechbrain_slm import dataio"),
        ("speechbrain_slm/dataio/a.py", "from ..units.bpe import UnitBPE"),
        ("speechbrain_slm/models/a.py", "from .. import speech"),
        ("speechbrain_slm/speech/tts/a.py", "from ...units import bpe"),
        ("speechbrain_slm/stories/a.py", "def f():\n    import tools.report"),
        ("speechbrain_slm/evaluation/a.py", "import speechbrain_slm.brains.lm"),
        (
            "speechbrain_slm/brains/a.py",
            "from speechbrain_slm.inference import b",
        ),
        ("speechbrain_slm/inference/a.py", "import speechbrain_slm.brains"),
        ("speechbrain_slm/zoo/a.py", ""),
        ("recipes/Data/task/train.py", "import report"),
        ("tools/b.py", "from prepare import stories"),
        ("tools/b.py", "import recipes.Data.prepare"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, path, line):
    allowed = {
        "speechbrain_slm/__init__.py": "",
        "speechbrain_slm/units/bpe.py": "from speechbrain_slm.utils import c",
        "speechbrain_slm/brains/lm.py": "import speechbrain_slm.evaluation.d\n"
        "from ..dataio import e\nfrom .base import g",
        "recipes/Data/prepare.py": "import speechbrain_slm.brains.lm",
        "recipes/Data/task/train.py": "from prepare import stories",
        "tools/report.py": "from speechbrain_slm.evaluation import h",
    }
    for name, text in allowed.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert violations(tmp_path) == []
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(line)
    assert [entry.split()[0].rstrip(":") for entry in violations(tmp_path)] == [
        path
    ]


@pytest.mark.parametrize(
    ("pattern", "most"),
    [("recipes/**/train.py", 80), (f"{PACKAGE}/**/*.py", 350)],
)
def test_files_stay_short(pattern, most):
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in ROOT.glob(pattern)
    }
    assert lengths
    assert {name: n for name, n in lengths.items() if n > most} == {}


def test_public_signatures_are_typed():
    """Arguments and results of what a room offers to others."""
    untyped = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes = [
            one
            for one in tree.body
            if isinstance(one, ast.ClassDef) and not one.name.startswith("_")
        ]
        for node in itertools.chain(*(one.body for one in (tree, *classes))):
            if not isinstance(node, ast.FunctionDef):
                continue
            special = node.name in ("__init__", "__call__")
            if node.name.startswith("_") and not special:
                continue
            spec = node.args
            named = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
            bare = [
                one.arg
                for one in named
                if one.annotation is None and one.arg not in ("self", "cls")
            ]
            if bare or (node.returns is None and not special):
                where = path.relative_to(ROOT).as_posix()
                untyped.append(f"{where}: {node.name}({', '.join(bare)})")
    assert untyped == []
