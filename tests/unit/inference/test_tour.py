"""The notebook in docs, each of its cells run on models of random weights."""

import json

import pytest
from processes import ROOT
from slm_example import export_slm, write_stories


@pytest.mark.long
def test_tour(tmp_path, monkeypatch, capsys):
    notebook = json.loads((ROOT / "docs" / "tour.ipynb").read_text())
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    # What they show is the reader's own.
    assert not any(cell["outputs"] for cell in cells)
    results = tmp_path / "results" / "quickstart"
    write_stories(results / "synthesis", "cloze")
    export_slm(results / "LM" / "interleaved_ft" / "model", vocoder=True)
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    names = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    # The last one compares a model with itself.
    assert capsys.readouterr().out.splitlines()[-1] == "[0. 0.]"
    assert len(names["units"]) > 0
