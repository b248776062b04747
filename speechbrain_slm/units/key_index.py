"""Audio files, found by what decides their units."""

import hashlib

import numpy as np
import pyarrow as pa

from speechbrain_slm.units.rows import parts
from speechbrain_slm.utils.scratch import changes, scratch, select

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


def keys(batch: pa.RecordBatch) -> np.ndarray:
    """Name what decides the units of audio files.

    Arguments
    ---------
    batch : With the columns ``KEY_COLUMNS``.

    Returns
    -------
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
        int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
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
    table : With the columns ``KEY_COLUMNS``; at most 2^32 rows.

    Attributes
    ----------
    records : numpy.ndarray
        ``key`` (see :func:`keys`) and ``row`` of each, in rising order, in a
        file.
    """

    def __init__(self, table: pa.Table) -> None:
        records = scratch(len(table), _RECORD)
        for part, batch in parts(table, KEY_COLUMNS):
            records["key"][part] = keys(batch)
            records["row"][part] = np.arange(part.start, part.stop)
        # As strings of 16 bytes: sorted in place, and rows of one key in
        # their own order.
        records.view("S16").sort()
        self.records = records

    def first(self) -> np.ndarray:
        """List the first record of each key.

        Returns
        -------
        Records, in a file.
        """
        return select(self.records, changes(self.records["key"]))

    def find(self, wanted: np.ndarray) -> np.ndarray:
        """Look keys up.

        Arguments
        ---------
        wanted : 12 bytes each.

        Returns
        -------
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
