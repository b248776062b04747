import numpy as np
import pyarrow as pa
import pytest
from units_example import sha256

from speechbrain_slm.units import rows
from speechbrain_slm.units.rows import (
    KEY_COLUMNS,
    KeyIndex,
    Rows,
    StoryOrder,
    codes,
    first_rows,
    keys,
    parts,
)
from speechbrain_slm.utils import scratch
from speechbrain_slm.utils.tables import MANIFEST


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK", 7)
    monkeypatch.setattr(scratch, "BLOCK", 7)


def table(stories=9, languages=("en", "fr"), sentences=4, seed=0):
    """Make a manifest's rows, mixed, in chunks of unlike size."""
    told = [
        {"story_id": f"s{story}", "language": language, "sentence": sentence}
        for story in range(stories)
        for language in languages
        for sentence in range(1 + (story + sentences) % sentences)
    ]
    order = np.random.default_rng(seed).permutation(len(told))
    names = ("story_id", "language", "sentence")
    schema = pa.schema([MANIFEST.field(name) for name in names])
    whole = pa.Table.from_pylist([told[i] for i in order], schema=schema)
    return pa.concat_tables([whole[:10], whole[10:11], whole[11:]])


def test_rows_of_any_chunk_come_in_the_order_asked_for():
    whole = table()
    wanted = np.random.default_rng(1).integers(0, len(whole), 80)
    found = Rows(whole).take(wanted)["story_id"].to_pylist()
    every = whole["story_id"].to_pylist()
    assert found == [every[number] for number in wanted]
    assert len(Rows(whole).take([])) == 0


def test_empty_chunks_are_passed_over():
    whole = table()
    chunked = pa.concat_tables([whole[:0], whole[:3], whole[:0], whole[3:]])
    found = [len(batch) for _, batch in parts(chunked, ["story_id"])]
    assert sum(found) == len(whole)
    assert all(found)


SOME = np.random.default_rng(2).permutation(40)[:25]


@pytest.mark.parametrize("which", [None, SOME, SOME[:0]])
def test_columns_are_those_of_the_rows_asked_for(which):
    whole = table()
    picked = whole if which is None else whole.take(pa.array(which))
    language, names = codes(whole, "language", which)
    every = picked["language"].to_pylist()
    assert [names[code] for code in language] == every
    assert names == list(dict.fromkeys(every))
    first = first_rows(whole, "story_id", which)
    every = picked["story_id"].to_pylist()
    assert first.tolist() == [every.index(name) for name in every]


@pytest.mark.parametrize("which", [None, SOME])
def test_stories_are_in_the_order_of_their_first_rows(which):
    whole = table()
    told = (whole if which is None else whole.take(pa.array(which))).to_pylist()
    stories = list(dict.fromkeys(row["story_id"] for row in told))
    languages = list(dict.fromkeys(row["language"] for row in told))

    def place(row):
        story, language = row["story_id"], row["language"]
        return stories.index(story), languages.index(language), row["sentence"]

    expected = sorted(told, key=place)
    found = StoryOrder(whole, which)
    assert [told[row] for row in found.order] == expected
    groups = [(row["story_id"], row["language"]) for row in expected]
    names = [told[row]["story_id"] for row in found.story]
    assert names == [story for story, _ in groups]
    assert found.sentence.tolist() == [row["sentence"] for row in expected]
    begins = [groups.index(one) for one in dict.fromkeys(groups)]
    assert found.bounds.tolist() == [*begins, len(expected)]
    assert np.flatnonzero(found.begins).tolist() == begins


def audio(count, repeats=1):
    """Make rows whose keys stand ``repeats`` times each, mixed, in chunks."""
    numbers = np.random.default_rng(0).permutation(count) // repeats
    told = {"language": "en", "num_samples": 5, "sample_rate": 7}
    rows = [told | {"sha256": sha256(str(number))} for number in numbers]
    schema = pa.schema([MANIFEST.field(name) for name in KEY_COLUMNS])
    whole = pa.Table.from_pylist(rows, schema=schema)
    return pa.concat_tables(whole.slice(at, 20) for at in range(0, count, 20))


@pytest.mark.parametrize("repeats", [1, 3])
def test_index_is_in_the_order_of_sha256(repeats):
    whole = audio(60, repeats)
    index = KeyIndex(whole)
    every = whole["sha256"].to_pylist()
    assert [every[row] for row in index.records["row"]] == sorted(every)
    first = index.first()["row"]
    assert [every[row] for row in first] == sorted(set(every))
    # The first of each in the table's own order.
    assert all(every.index(every[row]) == row for row in first)
    found = index.find(keys(whole.combine_chunks().to_batches()[0]))
    assert [every[row] for row in found] == every
    assert set(found) == set(first)


@pytest.mark.parametrize(
    "changes", [{"language": "fr"}, {"num_samples": 6}, {"sample_rate": 8}]
)
def test_everything_that_decides_the_units_is_in_the_key(changes):
    whole = audio(20)
    other = [row | changes for row in whole.to_pylist()]
    batch = pa.RecordBatch.from_pylist(other, schema=whole.schema)
    assert (KeyIndex(whole).find(keys(batch)) == -1).all()
    assert (KeyIndex(whole.slice(0, 0)).find(keys(batch)) == -1).all()
