"""Stores that agree with their own sums and hold what no writer makes."""

import functools
import hashlib
import json

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

NAME = "units-00001.arrow"
SENTENCES = [[1, 2, 3], [4], [5, 8]]


@pytest.fixture
def store(tmp_path):
    tokenizer = {**TOKENIZER, "vocabulary_size": 9}
    writer = StoreWriter(tmp_path, tokenizer, "2b", num_shards=2)
    for n in range(2):
        rows = [(f"s{n}", code, "alto", SENTENCES) for code in ("en", "fr")]
        writer.write(n, rows)
    writer.finish()
    return tmp_path


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


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "null", "{}"])
def test_a_description_that_is_none_is_named(store, text):
    (store / "store.json").write_text(text)
    with pytest.raises(ValueError, match=r"store\.json"):
        read_info(store)


def test_what_is_checked_is_what_is_read(store, monkeypatch):
    """A file that is replaced between the two is not read unseen."""
    sha256, other = hashlib.sha256, (store / NAME).read_bytes()[:-8]

    def replaced(content=b""):
        found = sha256(content)
        if len(content) > 500:
            (store / "new").write_bytes(other)
            (store / "new").rename(store / NAME)
        return found

    monkeypatch.setattr(hashlib, "sha256", replaced)
    assert UnitStore(store).story("s1", "fr")[2].tolist() == [5, 8]
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"{NAME} differs"):
        UnitStore(store)
