"""Rows of the tables that users bring: one reader for five kinds of file.

- ``.parquet``, and ``.arrow`` (a file or a stream): as they are.
- ``.csv``: all is text; a quoted field may hold line ends.
- ``.tsv``: all is text; a row a line. A quotation mark is a character like
  others. A field that stands between two of them and has those inside doubled
  was quoted by a program that writes CSV so, and is read as that program meant
  it; where the names in the first line are quoted, every field is.
- ``.jsonl``: an object a line; each by itself, whatever the others hold.

Rows are counted from 0. A line that is no row costs that row: it comes with
its fault, and the caller says what that means.
"""

# Not by DuckDB or pyarrow.csv, which are 1.6 times as fast: both tell of lines
# that are no rows beside the table, not in their places, and DuckDB's JSON
# reader gives such a line as a row of nothing, or nothing of the whole file.

from __future__ import annotations

import csv
import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from speechbrain_slm.utils.columns import check_columns, open_parquet, readable
from speechbrain_slm.utils.files import check_file, open_text

SUFFIXES = (".parquet", ".arrow", ".csv", ".tsv", ".jsonl")
BATCH = 1024  # rows held at once, of files that have them in columns
# JSON lines of which one must have a column that is asked for.
FIRST = 1024
# Characters in a field of a CSV file. An open quotation mark takes the rest of
# the file for a field, which is not to fill the memory.
LONGEST_FIELD = 1 << 24
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class Row(NamedTuple):
    """A row of somebody's table."""

    number: int  # its place in the file, from 0
    values: dict  # column -> what the file has; None where a row lacks it
    fault: str = ""  # why it is no row


def as_text(value: object) -> str:
    """Return the text of an id or a name, whatever type a file gave it.

    Whole numbers are their digits, and nothing is an empty text. ValueError if
    it is something else: which text 1.0 or a list is meant to be, nobody knows.
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
    optional: Iterable[str] = (),
    batch: int = BATCH,
    kind: str | None = None,
) -> Iterator[Row]:
    r"""Read a table, row by row.

    FileNotFoundError if there is none; ValueError, which names it, if it is not
    what its name says, or lacks a column.

    Arguments
    ---------
    columns : Those that it must have. Of JSON lines, each may lack some.
    optional : Those that are read where it has them; no other one is.
    batch : How many rows are held at once, of files that have them in columns.
    kind : One of the ``SUFFIXES``, where the file's name need not say it.
    """
    path, columns, optional = Path(path), list(columns), list(optional)
    kind = kind or path.suffix
    if kind not in SUFFIXES:
        raise ValueError(
            f"{path}: expected one of {', '.join(SUFFIXES)}, found '{kind}'"
        )
    expected = f"a table with {', '.join(columns) or 'columns'}"
    if kind in (".parquet", ".arrow"):
        read = _parquet_batches if kind == ".parquet" else _arrow_batches
        batches = read(path, expected, columns, optional, batch)
        rows = itertools.chain.from_iterable(b.to_pylist() for b in batches)
        yield from itertools.starmap(Row, enumerate(rows))
        return
    with open_text(path, expected) as file:
        if kind == ".jsonl":
            yield from _json_rows(file, path, columns, optional)
        elif kind == ".csv":
            yield from _csv_rows(file, path, columns, optional)
        else:
            first = next(file, "")
            cut = functools.partial(_tsv_fields, quoted=first.startswith('"'))
            fields = map(cut, filter(str.strip, file))
            yield from _field_rows(path, cut(first), fields, columns, optional)


def _wanted(path, names, columns, optional):
    check_columns(path, names, columns)
    return [*columns, *(name for name in optional if name in names)]


def _parquet_batches(path, expected, columns, optional, batch):
    with open_parquet(path, expected) as file:
        wanted = _wanted(path, file.schema_arrow.names, columns, optional)
        yield from file.iter_batches(batch, columns=wanted)


def _arrow_batches(path, expected, columns, optional, batch):
    path = check_file(path, expected)
    with readable(path, "Arrow"), pa.memory_map(str(path)) as source:
        if source.read_at(6, 0) == b"ARROW1":
            file = pa.ipc.open_file(source)
            parts = map(file.get_batch, range(file.num_record_batches))
        else:
            parts = file = pa.ipc.open_stream(source)
        wanted = _wanted(path, file.schema.names, columns, optional)
        for part in parts:
            for start in range(0, len(part), batch):
                yield part.select(wanted).slice(start, batch)


def _csv_rows(file, path, columns, optional):
    csv.field_size_limit(LONGEST_FIELD)
    lines = csv.reader(file, strict=True)
    try:
        names, filled = next(lines, []), filter(None, lines)
        yield from _field_rows(path, names, filled, columns, optional)
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {lines.line_num}: {error}; expected fields with "
            "commas between them. A quotation mark inside a quoted field is "
            "doubled, and one that is not closed takes in all that follows."
        ) from error


def _tsv_fields(line, quoted):
    fields = line.rstrip("\r\n").split("\t")
    for place, field in enumerate(fields):
        if field.startswith('"') and _QUOTED.fullmatch(field):
            inner = field[1:-1]
            # Of "Hi." nobody knows: it stays. Where marks inside are doubled,
            # or nothing is inside, a program quoted it.
            if quoted or not inner or '""' in inner:
                fields[place] = inner.replace('""', '"')
    return fields


def _field_rows(path, names, rows, columns, optional):
    wanted = _wanted(path, names, columns, optional)
    if twice := [name for name in wanted if names.count(name) > 1]:
        raise ValueError(f"{path}: column {twice[0]} stands twice")
    places = {name: names.index(name) for name in wanted}
    for number, fields in enumerate(rows):
        found, expected = len(fields), len(names)
        if found == expected:
            yield Row(number, {name: fields[n] for name, n in places.items()})
            continue
        fault = f"found {found} fields where the first line has {expected}"
        if any(field.startswith('"') for field in fields):
            fault += "; mend its quotation marks, or what stands between them"
        yield Row(number, {}, fault)


def _json_rows(file, path, columns, optional):
    rows = itertools.starmap(_parse, enumerate(filter(str.strip, file)))
    # One row may lack a column; a name that is misspelt is in none.
    first = list(itertools.islice(rows, FIRST))
    if first and all(row.fault for row in first):
        raise ValueError(
            f"{path}: none of the first {len(first)} lines is a row; row 0: "
            f"{first[0].fault}"
        )
    found = dict.fromkeys(key for row in first for key in row.values)
    check_columns(path, found, columns)
    for number, values, fault in itertools.chain(first, rows):
        if not fault:
            values = {name: values.get(name) for name in [*columns, *optional]}
        yield Row(number, values, fault)


def _parse(number, line):
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(number, {}, f"not valid JSON ({error})")
    if not isinstance(values, dict):
        fault = f"found {line.strip()[:80]}; expected a JSON object"
        return Row(number, {}, fault)
    return Row(number, values)
