"""The text stage: sources to stories tables and a ledger."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tinystories_example import write_tinystories

from speechbrain_slm.stories import text as text_module
from speechbrain_slm.stories.segmentation import LanguageRules
from speechbrain_slm.stories.sources import JSONLines, RawStory, SeparatedText
from speechbrain_slm.stories.text import prepare_text
from speechbrain_slm.utils.jobs import FolderInUse, lock_folder
from speechbrain_slm.utils.tables import STORIES, STORIES_KEY, read_table

RULES = [LanguageRules(key, ["Latin"], 15, 250) for key in ("en", "fr")]
MENDED = {"mojibake mended", "control characters removed"}


def read(folder):
    """Return split -> story -> its rows, and the ledger."""
    splits = {}
    for path in sorted((folder / "text").glob("*.parquet")):
        splits[path.stem] = stories = {}
        for row in read_table(path, STORIES, STORIES_KEY).to_pylist():
            stories.setdefault(row["story_id"], []).append(row)
    lines = (folder / "left_out.jsonl").read_text().splitlines()
    return splits, [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A file of 200 stories, what is wrong with them, and their tables."""
    folder = tmp_path_factory.mktemp("tiny")
    expected = write_tinystories(folder / "tiny.txt")
    source = SeparatedText(folder / "tiny.txt", "en", "tiny")
    prepare_text(
        folder, source, RULES, shares={"valid": 0.2}, speakers=["a", "b"]
    )
    return folder, source, expected


def test_the_ledger_has_each_defect_and_nothing_else(tiny):
    folder, _, expected = tiny
    splits, ledger = read(folder)
    found = {int(e["place"].partition(":")[2]): e["reason"] for e in ledger}
    assert found == expected
    assert len(ledger) == len(expected) == 25
    assert len(set(expected.values())) == 10
    for entry in ledger:
        mended = entry["reason"] in MENDED
        assert entry["action"] == ("kept" if mended else "dropped")
    dropped = sum(reason not in MENDED for reason in expected.values())
    assert sum(map(len, splits.values())) == 200 - dropped


def test_stories_come_out_whole_and_mended(tiny):
    splits, _ = read(tiny[0])
    assert set(splits["train"]).isdisjoint(splits["valid"])
    tellers = set()
    for stories in splits.values():
        for rows in stories.values():
            assert [row["sentence"] for row in rows] == list(range(len(rows)))
            told = " ".join(row["en"] for row in rows)
            assert told.startswith("Once upon a time, there was a day")
            assert "Mr. Brown?" in told
            assert "see... I know!" in told
            assert not set("â\x07") & set(told)
            tellers.add(tuple({row["speaker"] for row in rows}))
    assert tellers == {("a",), ("b",)}


def test_the_same_bytes_again_and_more_stories_move_none(tiny, tmp_path):
    folder, source, _ = tiny
    shares = {"valid": 0.2}
    paths = prepare_text(
        tmp_path / "again", source, RULES, shares=shares, speakers=["a", "b"]
    )
    for path in paths.values():
        assert path.read_bytes() == (folder / "text" / path.name).read_bytes()
    # Other stories before them, and a limit of stories.
    text = (folder / "tiny.txt").read_text()
    write_tinystories(tmp_path / "more.txt", 40, seed=1)
    more = (tmp_path / "more.txt").read_text()
    (tmp_path / "more.txt").write_text(more + text)
    source = SeparatedText(tmp_path / "more.txt", "en", "tiny")
    prepare_text(tmp_path / "more", source, RULES, shares=shares)
    old, new = read(folder)[0], read(tmp_path / "more")[0]
    for split, stories in old.items():
        assert set(stories) < set(new[split])


def test_row_groups_hold_whole_stories(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "ROW_GROUP", 100)
    paths = prepare_text(tmp_path, tiny[1], RULES, shares={}, limit=100)
    stories, whole = set(read(tmp_path)[0]["train"]), read(tiny[0])[0]
    assert len(stories) == 100
    assert stories < set(whole["train"]) | set(whole["valid"])
    file = pq.ParquetFile(paths["train"])
    assert file.num_row_groups > 5
    groups = [
        set(file.read_row_group(n, ["story_id"])["story_id"].to_pylist())
        for n in range(file.num_row_groups)
    ]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 100


