"""Which endings training stories already join to a prompt's last sentence."""

import pytest
from processes import ROOT

from speechbrain_slm.benchmarks.spoken_items import item_table, items_of
from speechbrain_slm.utils.tables import stories_table, story_rows, write_table

LANGUAGES = ["en", "fr"]


def told(texts):
    """Make a table of {story: English sentences}; in French it is 'le ...'."""
    rows = []
    for name, english in texts.items():
        both = {"en": english, "fr": [f"le {text}" for text in english]}
        rows += story_rows(name, both, speaker="anna")
    return stories_table(rows, ["speaker", *LANGUAGES])


@pytest.mark.parametrize("between", ["", "storm"])
def test_pairs_of_sentences_are_counted(tmp_path, monkeypatch, capsys, between):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import known_endings

    train = {"a": ["sun", *between.split(), "sea"], "b": ["sun"]}
    cloze = {"x.prompt": ["ice", "sun"], "x.right": ["sea"], "x.wrong": ["ice"]}
    for name, texts in (("train", train), ("cloze", cloze)):
        write_table(tmp_path / f"text/{name}.parquet", told(texts))
    items = items_of(["x"], "sSC", "wrong", LANGUAGES)
    write_table(tmp_path / "items.parquet", item_table(items))
    known_endings.main([str(tmp_path)])
    # In all four directions: 'sea' behind 'sun', unless 'storm' is between.
    share = "0.0%" if between else "100.0%"
    line = f"| sSC | 4 | {share} | 0.0% |"
    assert capsys.readouterr().out.splitlines()[-1] == line
