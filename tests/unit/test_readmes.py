"""What is written: commands of recipes that can be, and links that lead on."""

import re
import subprocess
from pathlib import Path

import pytest

from speechbrain_slm.utils.command_line import parse_arguments
from speechbrain_slm.utils.ranges import check_ranges
from speechbrain_slm.utils.yaml_tree import read_tree, resolve

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "recipes", "speechbrain_slm", "tests", "tools")
PAGES = [
    *ROOT.glob("*.md"),
    *(p for f in FOLDERS for p in ROOT.glob(f"{f}/**/*.md")),
]
BLOCK = re.compile(r"^( *)```bash\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")
HEAD = re.compile(r"^#+ (.*)", re.MULTILINE)
# Nothing of a block is run: what would be is written down, shell variables and
# loops gone through. A record ends with \x1e, a word with \x1f.
SHELL = r"""
PATH=/nowhere
# At once, as those that run beside each other do.
python() { printf -v words '%s\x1f' "$@"; printf '%s\x1e' "$words"; }
torchrun() { python "$@"; }
command_not_found_handle() { :; }
cd() { :; }
source() { :; }
exec 2>&-
"""

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


def commands(page, folder):
    """Yield the arguments of each ``train.py`` that a page calls."""
    for indent, code in BLOCK.findall(page.read_text("utf-8")):
        lines = [line.removeprefix(indent) for line in code.splitlines()]
        done = subprocess.run(
            ["bash", "-c", SHELL + "\n".join(lines)],
            **{"cwd": folder, "capture_output": True, "text": True},
        )
        for record in done.stdout.split("\x1e"):
            words = record.split("\x1f")[:-1]
            scripts = [w for w in words if w.endswith("/train.py")]
            if scripts:
                assert (ROOT / scripts[0]).is_file(), record
                yield words[words.index(scripts[0]) + 1 :]


@each_page
def test_recipes_take_what_a_page_gives_them(page, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for arguments in commands(page, tmp_path):
        yaml_file, options, overrides = parse_arguments(arguments)
        known = read_tree(yaml_file)
        overrides |= {key: options[key] for key in options if key in known}
        check_ranges(resolve(yaml_file, overrides), yaml_file)


def anchors(page):
    """Name the headings as GitHub does."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for head in HEAD.findall(text):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", head).strip().lower()
        yield re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@each_page
def test_links_lead_somewhere(page):
    for path, anchor in LINK.findall(page.read_text("utf-8")):
        there = page.parent / path if path else page
        assert there.exists(), path
        there = there / "README.md" if there.is_dir() else there
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{path}#{anchor}"


def test_there_are_commands_to_check(tmp_path):
    told = [*commands(ROOT / "recipes/TinyStories/vocoder/README.md", tmp_path)]
    assert len(told) > 10
    assert ["--judged", "12"] in [one[1:3] for one in told]
