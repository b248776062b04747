"""Pairs that are made of stories."""

import json

import pyarrow.parquet as pq
import pytest
from conftest import TOKENIZER

from speechbrain_slm.dataio.preference import write_ending_pairs
from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.utils.store import StoreWriter

DIRECTIONS = ["en", "en>fr", "fr>en"]


def test_pairs_of_endings(store_folder, tmp_path):
    """All directions alike, the same other story in each; made alike again."""
    paths = [tmp_path / name / "pairs.parquet" for name in "ab"]
    for path in paths:
        write_ending_pairs(path, store_folder, DIRECTIONS, 50, seed=3)
    rows, again = (pq.read_table(path).to_pylist() for path in paths)
    assert rows == again
    store = UnitStore(store_folder)
    ids = store.story_ids.to_pylist()
    assert [row["pair_id"] for row in rows[:3]] == [
        f"{rows[0]['group']} {direction}" for direction in DIRECTIONS
    ]
    assert len(rows) == 48  # 16 stories, three times
    others = {}
    for row in rows:
        own = store.story(row["group"], row["prompt_language"])
        assert row["prompt"] == [u for part in own[:-1] for u in part.tolist()]
        language = row["ending_language"]
        last = store.story(row["group"], language)[-1].tolist()
        assert row["chosen"] == last != row["rejected"]
        found = {
            name
            for name in ids
            if store.story(name, language)[-1].tolist() == row["rejected"]
        }
        known = others.setdefault(row["group"], found)
        others[row["group"]] = known & found
        assert row["tokenizer"] == "codebook-a"
    assert all(others.values())


def write(folder, rows):
    writer = StoreWriter(folder, TOKENIZER, "2b", 1)
    writer.write(0, rows)
    writer.finish()


def test_a_voice_gives_no_hint_and_what_makes_no_pair_is_listed(tmp_path):
    rows = [
        ("alto-1", "en", "alto", [[1], [2]]),
        ("alto-2", "en", "alto", [[3], [4]]),
        ("alto-3", "en", "alto", [[5], [4]]),
        ("bass", "en", "bass", [[6], [7]]),
        ("short", "en", "alto", [[8]]),
        ("two", "en", "", [[8], [9]]),
    ]
    write(tmp_path / "train", rows)
    path = tmp_path / "pairs.parquet"
    write_ending_pairs(path, tmp_path / "train", ["en"], 9, seed=0)
    found = {
        row["group"]: (row["chosen"], row["rejected"])
        for row in pq.read_table(path).to_pylist()
    }
    # The short story's only sentence is an ending, too.
    assert found.keys() == {"alto-1", "alto-2", "alto-3"}
    assert found["alto-2"][0] == [4]
    assert found["alto-2"][1] in ([2], [8])
    lines = (tmp_path / "left_out.jsonl").read_text().splitlines()
    told = {e["story_id"]: e["reason"] for e in map(json.loads, lines)}
    assert told == {
        "bass": "no other story of the same speaker has another ending",
        "short": "a single sentence",
        "two": "several speakers tell it",
    }


@pytest.mark.parametrize(
    ("directions", "number", "message"),
    [
        (["en", "de>fr"], 9, "directions name de; .*train holds en, fr"),
        (["en", "fr"], 1, "num_pairs is 1; expected an integer of at least 2"),
        (["en>fr>en"], 9, "direction is 'en>fr>en'; expected"),
    ],
)
def test_directions_that_make_no_pairs(
    store_folder, tmp_path, directions, number, message
):
    path = tmp_path / "pairs.parquet"
    with pytest.raises(ValueError, match=message):
        write_ending_pairs(path, store_folder, directions, number, seed=0)
    assert not path.exists()


def test_a_store_without_pairs(tmp_path):
    write(tmp_path / "train", [("one", "en", "alto", [[1], [2]])])
    path = tmp_path / "pairs.parquet"
    with pytest.raises(ValueError, match="no story makes a pair: 1 x no other"):
        write_ending_pairs(path, tmp_path / "train", ["en"], 9, seed=0)
