"""Files that Arrow reads: Parquet, Arrow and, where all is typed, CSV.

Whoever opens one here gets an error that names the file where it is damaged,
and text that is text whatever it looks like.
"""

import contextlib
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from speechbrain_slm.utils.files import (
    HeldFile,
    check_file,
    open_text,
    refuse_encoding,
)

# Bytes; a row of a CSV file fits in so many.
CSV_BLOCK = 1 << 22


def check_columns(
    where: str | Path, found: Iterable[str], columns: Iterable[str]
) -> None:
    """Refuse a table that lacks a column.

    Raises
    ------
    ValueError
        If there is one that it has not.
    """
    found = list(found)
    missing = [name for name in columns if name not in found]
    if missing:
        hint = "Name the columns that it has."
        mark = (
            next((m for m in ";\t," if m in str(found[0])), "") if found else ""
        )
        if len(found) == 1 and mark:
            hint = f"Its fields seem to be separated by {mark!r}: save it anew."
        raise ValueError(
            f"{where}: missing column(s) {', '.join(missing)}; found "
            f"{', '.join(map(str, found)) or 'none'}. {hint}"
        )


@contextlib.contextmanager
def open_parquet(path: str | Path, expected: str = "a Parquet file"):
    """Open a Parquet file; one that is none, or half of one, is named.

    Arguments
    ---------
    expected : What it should be, for the errors.

    Yields
    ------
    pyarrow.parquet.ParquetFile

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If it cannot be read, now or inside the block.
    """
    with HeldFile(path, expected) as held, parquet_of(held) as file:
        yield file


@contextlib.contextmanager
def parquet_of(held: HeldFile):
    """Read a file that is held open as Parquet, see :func:`open_parquet`.

    Arguments
    ---------
    held : The file. It may be read so several times.

    Yields
    ------
    pyarrow.parquet.ParquetFile
    """
    with readable(held.path, "Parquet"):
        yield pq.ParquetFile(held.file)
        held.check()


@contextlib.contextmanager
def readable(path: str | Path, kind: str):
    """Name a file that Arrow cannot read.

    Arguments
    ---------
    kind : What it is read as.

    Raises
    ------
    ValueError
        In place of Arrow's own errors.
    """
    try:
        yield
    # Arrow's readers raise plain OSErrors, too, for what is damaged.
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"{path} cannot be read as {kind}: {error}. It may be half a file "
            "or of another kind; fetch or write it again."
        ) from error


@contextlib.contextmanager
def open_csv(path: str | Path):
    """Open a CSV file, all of whose columns are text.

    What a column holds is not guessed from how it looks: ``01`` is not 1.

    Arguments
    ---------
    path : The file. A quoted field may hold line ends.

    Yields
    ------
    pyarrow.csv.CSVStreamingReader
        Little of a file stands in memory at a time.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If it cannot be read, now or inside the block.
    """
    with open_text(path, "a CSV file") as file:
        names = next(csv.reader(file), [])
    options = {
        "read_options": pa.csv.ReadOptions(block_size=CSV_BLOCK),
        "parse_options": pa.csv.ParseOptions(newlines_in_values=True),
        "convert_options": pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string())
        ),
    }
    try:
        with readable(path, "CSV"), pa.csv.open_csv(path, **options) as reader:
            yield reader
    except ValueError as error:
        if "UTF8" in str(error):
            refuse_encoding(path)
        raise


def parquet_batches(
    path: Path,
    expected: str,
    columns: list[str],
    optional: list[str],
    batch: int,
) -> Iterator[pa.RecordBatch]:
    """Read a Parquet file, some rows at a time.

    Arguments
    ---------
    expected : What it should be, for the errors.
    columns : Those that it must have; no other one is read.
    optional : Those that are read where it has them.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If it cannot be read, or lacks a column.
    """
    with open_parquet(path, expected) as file:
        there = file.schema_arrow.names
        check_columns(path, there, columns)
        wanted = [*columns, *(name for name in optional if name in there)]
        yield from file.iter_batches(batch, columns=wanted)


def arrow_batches(
    path: Path,
    expected: str,
    columns: list[str],
    optional: list[str],
    batch: int,
) -> Iterator[pa.RecordBatch]:
    """Read an Arrow file or stream, some rows at a time.

    Arguments
    ---------
    expected : What it should be, for the errors.
    columns : Those that it must have; no other one is read.
    optional : Those that are read where it has them.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If it cannot be read, or lacks a column.
    """
    path = check_file(path, expected)
    with readable(path, "Arrow"), pa.memory_map(str(path)) as source:
        begin = source.read(6)
        source.seek(0)
        if begin == b"ARROW1":
            file = pa.ipc.open_file(source)
            parts = map(file.get_batch, range(file.num_record_batches))
        else:
            parts = file = pa.ipc.open_stream(source)
        there = file.schema.names
        check_columns(path, there, columns)
        wanted = [*columns, *(name for name in optional if name in there)]
        for part in parts:
            for start in range(0, len(part), batch):
                yield part.select(wanted).slice(start, batch)


def as_type(
    path: str | Path, field: pa.Field, column: pa.Array | pa.ChunkedArray
) -> pa.Array | pa.ChunkedArray:
    """Give a column its type; text stays as it is, whatever it looks like.

    Arguments
    ---------
    field : What the column should be. For text, whole numbers are their digits.

    Raises
    ------
    ValueError
        If it cannot be that: which text 1.0 is meant to be, nobody knows.
    """
    found = column.type
    if pa.types.is_dictionary(found):
        found = found.value_type
    is_text = any(
        check(found)
        for check in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_integer,
            pa.types.is_null,
        )
    )
    if pa.types.is_string(field.type) and not is_text:
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
