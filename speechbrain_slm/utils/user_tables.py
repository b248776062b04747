"""Rows of the tables that users bring: one reader for five kinds of file.

======== ==============================================================
file     how it is read
======== ==============================================================
.parquet as it is; only the columns that are asked for
.arrow   as it is: an Arrow file or stream
.csv     all is text; a quoted field may hold line ends
.tsv     all is text; a row a line. A quotation mark is a character like
         others. A field that stands between two of them and has those
         inside doubled was quoted by a program that writes CSV so, and is
         read as that program meant it; where the names in the first line
         are quoted, every field is.
.jsonl   an object a line; each by itself, whatever the others hold
======== ==============================================================

Rows are counted from 0. A line that is no row costs that row: it comes with
its fault, and the caller says what that means. A file that cannot be read is
an error with its name.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from speechbrain_slm.utils.columns import arrow_batches, parquet_batches
from speechbrain_slm.utils.files import open_text
from speechbrain_slm.utils.text_rows import Row, csv_rows, json_rows, tsv_rows

_COLUMNS = {".parquet": parquet_batches, ".arrow": arrow_batches}
_TEXT = {".csv": csv_rows, ".tsv": tsv_rows, ".jsonl": json_rows}
SUFFIXES = (*_COLUMNS, *_TEXT)
BATCH = 1024  # rows held at once, of files that have them in columns


def as_text(value: object) -> str:
    """Return the text of an id or a name, whatever type a file gave it.

    Arguments
    ---------
    value : Of a row. Whole numbers are their digits: ``1089`` is ``"1089"``.

    Returns
    -------
    Empty where there is nothing.

    Raises
    ------
    ValueError
        If it is something else: which text 1.0 or a list is meant to be,
        nobody knows.

    Example
    -------
    >>> [as_text(value) for value in ("01", 1, None)]
    ['01', '1', '']
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"found {value!r:.80}; expected text or whole numbers")
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # JSON can hold it, but no file in UTF-8.
        raise ValueError(
            f"found half a surrogate pair in {ascii(text)[:80]}; expected text"
        ) from None
    return text


def iterate_rows(
    path: str | Path,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    batch: int = BATCH,
    kind: str | None = None,
) -> Iterator[Row]:
    r"""Read a table, row by row.

    Arguments
    ---------
    path : A file of one of the ``SUFFIXES``.
    columns
        Those that it must have. No other one is read. Of JSON lines, each may
        lack some.
    optional : Those that are read where it has them.
    batch : How many rows are held at once, of files that have them in columns.
    kind : One of the ``SUFFIXES``, where the file's name need not say it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not what its name says, or lacks a column. The message
        names it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.jsonl"
    >>> _ = path.write_text('{"id": 7, "n": 1}\n{"id": "7a"}\n[]\n')
    >>> for row in iterate_rows(path, ["id", "n"]):
    ...     print(*map(repr, row))
    0 {'id': 7, 'n': 1} ''
    1 {'id': '7a', 'n': None} ''
    2 {} 'found []; expected a JSON object'
    """
    path = Path(path)
    columns, optional = list(columns), list(optional)
    kind = kind or path.suffix
    if kind not in SUFFIXES:
        raise ValueError(
            f"{path}: expected one of {', '.join(SUFFIXES)}, found '{kind}'"
        )
    expected = f"a table with {', '.join(columns) or 'columns'}"
    if kind in _TEXT:
        with open_text(path, expected) as file:
            yield from _TEXT[kind](file, path, columns, optional)
        return
    number = 0
    read = _COLUMNS[kind]
    for part in read(path, expected, columns, optional, batch):
        for values in part.to_pylist():
            yield Row(number, values)
            number += 1
