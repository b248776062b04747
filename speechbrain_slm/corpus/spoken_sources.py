"""Spoken corpora as others lay them out, read a batch of rows at a time.

A source is a table (see ``utils.user_tables``), a folder of such files (one
with ``metadata.csv`` beside its audio among them), or a hub dataset. Rows come
in parts, each found again by its name, so that processes can share them and a
second run can skip those that it has.
"""

import itertools
from functools import partial
from pathlib import Path
from typing import NamedTuple

from speechbrain_slm.utils.columns import check_columns, open_parquet
from speechbrain_slm.utils.files import as_stored, files_in
from speechbrain_slm.utils.user_tables import SUFFIXES, Row, iterate_rows

HUB = "hub:"


class Part(NamedTuple):
    """Some rows of a source.

    Attributes
    ----------
    name : str
        Tells it from the others of its source.
    where : str
        The file, or the source, for the ledger.
    folder : Path or None
        What audio paths are relative to.
    read : callable
        Returns an iterator of lists of its ``Row``.
    """

    name: str
    where: str
    folder: Path | None
    read: object


def iterate_parts(source, columns, rows):
    """Yield the parts of a source, in order.

    Arguments
    ---------
    source : str or Path
        A file, a folder, or ``hub:<name>[:<configuration>[:<split>]]``.
    columns : list of str
        Those that it must have.
    rows : int
        Rows in a batch, and in a part where the format has none of its own
        (the parts of a Parquet file are its row groups).

    Yields
    ------
    Part
        Nothing of its rows is read before it is asked to.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no table in the folder.
    ValueError
        If the file is of another format, or lacks a column.
    """
    if str(source).startswith(HUB):
        yield from _hub_parts(str(source)[len(HUB) :], columns, rows)
        return
    for number, path in enumerate(source_files(source)):
        if path.suffix == ".parquet":
            groups = _groups(path, columns)
            parts = (partial(_group, path, columns, rows, n) for n in groups)
        else:
            batches = _batches(iterate_rows(path, columns), rows)
            parts = (partial(iter, [batch]) for batch in batches)
        for index, read in enumerate(parts):
            name = f"{number:05d}-{index:05d}"
            yield Part(name, str(path), path.parent, read)


def _groups(path, columns):
    with open_parquet(path) as file:
        check_columns(path, file.schema_arrow.names, columns)
        return range(file.num_row_groups)


def _group(path, columns, rows, group):
    """Yield the rows of a row group, numbered as in the file."""
    with open_parquet(path) as file:
        number = sum(file.metadata.row_group(n).num_rows for n in range(group))
        batches = file.iter_batches(rows, row_groups=[group], columns=columns)
        for batch in batches:
            found = enumerate(batch.to_pylist(), number)
            yield [Row(*one) for one in found]
            number += len(batch)


def _batches(rows, size):
    while batch := list(itertools.islice(rows, size)):
        yield batch


def source_files(source):
    """List the tables of a source.

    Arguments
    ---------
    source : str or Path
        A file or a folder.

    Returns
    -------
    list of Path
        Sorted by name.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If the file is none, or the folder has tables of several formats.
    """
    path = as_stored(source)
    # What is no regular file is told by whoever opens it.
    if path.exists() and not path.is_dir():
        if path.suffix not in SUFFIXES:
            raise ValueError(
                f"{path}: expected one of {', '.join(SUFFIXES)}, found "
                f"'{path.suffix}'"
            )
        return [path]
    files = [p for p in files_in(path) if p.suffix in SUFFIXES]
    if not files:
        raise FileNotFoundError(
            f"{path} is no file, and no folder that holds a table "
            f"({', '.join(SUFFIXES)}). For a hub dataset write hub:<name>, or "
            "fetch it: hf download <name> --repo-type dataset --local-dir "
            "<folder>"
        )
    formats = sorted({file.suffix for file in files})
    if len(formats) > 1:
        raise ValueError(
            f"{path} holds tables of several formats ({', '.join(formats)}); "
            "name the file that is meant"
        )
    return files


def _hub_parts(name, columns, rows):
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"{HUB}{name} needs datasets. Install it with: pip install datasets"
        ) from error
    name, _, rest = name.partition(":")
    configuration, _, split = rest.partition(":")
    try:
        data = datasets.load_dataset(
            name, configuration or None, split=split or "train", streaming=True
        )
    except OSError as error:
        raise OSError(
            f"{HUB}{name} cannot be read from the hub ({error}). Fetch it "
            "where there is a network (hf download --repo-type dataset "
            f"{name} --local-dir <folder>), and name that folder as the source."
        ) from error
    # As it is stored, not decoded: bytes, or a path.
    for column, feature in (data.features or {}).items():
        if isinstance(feature, datasets.Audio):
            data = data.cast_column(column, datasets.Audio(decode=False))
    tables = data.with_format("arrow").iter(batch_size=rows)
    for index, table in enumerate(tables):
        check_columns(HUB + name, table.column_names, columns)
        found = enumerate(table.select(columns).to_pylist(), index * rows)
        read = partial(iter, [[Row(*one) for one in found]])
        yield Part(f"{index:08d}", HUB + name, None, read)
