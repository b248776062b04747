"""Pairs that are made of stories."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TOKENIZER

from speechbrain_slm.dataio.preference import (
    write_ending_pairs,
    write_ranked_pairs,
)
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


def test_stories_that_begin_alike_and_go_on_otherwise(tmp_path):
    rows = [
        ("one", "en", "alto", [[1], [2], [3]]),
        ("two", "en", "alto", [[1], [4], [5]]),
        ("half", "en", "alto", [[1], [2], [6]]),
        ("short", "en", "alto", [[1]]),
        ("other", "en", "alto", [[7], [8], [9]]),
    ]
    write(tmp_path / "train", rows)
    path = tmp_path / "pairs.parquet"
    what = tmp_path / "train", ["en"], 9, 0
    write_ending_pairs(path, *what, rejected="same_opening")
    found = {
        row["group"]: (row["chosen"], row["rejected"])
        for row in pq.read_table(path).to_pylist()
    }
    assert found.pop("two") in (([5], [3]), ([5], [6]))
    assert found == {"one": ([3], [5]), "half": ([6], [5])}
    with pytest.raises(ValueError, match="rejected is 'x'; expected another"):
        write_ending_pairs(path, *what, rejected="x")


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
    with pytest.raises(
        ValueError, match="train: it makes no pair: 1 x no other"
    ):
        write_ending_pairs(path, tmp_path / "train", ["en"], 9, seed=0)


SAID = [
    ("b", "en>fr", [3], 0.2),
    ("b", "en>fr", [4, 4], 0.9),
    ("b", "en>fr", [5], 0.5),
    ("b", "en>fr", [6], None),
    ("b", "en>fr", [7], math.nan),
    ("a", "en", [3], 0.5),
    ("a", "en", [4], 0.45),
    ("c", "en", [], 0.1),
    ("c", "en", [7], 0.9),
    ("d", "fr", [8], 0.1),
    ("d", "fr", [8], 0.9),
]


@pytest.fixture
def said(tmp_path):
    """A table of continuations, which a score ranks."""
    names = ("story_id", "direction", "units", "score")
    rows = [
        {
            **dict(zip(names, one, strict=True)),
            "sample": number,
            "steered_by": "free",
            "prompt_units": [1, 2],
        }
        for number, one in enumerate(SAID)
    ]
    path = tmp_path / "continuations.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("higher", [True, False])
def test_pairs_of_what_was_said(said, tmp_path, higher):
    """The best and the worst of a prompt; what has no two is listed."""
    path = tmp_path / "pairs.parquet"
    write_ranked_pairs(path, said, "codebook-a", "score", higher, 0.1)
    rows = pq.read_table(path).to_pylist()
    best, worst = ([4, 4], [3]) if higher else ([3], [4, 4])
    assert rows == [
        {
            "pair_id": "b en>fr free",
            "group": "b",
            "tokenizer": "codebook-a",
            "prompt_language": "en",
            "ending_language": "fr",
            "prompt": [1, 2],
            "chosen": best,
            "rejected": worst,
        }
    ]
    lines = (tmp_path / "left_out.jsonl").read_text().splitlines()
    assert [json.loads(line)["story_id"] for line in lines] == ["a", "c", "d"]
    # With language tags it is as the model has read it.
    table = pq.read_table(said)
    symbols = pa.array([[11, 1, 12, 2]] * len(table))
    pq.write_table(table.append_column("prompt_symbols", symbols), said)
    write_ranked_pairs(path, said, "codebook-a", "score", higher, 0.1)
    (row,) = pq.read_table(path).to_pylist()
    assert row["prompt"] == [11, 1, 12, 2]


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ("bleu", r"continuations.parquet: missing column.s. bleu; found"),
        ("direction", "column 'direction' is string; expected numbers"),
    ],
)
def test_measures_that_rank_nothing(said, tmp_path, measure, message):
    path = tmp_path / "pairs.parquet"
    with pytest.raises(ValueError, match=message):
        write_ranked_pairs(path, said, "codebook-a", measure)
    assert not path.exists()
