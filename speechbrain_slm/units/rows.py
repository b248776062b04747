"""Tables of millions of rows, without a Python object for each.

A manifest and the units of its audio stay in memory-mapped files, and so do
the numbers that sorting and joining them needs (see
:mod:`speechbrain_slm.utils.scratch`): records of 16 bytes a row, sorted in
place as strings. (DuckDB in its place takes memory that grows with the rows:
to join 10 million, 200 MB do not do and 500 do; here it is 70 for any number.)
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from speechbrain_slm.utils.scratch import (
    BLOCK,
    blocks,
    changes,
    digests,
    positions,
    scratch,
    select,
)

# What decides the units of an audio file: its content, the language (a
# tokenizer may have a codebook for each), and what the manifest says of it (a
# file that is not what it should be has none).
KEY_COLUMNS = ("sha256", "language", "num_samples", "sample_rate")
_KEYED = np.dtype([("key", "S12"), ("row", ">u4")])


class Rows:
    """Gather rows of a table whose columns are memory-mapped."""

    # ``pyarrow.Table.take`` copies a whole column before it takes from it.
    def __init__(self, table: pa.Table) -> None:
        self._schema = table.schema
        self._batches = table.to_batches()
        # Chunks of 3 and 5 rows end at 3 and 8: row 4 is the second of the
        # second.
        lengths = [len(batch) for batch in self._batches]
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def take(self, rows: Sequence[int] | np.ndarray) -> pa.RecordBatch:
        """Copy rows, in the order of their numbers here."""
        wanted = np.asarray(rows, dtype=np.int64)
        owner = np.searchsorted(self._ends, wanted, side="right")
        order = np.argsort(owner, kind="stable")
        taken = []
        for group in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
            if len(group):
                batch = self._batches[owner[group[0]]]
                begin = self._ends[owner[group[0]]] - len(batch)
                taken.append(batch.take(pa.array(wanted[group] - begin)))
        if not taken:
            return pa.RecordBatch.from_pylist([], schema=self._schema)
        return pa.concat_batches(taken).take(pa.array(np.argsort(order)))


def parts(
    table: pa.Table, names: Sequence[str], rows: np.ndarray | None = None
) -> Iterator[tuple[slice, pa.RecordBatch]]:
    """Read columns of ``rows``, in their order, or of all; block by block.

    Yields which of them, and what they hold.
    """
    table, start = table.select(list(names)), 0
    if rows is not None:
        taker = Rows(table)
        for part in blocks(len(rows)):
            yield part, taker.take(rows[part])
        return
    for batch in table.to_batches(BLOCK):
        if len(batch):
            yield slice(start, start + len(batch)), batch
        start += len(batch)


def _count(table: pa.Table, rows: np.ndarray | None) -> int:
    return len(table) if rows is None else len(rows)


def _sorted_records(table, names, rows, name):
    """Sort the rows by a name of 12 bytes, those of one name by their place."""
    records = scratch(_count(table, rows), _KEYED)
    for part, batch in parts(table, names, rows):
        records["key"][part] = name(batch)
        records["row"][part] = np.arange(part.start, part.stop)
    # As strings: fields of records would be compared one by one.
    records.view("S16").sort()
    return records


def codes(
    table: pa.Table, name: str, rows: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """Number the strings of a column of few, in the order of appearance."""
    found = scratch(_count(table, rows), np.int32)
    known: dict[str, int] = {}
    for part, batch in parts(table, [name], rows):
        encoded = batch[name].dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        here = [known.setdefault(text, len(known)) for text in texts]
        found[part] = np.array(here, np.int32)[encoded.indices.to_numpy()]
    return found, list(known)


def first_rows(
    table: pa.Table, name: str, rows: np.ndarray | None = None
) -> np.ndarray:
    """Find for each row the place of the first of the same string: uint32."""
    # "b", "a", "b": (a, 1), (b, 0), (b, 2), and the result is 0, 1, 0.
    records = _sorted_records(table, [name], rows, lambda b: digests(b[name]))
    begins = changes(records["key"])
    found, first = scratch(len(records), np.uint32), 0
    for part in blocks(len(records)):
        place, row = begins[part].cumsum(), records["row"][part]
        # The group of the row before the part goes on until one begins.
        known = np.append(np.uint32(first), row[begins[part]])
        found[row] = known[place]
        first = known[-1]
    return found


class StoryOrder:
    """A manifest's sentences by story, language and number.

    Stories and languages come as they first appear. ``order`` are the places of
    the sentences among the rows; in this order stand ``story`` (where it first
    appears), ``sentence`` (its number) and ``begins`` (whether a story in a
    language begins with it). ``bounds`` are where, and last, the end.
    """

    def __init__(self, table: pa.Table, rows: np.ndarray | None = None) -> None:
        count = _count(table, rows)
        names = ("story", "language", "sentence", "row")
        records = scratch(count, [(name, ">u4") for name in names])
        story = first_rows(table, "story_id", rows)
        language, _ = codes(table, "language", rows)
        for part, batch in parts(table, ["sentence"], rows):
            here = records[part]
            here["story"], here["language"] = story[part], language[part]
            here["sentence"] = batch["sentence"].to_numpy()
            here["row"] = np.arange(part.start, part.stop)
        records.view("S16").sort()
        self.order, self.story = records["row"], records["story"]
        self.sentence = records["sentence"]
        told = records.view([("told", "S8"), ("rest", "S8")])["told"]
        self.begins = changes(told)
        found = positions(self.begins)
        self.bounds = scratch(len(found) + 1, np.uint32)
        self.bounds[:-1], self.bounds[-1] = found, count


def _mix(values):
    # splitmix64: any difference in the input changes half of the bits.
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


def keys(batch: pa.RecordBatch) -> np.ndarray:
    """Name by 12 bytes what decides the units of audio files.

    In the order of the SHA-256: its first 8 bytes, then 4 that the rest of
    ``KEY_COLUMNS`` is mixed into.
    """
    digits = "".join(batch["sha256"].to_pylist())
    sums = np.frombuffer(bytes.fromhex(digits), ">u8").reshape(-1, 4)
    language = batch["language"].dictionary_encode()
    names = b"".join(
        hashlib.sha256(name.encode()).digest()[:8]
        for name in language.dictionary.to_pylist()
    )
    said = np.frombuffer(names, ">u8")[language.indices.to_numpy()]
    said = said.astype(np.uint64)
    counts = batch["num_samples"].to_numpy(), batch["sample_rate"].to_numpy()
    for other in (*counts, *sums.T[1:]):
        said = _mix(said ^ other.astype(np.uint64))
    found = np.empty((len(batch), 3), dtype=">u4")
    # Big-endian, so that strings of bytes are in the order of the numbers.
    found[:, :2] = sums[:, :1].view(">u4")
    found[:, 2] = said >> np.uint64(32)
    return found.view("S12").ravel()


class KeyIndex:
    """Find the rows of a table by their keys; at most 2^32 rows.

    ``records`` are ``key`` and ``row`` of each, in rising order, in a file.
    """

    def __init__(self, table: pa.Table) -> None:
        self.records = _sorted_records(table, KEY_COLUMNS, None, keys)

    def first(self) -> np.ndarray:
        """List the first record of each key, in a file."""
        return select(self.records, changes(self.records["key"]))

    def find(self, wanted: np.ndarray) -> np.ndarray:
        """Look keys up: the first row of each, int64; -1 for none."""
        if not len(self.records):
            return np.full(len(wanted), -1)
        records = np.zeros(len(wanted), dtype=_KEYED)
        records["key"] = wanted
        # With row 0, the key comes just before its first record.
        place = np.searchsorted(self.records.view("S16"), records.view("S16"))
        found = self.records[np.minimum(place, len(self.records) - 1)]
        rows = found["row"].astype(np.int64)
        return np.where(found["key"] == wanted, rows, -1)
