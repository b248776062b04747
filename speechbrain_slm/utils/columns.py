"""Files that Arrow reads: Parquet and, where all is typed, CSV.

An error names the file where it is damaged; text is text however it looks.
"""

import contextlib
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from speechbrain_slm.utils.files import HeldFile, open_text, refuse_encoding

# Bytes; a row of a CSV file fits in so many.
CSV_BLOCK = 1 << 22
_TEXTS = {"string", "large_string", "string_view", "null"}
_Column = TypeVar("_Column", pa.Array, pa.ChunkedArray)


def check_columns(
    where: str | Path, found: Iterable[str], columns: Iterable[str]
) -> None:
    """Refuse a table that lacks a column: ValueError."""
    found = list(map(str, found))
    if not (missing := [name for name in columns if name not in found]):
        return
    hint = "Name the columns that it has."
    for mark in ";\t,":
        if len(found) == 1 and mark in found[0]:
            hint = f"Its fields seem to be separated by {mark!r}: save it anew."
    raise ValueError(
        f"{where}: missing column(s) {', '.join(missing)}; found "
        f"{', '.join(found) or 'none'}. {hint}"
    )


@contextlib.contextmanager
def open_parquet(
    path: str | Path, expected: str = "a Parquet file", mapped: bool = False
) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; a ValueError names one that cannot be read.

    ``mapped``: a column of a row group, which may be the whole of a large
    file, is not copied into memory before its first row is read.
    """
    with HeldFile(path, expected, mapped) as held, parquet_of(held) as file:
        yield file


@contextlib.contextmanager
def parquet_of(held: HeldFile) -> Iterator[pq.ParquetFile]:
    """Read a file that is held open as Parquet; it may be read so again."""
    with readable(held.path, "Parquet"):
        yield pq.ParquetFile(held.file)
        held.check()


@contextlib.contextmanager
def readable(path: str | Path, kind: str) -> Iterator[None]:
    """Name a file that Arrow cannot read: a ValueError in place of Arrow's."""
    try:
        yield
    # Arrow's readers raise plain OSErrors, too, for what is damaged; those of
    # the system have a number.
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # Arrow says that, and not where.
        if kind == "CSV" and "UTF8" in str(error):
            refuse_encoding(path)
        raise ValueError(
            f"{path} cannot be read as {kind}: {error}. It may be half a file "
            "or of another kind; fetch or write it again."
        ) from error


@contextlib.contextmanager
def open_csv(path: str | Path) -> Iterator[arrow_csv.CSVStreamingReader]:
    """Open a CSV file, all of whose columns are text; little is in memory.

    What a column holds is not guessed from how it looks: ``01`` is not 1. A
    quoted field may hold line ends.
    """
    # Arrow is told the type of each column by its name.
    with open_text(path, "a CSV file") as file:
        types = dict.fromkeys(next(csv.reader(file), []), pa.string())
    options = (
        arrow_csv.ReadOptions(block_size=CSV_BLOCK),
        arrow_csv.ParseOptions(newlines_in_values=True),
        arrow_csv.ConvertOptions(column_types=types),
    )
    with readable(path, "CSV"), arrow_csv.open_csv(path, *options) as reader:
        yield reader


def as_type(path: str | Path, field: pa.Field, column: _Column) -> _Column:
    """Give a column its type; text stays as it is, whatever it looks like.

    Where it should be text, whole numbers are their digits. ValueError if it
    cannot be that: which text 1.0 is meant to be, nobody knows.
    """
    found = column.type
    if pa.types.is_dictionary(found):
        found = found.value_type
    can_be_text = pa.types.is_integer(found) or str(found) in _TEXTS
    if pa.types.is_string(field.type) and not can_be_text:
        raise ValueError(
            f"{path}: column '{field.name}' should be text (whole numbers do, "
            f"too), found {column.type}"
        )
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise ValueError(
            f"{path}: column '{field.name}' should be {field.type}: {error}"
        ) from error
