"""Tables of millions of rows, without a Python object for each.

A manifest and the units of its audio stay in memory-mapped files. What is kept
in memory is what sorting and joining them needs: 16 bytes a row here.
"""

import hashlib

import numpy as np
import pyarrow as pa

# Rows that are worked on at once.
BLOCK = 1 << 16
# What decides the units of an audio file: its content, the language (a
# tokenizer may have a codebook for each), and what the manifest says of it (a
# file that is not what it should be has none).
KEY_COLUMNS = ("sha256", "language", "num_samples", "sample_rate")
_RECORD = np.dtype([("key", "S12"), ("row", ">u4")])
_NO_DIGIT = 255


def _digits():
    table = np.full(256, _NO_DIGIT, dtype=np.uint8)
    for value, digit in enumerate(b"0123456789abcdef"):
        table[digit] = value
    return table


_DIGITS = _digits()


def blocks(count):
    """Cut a number of rows into slices of at most ``BLOCK``.

    Arguments
    ---------
    count : int
        Rows in all.

    Yields
    ------
    slice
        One after the other.

    Example
    -------
    >>> [(one.start, one.stop) for one in blocks(BLOCK + 2)]
    [(0, 65536), (65536, 65538)]
    """
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))


class Rows:
    """Gather rows of a table whose columns are memory-mapped.

    ``pyarrow.Table.take`` copies a whole column before it takes from it.

    Arguments
    ---------
    table : pyarrow.Table
        Any table.

    Example
    -------
    >>> table = pa.concat_tables([pa.table({"a": [1, 2]})] * 2)
    >>> Rows(table).take([3, 0, 1])["a"].to_pylist()
    [2, 1, 2]
    """

    def __init__(self, table):
        self._schema = table.schema
        self._batches = table.to_batches()
        lengths = [len(batch) for batch in self._batches]
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def take(self, rows):
        """Copy some rows.

        Arguments
        ---------
        rows : sequence of int
            Their numbers, in any order.

        Returns
        -------
        pyarrow.RecordBatch
            These rows, in this order.
        """
        rows = np.asarray(rows, dtype=np.int64)
        owner = np.searchsorted(self._ends, rows, side="right")
        order = np.argsort(owner, kind="stable")
        parts = []
        for group in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
            if len(group):
                batch = self._batches[owner[group[0]]]
                begin = self._ends[owner[group[0]]] - len(batch)
                parts.append(batch.take(pa.array(rows[group] - begin)))
        if not parts:
            return pa.RecordBatch.from_pylist([], schema=self._schema)
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_batches(parts).take(pa.array(back))


def numbers(column, dtype):
    """Copy a column of numbers out of a table.

    Arguments
    ---------
    column : pyarrow.ChunkedArray
        The column, without holes.
    dtype : numpy.dtype
        What the numbers shall be.

    Returns
    -------
    numpy.ndarray
        All of them.
    """
    found, start = np.empty(len(column), dtype=dtype), 0
    for chunk in column.chunks:
        found[start : start + len(chunk)] = chunk.to_numpy(zero_copy_only=False)
        start += len(chunk)
    return found


def codes(column):
    """Number strings in the order of their first appearance.

    Arguments
    ---------
    column : pyarrow.ChunkedArray
        The strings.

    Returns
    -------
    numpy.ndarray
        int32, one a row.
    pyarrow.StringArray
        The string of each number.

    Example
    -------
    >>> found, names = codes(pa.chunked_array([["b", "a"], ["b"]]))
    >>> found.tolist(), names.to_pylist()
    ([0, 1, 0], ['b', 'a'])
    """
    encoded = column.dictionary_encode()
    if not encoded.num_chunks:
        return np.zeros(0, dtype=np.int32), pa.array([], pa.string())
    indices = pa.chunked_array([chunk.indices for chunk in encoded.chunks])
    # All chunks share one dictionary; the last one is sure to be whole.
    found, names = numbers(indices, np.int32), encoded.chunks[-1].dictionary
    del encoded, indices
    # Arrow keeps what is freed for later.
    pa.default_memory_pool().release_unused()
    return found, names


