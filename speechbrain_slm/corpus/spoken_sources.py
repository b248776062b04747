"""Spoken corpora as others lay them out, read a batch of rows at a time.

A source is a Parquet, CSV or JSONL file, a folder of such files (one with
``metadata.csv`` beside its audio among them), or a hub dataset. Rows come in
parts, each found again by its name, so that processes can share them and a
second run can skip those that it has.
"""

import csv
import json
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

SUFFIXES = (".parquet", ".csv", ".jsonl")
HUB = "hub:"


class Part(NamedTuple):
    """Some rows of a source.

    Attributes
    ----------
    name : str
        Tells it from the others of its source.
    folder : Path or None
        What audio paths are relative to.
    read : callable
        Returns an iterator of its pyarrow.RecordBatch.
    """

    name: str
    folder: Path | None
    read: object


def iterate_parts(source, rows):
    """Yield the parts of a source, in order.

    Arguments
    ---------
    source : str or Path
        A file, a folder, or ``hub:<name>[:<configuration>[:<split>]]``.
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
        If the file is of another format.
    """
    if str(source).startswith(HUB):
        yield from _hub_parts(str(source)[len(HUB) :], rows)
        return
    for number, path in enumerate(source_files(source)):
        if path.suffix == ".parquet":
            for group in range(pq.ParquetFile(path).num_row_groups):
                yield Part(
                    f"{number:05d}-{group:05d}",
                    path.parent,
                    lambda path=path, group=group: pq.ParquetFile(
                        path
                    ).iter_batches(rows, row_groups=[group]),
                )
            continue
        batches = _csv if path.suffix == ".csv" else _jsonl
        for index, batch in enumerate(batches(path, rows)):
            yield Part(
                f"{number:05d}-{index:05d}",
                path.parent,
                lambda batch=batch: iter([batch]),
            )


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
    path = Path(source)
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise ValueError(
                f"{path}: expected one of {', '.join(SUFFIXES)}, found "
                f"'{path.suffix}'"
            )
        return [path]
    files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES)
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


def _csv(path, rows):
    """Cut a CSV file's batches to a number of rows, whatever its blocks."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        names = next(csv.reader(file), None)
    if not names:
        raise ValueError(f"{path} is empty; expected a line of column names")
    # Numbers stay the text that they are: story 007 is not story 7.
    options = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string())
    )
    left = None
    try:
        for batch in pa.csv.open_csv(path, convert_options=options):
            table = pa.Table.from_batches([batch])
            left = table if left is None else pa.concat_tables([left, table])
            while len(left) >= rows:
                yield left[:rows].combine_chunks().to_batches()[0]
                left = left[rows:]
    except pa.ArrowException as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error
    if left is not None and len(left):
        yield left.combine_chunks().to_batches()[0]


def _jsonl(path, rows):
    lines = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number}: not valid JSON ({error})"
                ) from error
            if len(lines) == rows:
                yield pa.RecordBatch.from_pylist(lines)
                lines = []
    if lines:
        yield pa.RecordBatch.from_pylist(lines)


def _hub_parts(name, rows):
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
        yield Part(f"{index:08d}", None, lambda table=table: table.to_batches())
