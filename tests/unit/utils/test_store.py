import functools
import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from conftest import TOKENIZER

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.store import StoreWriter
from speechbrain_slm.utils.store_format import (
    map_file,
    read_info,
    read_tables,
    schema,
    write_file,
)


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


FILES = ["units-00000.arrow", "units-00001.arrow"]
NAME = FILES[1]
SENTENCES = [[1, 2, 3], [4], [5, 8]]


@pytest.fixture
def store(tmp_path):
    store = writer(tmp_path, 2, vocabulary_size=9)
    for n in range(2):
        store.write(n, [row(f"s{n}", SENTENCES, code) for code in ("en", "fr")])
    store.finish()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "step", "message"),
    [(NAME, 97, f"damaged: {NAME} differs"), ("store.json", 5, "store.json")],
)
def test_a_flipped_byte_is_found(store, name, step, message):
    content = (store / name).read_bytes()
    for position in range(0, len(content), step):
        flipped = bytearray(content)
        flipped[position] ^= 1
        (store / name).write_bytes(flipped)
        with pytest.raises(ValueError, match=message):
            read_tables(store)


def test_a_truncated_or_missing_file_is_named(store):
    path = store / NAME
    content = path.read_bytes()
    for length in (0, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=f"damaged: {NAME} differs"):
            read_tables(store)
        if length < len(content) // 2:
            with pytest.raises(ValueError, match=f"{NAME} is damaged"):
                read_tables(store, check=False)
    path.unlink()
    for check in (True, False):
        with pytest.raises(ValueError, match=f"{NAME} is missing"):
            read_tables(store, check)


def test_a_stray_file_is_named(store):
    shutil.copy(store / FILES[0], store / "units-00002.arrow")
    with pytest.raises(ValueError, match=r"units-00002\.arrow is not listed"):
        read_tables(store)


def test_changed_or_torn_description_is_refused(store):
    path = store / "store.json"
    content = path.read_text()
    info = json.loads(content)
    other = {**info, "tokenizer": {**info["tokenizer"], "identity": "other"}}
    for text, message in (
        (json.dumps(other), "store.json: its identity"),
        (json.dumps({**info, "version": 99}), "99"),
        *((content[:length], "store.json") for length in (0, 100)),
        *((text, "store.json") for text in ("[" * 100_000, "[]", "null", "{}")),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_tables(store)


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


# Stores that agree with their own sums and hold what no writer makes.
def reseal(folder, change=None, content=None):
    """Change store.json and its second file; all sums are true again."""
    path = folder / NAME
    if content is not None:
        path.write_bytes(content)
    info = json.loads((folder / "store.json").read_text())
    info["files"][NAME] = sha256_file(path)
    for place, value in (change or {}).items():
        *outer, last = place.split(".")
        functools.reduce(dict.get, outer, info)[last] = value
    del info["identity"]
    info["identity"] = identity_of(info)
    (folder / "store.json").write_text(json.dumps(info))


UNITS = [1, 2, 3, 4, 5, 8]
ENDS = [3, 4, 6]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("units", [UNITS, [4, 9]], r"'fr' has the unit 9; .*\[0, 9\)"),
        ("sentence_ends", [ENDS, [3, 4, 7]], "'fr' has sentences that do not"),
        ("sentence_ends", [[3, 4, 5], ENDS], "'en' has sentences that do not"),
        ("sentence_ends", [[4, 3, 6], ENDS], "'en' has sentences that do not"),
        ("sentence_ends", [[3, 3, 6], ENDS], "'en' has sentences that do not"),
        ("sentence_ends", [[0, 4, 6], ENDS], "'en' has sentences that do not"),
        ("sentence_ends", [ENDS, []], "'s1' in 'fr' has no units"),
        ("units", [UNITS, []], "'s1' in 'fr' has no units"),
        ("units", [UNITS, None], "'units' has 1 empty rows"),
        ("units", [UNITS, [1, None]], "and 1 missing values"),
        ("speaker", ["a", None], "'speaker' has 1 empty rows"),
        ("language", ["en", "de"], "in 'de' is in no language"),
        ("language", ["en", "en"], "but store.json counts"),
        ("story_id", ["s1", "s0"], "first 's0' in 'fr'; expected"),
    ],
)
def test_impossible_contents_are_named(store, column, values, message):
    table = map_file(store / NAME, schema(0))
    columns = dict(zip(table.column_names, table.itercolumns(), strict=True))
    columns[column] = pa.array(values, schema(0).field(column).type)
    table = pa.table(columns, schema=schema(0))
    (batch,) = table.combine_chunks().to_batches()
    write_file(store / NAME, batch)
    reseal(store)
    with pytest.raises(ValueError, match=message) as error:
        UnitStore(store)
    assert str(error.value).startswith(str(store))
    with pytest.raises(ValueError, match=message):
        read_tables(store)


