"""The notebook in docs and the README, each line run on random weights."""

import json
import re

import pytest
from processes import ROOT
from slm_example import export_slm, write_stories

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A folder in which there is what the quickstart leaves."""
    folder = tmp_path_factory.mktemp("tour")
    results = folder / "results" / "quickstart"
    write_stories(results / "synthesis", "cloze", sentences=4)
    export_slm(results / "LM" / "interleaved_ft" / "model", vocoder=True)
    return folder


def test_notebook(quickstart, monkeypatch, capsys):
    notebook = json.loads((ROOT / "docs" / "tour.ipynb").read_text())
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    # What they show is the reader's own.
    assert not any(cell["outputs"] for cell in cells)
    (quickstart / "docs").mkdir()
    monkeypatch.chdir(quickstart / "docs")
    names = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    # The last one compares a model with itself.
    assert capsys.readouterr().out.splitlines()[-1] == "[0. 0.]"


def test_readme(quickstart, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(
        r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    )
    monkeypatch.chdir(quickstart)
    exec(block, {})
    found = {path.name for path in quickstart.glob("*.wav")}
    assert found == {"heard.wav", "english.wav", "french.wav"}
    assert (quickstart / "results" / "hub" / "models--user--mini-slm").is_dir()