def renumber(found):
    """Number codes again, in the order of their first appearance.

    Arguments
    ---------
    found : numpy.ndarray
        Codes, of which some may have no row any more.

    Returns
    -------
    numpy.ndarray
        int32, as :func:`codes` would have given for these rows alone.

    Example
    -------
    >>> renumber(np.array([4, 1, 4, 0])).tolist()
    [0, 1, 0, 2]
    """
    if not len(found):
        return found.astype(np.int32)
    first = np.full(int(found.max()) + 1, len(found), dtype=np.int64)
    # Backwards: the first row of a code is written last, and stays.
    first[found[::-1]] = np.arange(len(found) - 1, -1, -1)
    place = np.empty(len(first), dtype=np.int32)
    place[np.argsort(first, kind="stable")] = np.arange(len(first))
    return place[found]


def _quarters(column):
    """Read SHA-256 sums as four integers each."""
    _, offsets, data = column.buffers()
    width = column.offset + len(column) + 1
    offsets = np.frombuffer(offsets, np.int32)[column.offset : width]
    wrong = np.diff(offsets) != 64
    if not wrong.any():
        text = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
        digits = _DIGITS[text.reshape(-1, 64)]
        wrong = (digits == _NO_DIGIT).any(axis=1)
    if wrong.any():
        raise ValueError(
            f"'{column[int(wrong.argmax())].as_py()}' is no SHA-256; expected "
            "64 hexadecimal digits in lower case"
        )
    return (digits[:, ::2] << 4 | digits[:, 1::2]).view(">u8")


def _mix(values):
    # splitmix64: any difference in the input changes half of the bits.
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


def keys(batch):
    """Name what decides the units of audio files.

    Arguments
    ---------
    batch : pyarrow.RecordBatch
        With the columns ``KEY_COLUMNS``.

    Returns
    -------
    numpy.ndarray
        12 bytes a row, in the order of the SHA-256: its first 8, then 4 that
        the rest is mixed into.

    Raises
    ------
    ValueError
        If a ``sha256`` is not one.
    """
    quarters = _quarters(batch["sha256"])
    language = batch["language"].dictionary_encode()
    names = [
        int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
        for name in language.dictionary.to_pylist()
    ]
    said = np.array(names, dtype=np.uint64)[language.indices.to_numpy()]
    for name in ("num_samples", "sample_rate"):
        said = _mix(said ^ batch[name].to_numpy().astype(np.uint64))
    for quarter in range(1, 4):
        said = _mix(said ^ quarters[:, quarter].astype(np.uint64))
    found = np.empty((len(batch), 3), dtype=">u4")
    found[:, :2] = quarters[:, :1].view(">u4")
    found[:, 2] = said >> np.uint64(32)
    return found.view("S12").ravel()


class KeyIndex:
    """Find the rows of a table by their keys.

    Arguments
    ---------
    table : pyarrow.Table
        With the columns ``KEY_COLUMNS``; at most 2^32 rows.

    Attributes
    ----------
    records : numpy.ndarray
        ``key`` (see :func:`keys`) and ``row`` of each, in rising order.
    """

    def __init__(self, table):
        records = np.empty(len(table), dtype=_RECORD)
        start = 0
        for batch in table.select(list(KEY_COLUMNS)).to_batches(BLOCK):
            here = records[start : start + len(batch)]
            here["key"] = keys(batch)
            here["row"] = np.arange(start, start + len(batch))
            start += len(batch)
        # As strings of 16 bytes: sorted in place, and rows of one key in
        # their own order.
        records.view("S16").sort()
        self.records = records

    def first(self):
        """Tell which records are the first of their key.

        Returns
        -------
        numpy.ndarray
            bool, one a record.
        """
        found = np.ones(len(self.records), dtype=bool)
        for part in blocks(len(found) - 1):
            here = self.records["key"][part.start : part.stop + 1]
            found[part.start + 1 : part.stop + 1] = here[1:] != here[:-1]
        return found

    def find(self, wanted):
        """Look keys up.

        Arguments
        ---------
        wanted : numpy.ndarray
            12 bytes each.

        Returns
        -------
        numpy.ndarray
            The first row of each, int64; -1 where there is none.
        """
        if not len(self.records):
            return np.full(len(wanted), -1)
        records = np.zeros(len(wanted), dtype=_RECORD)
        records["key"] = wanted
        place = np.searchsorted(self.records.view("S16"), records.view("S16"))
        found = self.records[np.minimum(place, len(self.records) - 1)]
        rows = found["row"].astype(np.int64)
        return np.where(found["key"] == wanted, rows, -1)
