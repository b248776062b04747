"""Tables of millions of rows, without a Python object for each.

A manifest and the units of its audio stay in memory-mapped files, and so do
the numbers that sorting and joining them needs (see
:mod:`speechbrain_slm.utils.scratch`).
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from speechbrain_slm.utils.scratch import (
    BLOCK,
    DIGEST,
    blocks,
    changes,
    digests,
    positions,
    scratch,
)


class Rows:
    """Gather rows of a table whose columns are memory-mapped.

    ``pyarrow.Table.take`` copies a whole column before it takes from it.

    Example
    -------
    >>> table = pa.concat_tables([pa.table({"a": [1, 2]})] * 2)
    >>> Rows(table).take([3, 0, 1])["a"].to_pylist()
    [2, 1, 2]
    """

    def __init__(self, table: pa.Table) -> None:
        self._schema = table.schema
        self._batches = table.to_batches()
        lengths = [len(batch) for batch in self._batches]
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def take(self, rows: Sequence[int]) -> pa.RecordBatch:
        """Copy some rows.

        Arguments
        ---------
        rows : Their numbers, in any order.

        Returns
        -------
        These rows, in this order.
        """
        rows = np.asarray(rows, dtype=np.int64)
        owner = np.searchsorted(self._ends, rows, side="right")
        order = np.argsort(owner, kind="stable")
        taken = []
        for group in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
            if len(group):
                batch = self._batches[owner[group[0]]]
                begin = self._ends[owner[group[0]]] - len(batch)
                taken.append(batch.take(pa.array(rows[group] - begin)))
        if not taken:
            return pa.RecordBatch.from_pylist([], schema=self._schema)
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_batches(taken).take(pa.array(back))


def parts(
    table: pa.Table, names: Sequence[str], rows: np.ndarray | None = None
):
    """Read columns of a table, as many rows at once as memory has room for.

    Arguments
    ---------
    rows : Which rows, in their order; by default all.

    Yields
    ------
    slice
        Which of the rows.
    pyarrow.RecordBatch
        What they hold.
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


def numbers(
    table: pa.Table, name: str, dtype, rows: np.ndarray | None = None
) -> np.ndarray:
    """Copy a column of numbers out of a table.

    Arguments
    ---------
    dtype : numpy.dtype
        What the numbers shall be.
    rows : Which rows; by default all.

    Returns
    -------
    In a file.
    """
    found = scratch(len(table) if rows is None else len(rows), dtype)
    for part, batch in parts(table, [name], rows):
        found[part] = batch[name].to_numpy(zero_copy_only=False)
    return found


def codes(
    table: pa.Table, name: str, rows: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """Number the values of a column of few, in the order of appearance.

    Arguments
    ---------
    name : A column of strings, of which there are far fewer than rows.
    rows : Which rows; by default all.

    Returns
    -------
    numpy.ndarray
        int32, one a row, in a file.
    list of str
        The string of each number.

    Example
    -------
    >>> found, names = codes(pa.table({"a": ["b", "a", "b"]}), "a")
    >>> found.tolist(), names
    ([0, 1, 0], ['b', 'a'])
    """
    found = scratch(len(table) if rows is None else len(rows), np.int32)
    known = {}
    for part, batch in parts(table, [name], rows):
        encoded = batch[name].dictionary_encode()
        here = [
            known.setdefault(text, len(known))
            for text in encoded.dictionary.to_pylist()
        ]
        found[part] = np.array(here, np.int32)[encoded.indices.to_numpy()]
    return found, list(known)


def first_rows(
    table: pa.Table, name: str, rows: np.ndarray | None = None
) -> np.ndarray:
    """Find the first row that holds the same string.

    Arguments
    ---------
    rows : Which rows; by default all.

    Returns
    -------
    uint32, one a row, in a file: the place among ``rows``.

    Example
    -------
    >>> first_rows(pa.table({"a": ["b", "a", "b"]}), "a").tolist()
    [0, 1, 0]
    """
    count = len(table) if rows is None else len(rows)
    # As strings of 16 bytes: sorted in place, and rows of one string in their
    # own order.
    records = scratch(count, [("digest", DIGEST), ("row", ">u4")])
    for part, batch in parts(table, [name], rows):
        records["digest"][part] = digests(batch[name])
        records["row"][part] = np.arange(part.start, part.stop)
    records.view("S16").sort()
    begins = changes(records["digest"])
    found, first = scratch(count, np.uint32), 0
    for part in blocks(count):
        place, row = begins[part].cumsum(), records["row"][part]
        # The group of the row before the part goes on until one begins.
        known = np.append(np.uint32(first), row[begins[part]])
        found[row] = known[place]
        first = known[-1]
    return found


class StoryOrder:
    """A manifest's sentences by story, language and number.

    Arguments
    ---------
    rows : Which of its rows; by default all.

    Attributes
    ----------
    order : numpy.ndarray
        uint32, the places of the sentences among ``rows``: stories and
        languages in the order in which they first appear.
    story : numpy.ndarray
        Which story each is of, in this order: the place where it first
        appears.
    sentence : numpy.ndarray
        Its number, in this order.
    begins : numpy.ndarray
        bool, whether a story in a language begins with it, in this order.
    bounds : numpy.ndarray
        uint32, where in the order each story in a language begins and, last,
        the end.
    """

    def __init__(self, table: pa.Table, rows: np.ndarray | None = None) -> None:
        count = len(table) if rows is None else len(rows)
        kind = [("story", ">u4"), ("language", ">u4"), ("sentence", ">u4")]
        records = scratch(count, [*kind, ("row", ">u4")])
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
