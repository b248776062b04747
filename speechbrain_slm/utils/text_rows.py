"""Rows of text files: CSV, TSV and JSON lines; see ``user_tables``."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speechbrain_slm.utils.columns import check_columns

# JSON lines of which one must have a column that is asked for.
FIRST = 1024
# Characters in a field of a CSV file. An open quotation mark takes the rest of
# the file for a field, which is not to fill the memory.
LONGEST_FIELD = 1 << 24
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class Row(NamedTuple):
    """A row of somebody's table.

    Attributes
    ----------
    number : int
        Its place in the file, from 0.
    values : dict
        Column -> value, as the file has it; None where a row lacks a column.
    fault : str
        Why it is no row; empty if it is one.
    """

    number: int
    values: dict
    fault: str = ""


def csv_rows(
    file, path: Path, columns: list[str], optional: list[str]
) -> Iterator[Row]:
    """Read a CSV file; the caller has opened it.

    Arguments
    ---------
    file : file
        See ``files.open_text``.
    columns : Those that it must have.
    optional : Those that are read where it has them.

    Raises
    ------
    ValueError
        If a column is missing or stands twice, or quotation marks are not
        paired.
    """
    csv.field_size_limit(LONGEST_FIELD)
    rows = csv.reader(file, strict=True)
    try:
        names = next(rows, [])
        wanted = _places(path, names, columns, optional)
        # Empty lines are no rows.
        for number, fields in enumerate(filter(None, rows)):
            yield _row(number, fields, names, wanted)
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {rows.line_num}: {error}; expected fields with "
            "commas between them. A quotation mark inside a quoted field is "
            "doubled, and one that is not closed takes in all that follows."
        ) from error


def tsv_fields(line: str, quoted: bool = False) -> list[str]:
    r"""Cut a line of a TSV file into its fields, see above.

    Arguments
    ---------
    quoted
        Whether every field may be quoted, as the names in the first line are.

    Example
    -------
    >>> tsv_fields('a\t"Hi," he said.\t"She said ""Hi""."\t"Hi."\n')
    ['a', '"Hi," he said.', 'She said "Hi".', '"Hi."']
    """
    fields = line.rstrip("\r\n").split("\t")
    for place, field in enumerate(fields):
        if field.startswith('"') and _QUOTED.fullmatch(field):
            inner = field[1:-1]
            if quoted or not inner or '""' in inner:
                fields[place] = inner.replace('""', '"')
    return fields


def tsv_names(line: str) -> tuple[list[str], bool]:
    """Return the names in the first line of a TSV file.

    Returns
    -------
    list of str
        The names.
    bool
        Whether they, and so all fields, are quoted.
    """
    quoted = line.startswith('"')
    return tsv_fields(line, quoted), quoted


def tsv_rows(
    file, path: Path, columns: list[str], optional: list[str]
) -> Iterator[Row]:
    """Read a TSV file; the caller has opened it.

    Arguments
    ---------
    file : file
        See ``files.open_text``.
    columns : Those that it must have.
    optional : Those that are read where it has them.

    Raises
    ------
    ValueError
        If a column is missing or stands twice.
    """
    names, quoted = tsv_names(next(file, ""))
    wanted = _places(path, names, columns, optional)
    for number, line in enumerate(filter(str.strip, file)):
        yield _row(number, tsv_fields(line, quoted), names, wanted)


def _places(path, names, columns, optional):
    check_columns(path, names, columns)
    wanted = {
        name: names.index(name)
        for name in [*columns, *optional]
        if name in names
    }
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise ValueError(
            f"{path}: column {twice[0]} stands more than once; expected one "
            "of each name"
        )
    return wanted


def _row(number, fields, names, wanted):
    if len(fields) == len(names):
        return Row(number, {name: fields[n] for name, n in wanted.items()})
    fault = f"found {len(fields)} fields where the first line has {len(names)}"
    if any(field.startswith('"') for field in fields):
        fault += "; mend its quotation marks, or what stands between them"
    return Row(number, {}, fault)


def json_rows(
    file, path: Path, columns: list[str], optional: list[str]
) -> Iterator[Row]:
    """Read JSON lines; the caller has opened it.

    Arguments
    ---------
    file : file
        See ``files.open_text``.
    columns : Those that it must have.
    optional : Those that are read where it has them.

    Raises
    ------
    ValueError
        If a column is in none of the first rows, or they are no rows at all.
    """
    wanted = [*columns, *optional]
    rows = (
        (number, *_parse(line))
        for number, line in enumerate(filter(str.strip, file))
    )
    # A name that is misspelt is in no row.
    first = list(itertools.islice(rows, FIRST))
    if first and all(fault for *_, fault in first):
        raise ValueError(
            f"{path}: none of the first {len(first)} lines is a row; row 0: "
            f"{first[0][-1]}"
        )
    found = dict.fromkeys(key for _, values, _ in first for key in values)
    check_columns(path, found, columns)
    for number, values, fault in itertools.chain(first, rows):
        if fault:
            yield Row(number, {}, fault)
        else:
            yield Row(number, {name: values.get(name) for name in wanted})


def _parse(line):
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, f"not valid JSON ({error})"
    if not isinstance(values, dict):
        return {}, f"found {line.strip()[:80]}; expected a JSON object"
    return values, ""
