"""A model is completed before it is published, and its card with it."""

import pytest
from cloze_example import export, tiny_model, write_items
from lm_example import save_vocoder
from processes import ROOT, load_script

from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze
from speechbrain_slm.models.export import examine_speech_lm
from speechbrain_slm.utils.atomic import write_atomic

CARD = """\
---
license: other
language: [en]
---

# My own title

## Scores

None yet.

## Training

Long.
"""


@pytest.fixture(scope="module")
def complete():
    return load_script(ROOT / "tools/model_card.py").main


@pytest.fixture
def folder(tmp_path):
    folder = export(tmp_path / "model")
    write_atomic(folder / "README.md", CARD)
    return folder


def test_a_card_gets_scores_vocoder_and_licence(
    complete, folder, store_folder, tmp_path
):
    items = write_items(tmp_path / "items.parquet")
    scores = tmp_path / "cloze"
    results = evaluate_cloze(folder, store_folder, items, scores)
    given = ["--cloze", str(scores), "--license", "cc-by-4.0"]
    given += ["--vocoder", save_vocoder(tmp_path / "vocoder")]
    for _ in range(2):
        complete([str(folder), *given])
    card = (folder / "README.md").read_text()
    assert card.startswith(
        "---\nlicense: cc-by-4.0\nlanguage: [en]\n---\n\n# My"
    )
    assert card.count("## Scores") == 1
    assert "None yet" not in card
    for one in results["records"]:
        if one["scoring"] == results["scoring"]:
            shown = f"| {one['metric']} | {one['direction']} | "
            assert f"{shown}{one['accuracy']:.1f} [" in card
    assert card.index("## Scores") < card.index("## Training\n\nLong.\n")
    assert card.count("## Speech out\n\n```python\nwaveform, units =") == 1
    assert card.endswith("## Licence\n\ncc-by-4.0.\n")
    assert (folder / "vocoder/vocoder.json").is_file()
    examine_speech_lm(folder)
    assert str(tmp_path) not in card


def test_scores_of_another_model_are_refused(
    complete, folder, store_folder, tmp_path
):
    other = export(tmp_path / "other", tiny_model(seed=1))
    items = write_items(tmp_path / "items.parquet")
    evaluate_cloze(other, store_folder, items, tmp_path / "cloze")
    with pytest.raises(ValueError, match="holds scores of another model"):
        complete([str(folder), "--cloze", str(tmp_path / "cloze")])
    assert (folder / "README.md").read_text() == CARD


@pytest.mark.parametrize(
    ("card", "head"),
    [
        ("", "---\nlicense: mit\n---\n"),
        (
            "---\ntags: [a]\nlicense: other\n---\n\n# It\n",
            "---\nlicense: mit\ntags: [a]\n---\n\n# It\n",
        ),
    ],
)
def test_the_hub_reads_the_licence_whatever_the_card_was(
    complete, folder, card, head
):
    (folder / "README.md").write_text(card)
    complete([str(folder), "--license", "mit"])
    found = (folder / "README.md").read_text()
    assert found.startswith(head)
    assert found.count("license:") == 1
