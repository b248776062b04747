"""Where stories are read from."""

import json
import sys
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speechbrain_slm.stories import sources
from speechbrain_slm.stories.sources import (
    HubStories,
    JSONLines,
    MiniCorpus,
    ParquetStories,
    SeparatedText,
    TextFolder,
)

STORIES = ["One.\n\nA second paragraph.", "Two, with “quotes”.", "", "Four."]
COLUMNS = {"en": "text"}


def texts(source, language="en"):
    return [story.texts[language] for story in source]


def write_separated(path, end=True):
    text = "\n<|endoftext|>\n".join(STORIES)
    path.write_text(text + ("\n<|endoftext|>\n" if end else ""), "utf-8")
    return SeparatedText(path, "en", "tiny")


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("block", [3, 7, 1 << 20])
def test_separated_text(tmp_path, monkeypatch, block, end):
    """The separator may lie across blocks; an empty story is a story."""
    monkeypatch.setattr(sources, "BLOCK", block)
    source = write_separated(tmp_path / "tiny.txt", end)
    assert [text.strip() for text in texts(source)] == STORIES
    assert [s.place for s in source] == [f"tiny.txt:{n}" for n in range(1, 5)]
    assert {s.story_id for s in source} == {None}
    assert source.languages == ("en",)


def test_separated_text_of_a_folder_and_bad_bytes(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfCaf\xe9.<|endoftext|>")
    write_separated(tmp_path / "a.txt")
    found = texts(SeparatedText(tmp_path, "en", "tiny"))
    assert len(found) == 5
    assert found[-1] == "Caf\ufffd."


def test_separated_text_is_read_as_a_stream(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text(("There was a cat. " * 50 + "<|endoftext|>") * 20_000)
    tracemalloc.start()
    assert sum(1 for _ in SeparatedText(path, "en", "tiny")) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 2


def test_not_separated_text(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("A story. " * 10)
    with pytest.raises(ValueError, match=r"a.txt: no '<\|endoftext\|>' in it"):
        texts(SeparatedText(path, "en", "tiny"))
    monkeypatch.setattr(sources, "LONGEST_STORY", 50)
    with pytest.raises(ValueError, match="in 50 characters"):
        texts(SeparatedText(path, "en", "tiny"))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: SeparatedText(path, "en", "x"),
        lambda path: ParquetStories(COLUMNS, "x", paths=path),
        lambda path: JSONLines(COLUMNS, "x", paths=[path]),
    ],
)
def test_no_file_or_an_empty_one(tmp_path, make):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    for name, message in (
        ("missing", "missing: expected"),
        ("folder", "a folder without any"),
        ("empty", "empty is empty"),
    ):
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            texts(make(tmp_path / name))


def test_text_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "b.txt").write_text("B.")
    (tmp_path / "inside" / "a.txt").write_text("")
    (tmp_path / "c.md").write_text("No.")
    source = TextFolder(str(tmp_path), "en", "mine")
    found = {story.place: story.texts["en"] for story in source}
    assert found == {"b.txt": "B.", "inside/a.txt": ""}
    assert texts(TextFolder([tmp_path / "b.txt"], "en", "mine")) == ["B."]
    with pytest.raises(FileNotFoundError, match=r"\*\.rst"):
        texts(TextFolder(tmp_path, "en", "mine", "*.rst"))


def test_parquet_in_row_groups(tmp_path):
    told = [["Ah."], None]
    table = pa.table({"t": STORIES * 3, "n": range(12), "f": told * 6})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=5)
    source = ParquetStories({"en": "t", "fr": "f"}, "tiny", paths=tmp_path)
    assert source.languages == ("en", "fr")
    assert (texts(source), texts(source, "fr")) == (STORIES * 3, told * 6)
    assert [s.place for s in source][-1] == "a.parquet, row 11"
    named = ParquetStories({"en": "t"}, "t", "n", paths=path)
    assert [s.story_id for s in named][:2] == ["0", "1"]


def test_bad_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"story": STORIES}), path)
    with pytest.raises(ValueError, match=r"\(s\) text; found story"):
        texts(ParquetStories(COLUMNS, "t", paths=path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read"):
        texts(ParquetStories(COLUMNS, "t", paths=path))


def test_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"story_id": 7, "en": ["Hi."], "fr": ["Ah."]}, {"en": ["Yo."]}]
    path.write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    columns = {"en": "en", "fr": "fr"}
    found = list(JSONLines(columns, "p", "story_id", paths=path))
    assert [story.story_id for story in found] == ["7", None]
    assert found[1].texts == {"en": ["Yo."], "fr": None}
    assert found[1].place == "a.jsonl, row 1"
    path.write_bytes(json.dumps(rows[0]).encode("utf-8-sig"))
    assert len(list(JSONLines(columns, "p", paths=path))) == 1


def test_a_line_that_is_no_story_costs_no_other(tmp_path):
    path = tmp_path / "a.jsonl"
    good = '{"id": %s, "en": ["Hi."]}\n'
    lines = [good % '"01"', '{"en": [\n', "[1]\n", good % "1", good % "1.0"]
    path.write_text("".join([*lines, good % '"\\ud83d"']))
    found = list(JSONLines({"en": "en"}, "p", "id", paths=path))
    assert [(story.story_id, story.fault[:9]) for story in found] == [
        ("01", ""),
        (None, "not valid"),
        (None, "found [1]"),
        ("1", ""),
        *[(None, "id: found")] * 2,
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("One. Two.".encode("utf-16"), "is in UTF-16"),
    ],
)
def test_a_text_file_that_is_none_is_told(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    for source in (SeparatedText, TextFolder):
        with pytest.raises(ValueError, match=rf"a\.txt.*{message}"):
            texts(source(tmp_path, "en", "x"))


def test_hidden_files_are_no_stories(tmp_path):
    (tmp_path / ".ipynb_checkpoints").mkdir()
    for name in ("a.txt", "._a.txt", ".ipynb_checkpoints/a.txt"):
        (tmp_path / name).write_text("A story.<|endoftext|>")
    for source in (SeparatedText, TextFolder):
        assert len(texts(source(tmp_path, "en", "x"))) == 1


def test_a_hub_that_is_none(monkeypatch):
    source = HubStories(COLUMNS, "tiny", dataset="no/such-set")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "datasets", None)
        with pytest.raises(ImportError, match="pip install datasets"):
            texts(source)
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"hf download .* no/such-set"):
        texts(source)


def test_hub_data_set_in_a_folder(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    pq.write_table(
        pa.table({"text": STORIES}), folder / "data" / "train-0.parquet"
    )
    source = HubStories(COLUMNS, "tiny", dataset=str(folder))
    assert texts(source) == STORIES
    assert [story.place for story in source][1].endswith("set/train, row 1")
    with pytest.raises(ValueError, match=r"\(s\) story; found text"):
        texts(HubStories({"en": "story"}, "tiny", dataset=str(folder)))


def test_mini_corpus():
    source = MiniCorpus(20, ["en", "fr"], seed=2)
    stories = [story.texts for story in source]
    assert len({tuple(story["en"]) for story in stories}) == 20
    assert all(len(told["en"]) == len(told["fr"]) > 2 for told in stories)
    english = [story["en"] for story in stories]
    assert english == texts(MiniCorpus(20, ["en"], seed=2))
    assert english != texts(MiniCorpus(20, ["en"], seed=3))
