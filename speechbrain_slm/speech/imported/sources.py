"""Spoken corpora as others lay them out, read a part at a time.

A source is a table (Parquet, Arrow, CSV, TSV or JSON lines), a folder of such
tables (one with ``metadata.csv`` beside its audio among them), folders of
recordings (see ``recordings``), or a hub dataset. Rows come in parts, each with
an identity that changes when its rows do, so that processes can share them and
a second run can skip those that it has.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from speechbrain_slm.speech.imported.recordings import recording_rows
from speechbrain_slm.utils.columns import check_columns, open_parquet
from speechbrain_slm.utils.files import as_stored, files_in
from speechbrain_slm.utils.hashing import file_stamp, identity_of
from speechbrain_slm.utils.user_tables import SUFFIXES, Row, iterate_rows

HUB = "hub:"


class Part(NamedTuple):
    """Some rows of a source.

    Attributes
    ----------
    name : str
        Tells it from the others of its source.
    where : str
        The file, for the ledger.
    folder : Path or None
        What audio paths are relative to.
    identity : str
        Another one if the rows are others.
    batches : callable
        Returns an iterator of lists of ``Row``.
    """

    name: str
    where: str
    folder: Path | None
    identity: str
    batches: object


def is_recordings(source: str | Path | dict) -> bool:
    """Tell whether a source is folders of recordings.

    Arguments
    ---------
    source : See :func:`iterate_parts`.

    """
    return isinstance(source, Mapping)


def iterate_parts(
    source: str | Path | dict, rows: int, columns: list[str]
) -> Iterator[Part]:
    """Yield the parts of a source, in order.

    Arguments
    ---------
    source
        A file, a folder, ``hub:<name>[:<configuration>[:<split>]]``, or what
        :func:`recording_rows` takes.
    rows
        Rows in a batch, and in a part where the format has none of its own
        (the parts of a Parquet file are its row groups).
    columns : Those that it must have.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no table in the folder.
    ValueError
        If the file is of another format, or lacks a column.
    """
    if is_recordings(source):
        found = recording_rows(**_known(source))
        yield from _chunks("", str(dict(source["folders"])), None, found, rows)
        return
    if str(source).startswith(HUB):
        name = str(source)
        found = _hub_rows(name[len(HUB) :], rows, columns)
        yield from _chunks("", name, None, found, rows)
        return
    for number, path in enumerate(source_files(source)):
        name = f"{number:05d}-"
        if path.suffix == ".parquet":
            yield from _row_groups(name, path, rows, columns)
        else:
            found = iterate_rows(path, columns, batch=rows)
            yield from _chunks(name, str(path), path.parent, found, rows)


def _known(source):
    known = list(inspect.signature(recording_rows).parameters)
    wrong = [key for key in source if key not in known]
    lacking = [key for key in ("folders", "stories") if not source.get(key)]
    if wrong or lacking:
        raise ValueError(
            f"sources: found {dict(source)}; expected a mapping with the keys "
            f"folders and stories, and no others but {', '.join(known[2:])}"
        )
    return source


def _chunks(name, where, folder, found, rows):
    """Cut rows that are read one after the other: each part is its text."""
    for index in itertools.count():
        chunk = list(itertools.islice(found, rows))
        if not chunk:
            return
        text = json.dumps(chunk, sort_keys=True, default=_short)
        identity = hashlib.sha256(text.encode()).hexdigest()
        yield Part(
            f"{name}{index:05d}",
            where,
            folder,
            identity,
            lambda chunk=chunk: iter([chunk]),
        )


def _short(value):
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return repr(value)


def _row_groups(name, path, rows, columns):
    """Cut a Parquet file, whose rows may hold audio: it is not read for that.

    What tells one state of the file from another is what the system says of
    it: its size, and when it was last written or changed.
    """
    with open_parquet(path) as file:
        check_columns(path, file.schema_arrow.names, columns)
        counts = [
            file.metadata.row_group(group).num_rows
            for group in range(file.num_row_groups)
        ]
    stamp = file_stamp(path)
    for group, first in enumerate(itertools.accumulate([0, *counts[:-1]])):
        yield Part(
            f"{name}{group:05d}",
            str(path),
            path.parent,
            identity_of([stamp, group]),
            lambda group=group, first=first: _group_rows(
                path, stamp, group, first, rows, columns
            ),
        )


def _group_rows(path, stamp, group, first, rows, columns):
    with open_parquet(path) as file:
        batches = file.iter_batches(rows, row_groups=[group], columns=columns)
        for batch in batches:
            values = batch.to_pylist()
            yield [Row(first + n, row) for n, row in enumerate(values)]
            first += len(values)
    if file_stamp(path) != stamp:
        raise ValueError(
            f"{path} was changed while it was read; run the same command again"
        )


def source_files(source: str | Path) -> list[Path]:
    """List the tables of a source.

    Arguments
    ---------
    source : A file or a folder.

    Returns
    -------
    Sorted by name; hidden files, and what systems leave, are none.

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
    files = [file for file in files_in(path) if file.suffix in SUFFIXES]
    if not files:
        raise FileNotFoundError(
            f"{path} is no file, and no folder that holds a table "
            f"({', '.join(SUFFIXES)}). For recordings without a table write "
            "{folders: {en: <folder>, fr: <folder>}}; for a hub dataset write "
            "hub:<name>, or fetch it: hf download <name> --repo-type dataset "
            "--local-dir <folder>"
        )
    formats = sorted({file.suffix for file in files})
    if len(formats) > 1:
        raise ValueError(
            f"{path} holds tables of several formats ({', '.join(formats)}); "
            "name the file that is meant"
        )
    return files


def _hub_rows(name, rows, columns):
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
    numbers = itertools.count()
    for table in data.with_format("arrow").iter(batch_size=rows):
        check_columns(f"{HUB}{name}", table.column_names, columns)
        for values in table.select(columns).to_pylist():
            yield Row(next(numbers), values)
