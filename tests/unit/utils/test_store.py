import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from conftest import TOKENIZER

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.utils.store import StoreWriter
from speechbrain_slm.utils.store_format import read_info, read_tables, schema


def writer(folder, num_shards=1, source="2b", per_shard=None, **changes):
    tokenizer = TOKENIZER | {"vocabulary_size": 65536, "config": {"k": 2}}
    tokenizer |= changes
    return StoreWriter(folder, tokenizer, source, num_shards, per_shard)


def row(story_id, sentences, language="en"):
    return (story_id, language, "alto", sentences)


@pytest.mark.parametrize(
    "units",
    [[70000], np.array([3, 65536]), [-1], [0.5], np.array([1.0, 2.0], "f"), []],
)
def test_what_uint16_would_change_raises(tmp_path, units):
    store = writer(tmp_path)
    with pytest.raises(ValueError, match="'s1', language 'en', sentence 1"):
        store.write(0, [row("s0", [[1]]), row("s1", [[2], units])])
    assert store.missing() == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_unit_beyond_the_vocabulary_raises(tmp_path):
    with pytest.raises(ValueError, match=r"unit 100 is outside \[0, 100\)"):
        writer(tmp_path, vocabulary_size=100).write(0, [row("s", [[99, 100]])])
    with pytest.raises(ValueError, match="vocabulary_size is 65537"):
        writer(tmp_path / "big", vocabulary_size=65537)


@pytest.mark.parametrize(
    ("length", "kind"), [(65535, pa.uint16()), (65536, pa.int32())]
)
def test_stories_may_be_of_any_length(tmp_path, length, kind):
    store = writer(tmp_path, num_shards=2)
    store.write(0, [row("a", [[1]])])
    long = np.arange(length - 2) % 65536
    store.write(1, [row("b", [[1, 2], long]), row("c", [[3]])])
    store.finish()
    _, (short, table) = read_tables(tmp_path)
    assert short["sentence_ends"].type.value_type == pa.uint16()
    assert table["sentence_ends"].type.value_type == kind
    assert table["sentence_ends"].to_pylist() == [[2, length], [1]]
    found = UnitStore(tmp_path)
    assert (found.story("b", "en")[1] == long).all()
    assert found.story("c", "en")[0].tolist() == [3]


def test_units_come_back_as_they_were(tmp_path):
    store = writer(tmp_path, num_shards=2)
    store.write(1, [row("b", [[7]]), row("b", [[8]], "fr")])
    store.write(0, [row("a", [[0, 65535], [5]])])
    info = store.finish()
    assert info["counts"] == {
        "en": {"stories": 2, "sentences": 3, "units": 4},
        "fr": {"stories": 1, "sentences": 1, "units": 1},
    }
    found, tables = read_tables(tmp_path)
    assert found == info
    (first,) = tables[0].to_pylist()
    assert tuple(first.values()) == ("a", "en", "alto", [0, 65535, 5], [2, 3])
    assert list(first) == schema(0).names


def test_store_is_none_before_every_shard_is_there(tmp_path):
    store = writer(tmp_path, num_shards=2)
    store.write(0, [row("a", [[1]])])
    with pytest.raises(ValueError, match=r"1 of 2 .*units-00001\.arrow"):
        store.finish()
    with pytest.raises(FileNotFoundError, match=r"no store\.json"):
        read_info(tmp_path)
    again = writer(tmp_path, num_shards=2)
    assert again.missing() == [1]
    again.write(1, [row("a", [[1]])])
    with pytest.raises(ValueError, match="stand more than once"):
        again.finish()


def test_a_store_that_lacks_rows_is_not_finished(tmp_path):
    store = writer(tmp_path)
    store.write(0, [row("a", [[1]])])
    with pytest.raises(ValueError, match=r"hold 1 rows, .* expected 2"):
        store.finish(num_rows=2)
    assert not (tmp_path / "store.json").exists()
    store.finish(num_rows=1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"identity": "other"}, "tokenizer.identity"),
        ({"vocabulary_size": 9}, "tokenizer.vocabulary_size"),
        ({"config": {"k": 3}}, "tokenizer.config.k"),
        ({"source": "other"}, "source"),
        ({"num_shards": 2}, "num_shards"),
        ({"per_shard": 5}, "stories_per_shard"),
    ],
)
def test_another_configuration_is_refused(tmp_path, changes, field):
    writer(tmp_path).write(0, [row("a", [[1]])])
    before = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(ValueError, match=f"{field}: expected"):
        writer(tmp_path, **changes)
    assert (tmp_path / "plan.json").read_bytes() == before


@pytest.fixture
def complete(tmp_path):
    store = writer(tmp_path / "store", num_shards=2)
    for index in range(2):
        units = np.random.default_rng(index).integers(0, 65536, (4, 50))
        store.write(index, [row(f"s{index}", units)])
    store.finish()
    return tmp_path / "store"


FILES = ["units-00000.arrow", "units-00001.arrow"]


@pytest.mark.parametrize(
    ("name", "step", "message"),
    [(name, 97, f"damaged: {name} differs") for name in FILES]
    + [("store.json", 5, r"store\.json")],
)
def test_a_flipped_byte_is_found(complete, name, step, message):
    content = (complete / name).read_bytes()
    for position in range(0, len(content), step):
        flipped = bytearray(content)
        flipped[position] ^= 1
        (complete / name).write_bytes(bytes(flipped))
        with pytest.raises(ValueError, match=message):
            read_tables(complete)


def test_a_truncated_or_missing_file_is_named(complete):
    name = FILES[1]
    content = (complete / name).read_bytes()
    for length in (0, 100, len(content) - 1):
        (complete / name).write_bytes(content[:length])
        with pytest.raises(ValueError, match=f"damaged: {name} differs"):
            read_tables(complete)
        if length < len(content) // 2:
            with pytest.raises(ValueError, match=f"{name} is damaged"):
                read_tables(complete, check=False)
    (complete / name).unlink()
    for check in (True, False):
        with pytest.raises(ValueError, match=f"{name} is missing"):
            read_tables(complete, check)


def test_a_stray_file_is_named(complete):
    shutil.copy(complete / FILES[0], complete / "units-00002.arrow")
    with pytest.raises(ValueError, match=r"units-00002\.arrow is not listed"):
        read_tables(complete)


def test_changed_or_torn_description_is_refused(complete):
    path = complete / "store.json"
    content = path.read_text()
    info = json.loads(content)
    other = {**info, "tokenizer": {**info["tokenizer"], "identity": "other"}}
    for text, message in (
        (json.dumps(other), r"store\.json: its identity"),
        (json.dumps({**info, "version": 99}), "99"),
        (content[: len(content) // 2], r"store\.json"),
        ("", r"store\.json"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_tables(complete)


def test_a_shard_damaged_before_it_is_sealed_is_made_again(tmp_path):
    store = writer(tmp_path, num_shards=2)
    for index in range(2):
        store.write(index, [row(f"s{index}", [[1], [2, 3]])])
    path = tmp_path / "units-00001.arrow"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"alto", b"alti"))
    assert store.missing() == [1]
    with pytest.raises(ValueError, match=r"damaged, first units-00001\.arrow"):
        store.finish()
    store.write(1, [row("s1", [[1], [2, 3]])])
    assert path.read_bytes() == content
    info = store.finish()
    assert read_tables(tmp_path)[0] == info
    # What told the sums meanwhile is gone, and another finish changes nothing.
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["plan.json", "store.json", *info["files"]]
    assert store.finish() == info