@pytest.mark.parametrize("column", ["story_id", "units", "sentence_ends"])
@pytest.mark.parametrize("offset", [2_000_000_000, -1])
def test_offsets_that_point_outside_are_named(store, column, offset):
    content = (store / NAME).read_bytes()
    batch = map_file(store / NAME, schema(0)).to_batches()[0]
    offsets = np.frombuffer(batch[column].buffers()[1], np.int32)[:3]
    at = content.find(offsets.tobytes())
    evil = offsets.copy()
    evil[1:] = offset
    del batch
    rest = content[at + evil.nbytes :]
    reseal(store, content=content[:at] + evil.tobytes() + rest)
    with pytest.raises(ValueError, match=rf"{NAME}: its arrays are broken"):
        UnitStore(store)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("tokenizer.vocabulary_size", -3, "an integer from 1 to 65536"),
        ("tokenizer.vocabulary_size", "9", "an integer from 1 to 65536"),
        ("tokenizer.vocabulary_size", 8, r"expected units in \[0, 8\)"),
        ("tokenizer.frame_rate", True, "expected a number"),
        ("tokenizer.frame_rate", 0, "expected a number above 0"),
        ("num_shards", 3, r"expected 3 file\(s\)"),
        ("tokenizer", [], r"tokenizer is \[\]; expected an object"),
        ("counts", {}, "counts no languages"),
        ("counts", {"en": 3}, r"counts\.en is 3; expected an object"),
        ("files", {}, "lists the files none"),
        ("files", {"../other": "0" * 64}, r"lists the files \.\./other"),
        ("counts.en.units", 13, "but store.json counts"),
    ],
)
def test_a_description_of_another_shape_is_named(store, place, value, message):
    reseal(store, {place: value})
    with pytest.raises(ValueError, match=message) as error:
        UnitStore(store)
    assert "store.json" in str(error.value) or NAME[:6] in str(error.value)


def test_a_file_may_come_in_batches_of_which_one_is_empty(store):
    (whole,) = map_file(store / NAME, schema(0)).to_batches()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, whole.schema) as writer:
        for part in (whole[:1], whole[:0], whole[1:]):
            writer.write(part)
    reseal(store, content=sink.getvalue().to_pybytes())
    sentences = UnitStore(store).story("s1", "fr")
    assert [s.tolist() for s in sentences] == SENTENCES


def test_what_is_checked_is_what_is_read(store, monkeypatch):
    """A file that is replaced between the two is not read unseen."""
    sha256, other = hashlib.sha256, (store / NAME).read_bytes()[:-8]

    def replaced(content=b""):
        found = sha256(content)
        if isinstance(content, pa.Buffer):
            (store / "new").write_bytes(other)
            (store / "new").rename(store / NAME)
        return found

    monkeypatch.setattr(hashlib, "sha256", replaced)
    assert UnitStore(store).story("s1", "fr")[2].tolist() == [5, 8]
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"{NAME} differs"):
        UnitStore(store)