def test_parallel_sentences_stay_aligned(tmp_path):
    rows = [
        {"story_id": "a", "en": ["Hi.", "Bye."], "fr": ["Salut.", "Adieu."]},
        {"story_id": "b", "en": ["Hi.", "Bye!"], "fr": ["Salut !"]},
        {"story_id": "c", "en": ["One.", "Two."], "fr": ["Un.", " "]},
        {"story_id": "d", "en": ["One.", "Two."]},
        {"story_id": "a", "en": ["Ah.", "Oh."], "fr": ["Ah !", "Oh !"]},
        {"story_id": "e", "en": ["So.", "No."], "fr": "Si. Non."},
        {"story_id": "f", "en": ["X.", "Y."], "fr": ["É.", "Æ."]},
        {"story_id": "g", "en": ["Half \ud83d.", "Z."], "fr": ["A.", "B."]},
        {"story_id": "h\ud83d", "en": ["U.", "V."], "fr": ["A.", "B."]},
    ]
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    columns = {"en": "en", "fr": "fr"}
    source = JSONLines(columns, "p", "story_id", paths=path)
    prepare_text(tmp_path, source, RULES, shares={})
    splits, ledger = read(tmp_path)
    told = {
        name: [(row["en"], row["fr"]) for row in rows]
        for name, rows in splits["train"].items()
    }
    assert told == {
        "a": [("Hi.", "Salut."), ("Bye.", "Adieu.")],
        "f": [("X.", "É."), ("Y.", "Æ.")],
    }
    assert ledger.pop()["reason"] == "no row"
    assert [(e["story_id"], e["reason"]) for e in ledger] == [
        ("b", "unequal numbers of sentences"),
        ("c", "empty"),
        ("d", "no text"),
        ("a", "another story has this story_id"),
        ("e", "several languages, not cut into sentences"),
        ("g", "foreign character"),
    ]
    assert (ledger[1]["sentence"], ledger[1]["language"]) == (1, "fr")


def test_refused_at_the_door(tiny, tmp_path):
    source = tiny[1]
    with pytest.raises(ValueError, match=r"no segmentation rules for .* 'en'"):
        prepare_text(tmp_path, source, RULES[1:])
    for shares in ({"train": 0.5}, {"valid": 1.0}):
        with pytest.raises(ValueError, match="sum below 1"):
            prepare_text(tmp_path, source, RULES, shares=shares)
    with pytest.raises(ValueError, match="limit: found 0"):
        prepare_text(tmp_path, source, RULES, limit=0)
    folder = tmp_path / "used"
    with lock_folder(folder / "text"), pytest.raises(FolderInUse):
        prepare_text(folder, source, RULES)


def test_a_refused_run_leaves_what_is_there(tiny, tmp_path):
    """The tables and the ledger of the run before, and those of others."""
    text = tmp_path / "text"
    prepare_text(tmp_path, tiny[1], RULES, shares={"valid": 0.2})
    pq.write_table(pa.table({"story_id": ["a"]}), text / "cloze.parquet")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()}
    with pytest.raises(ValueError, match="no story for valid: 3 were kept"):
        prepare_text(tmp_path, tiny[1], RULES, shares={"valid": 1e-9}, limit=3)
    refused = tmp_path / "left_out.refused.jsonl"
    assert refused.is_file()
    assert {p: p.read_bytes() for p in before} == before
    # Nor is a table of another maker replaced.
    with pytest.raises(FileExistsError, match="was not made by it"):
        prepare_text(tmp_path, tiny[1], RULES, shares={"cloze": 0.2})
    assert {p: p.read_bytes() for p in before} == before
    # One that is not refused takes its own away, and nothing else.
    prepare_text(tmp_path, tiny[1], RULES, shares={})
    names = {path.name for path in text.iterdir()}
    assert names == {"train.parquet", "cloze.parquet", ".lock"}
    assert not refused.exists()


def test_one_name_in_two_files_is_an_error(tmp_path):
    for name in ("a", "b"):
        line = f'{{"id": %s, "en": ["Text {name} of %s.", "An end."]}}\n'
        lines = [line % (n, n) for n in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    source = JSONLines({"en": "en"}, "p", "id", paths=tmp_path)
    with pytest.raises(ValueError, match=r"b\.jsonl, row 0: .*the name '0'"):
        prepare_text(tmp_path / "out", source, RULES, shares={})
    source = JSONLines({"en": "en"}, "p", paths=tmp_path)
    prepare_text(tmp_path / "out", source, RULES, shares={})
    assert len(read(tmp_path / "out")[0]["train"]) == 6


class Failing:
    """A source that breaks off after some stories."""

    name, languages = "broken", ("en",)

    def __iter__(self):
        for number in range(600):
            text = f"There was story {number} here. And now it ends well."
            yield RawStory(None, {"en": text}, str(number))
        raise OSError("the disk is gone")


def test_a_source_that_breaks_off_changes_nothing(tiny, tmp_path):
    paths = prepare_text(tmp_path, tiny[1], RULES, shares={})
    before = paths["train"].read_bytes()
    with pytest.raises(OSError, match="the disk is gone"):
        prepare_text(tmp_path, Failing(), RULES, shares={})
    assert paths["train"].read_bytes() == before
    names = {path.name for path in (tmp_path / "text").iterdir()}
    assert names == {"train.parquet", ".lock"}
