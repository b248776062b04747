"""Tables of others, in parts that processes can share.

A source is a table, a folder of tables or a dataset of the hub. Its parts are
the row groups of Parquet files, and as many rows of whatever else as are held
in memory. A part has an identity that changes when its rows do, so that a
second run can skip those that it has.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speechbrain_slm.utils.columns import check_columns, open_parquet
from speechbrain_slm.utils.files import as_stored, files_in
from speechbrain_slm.utils.hashing import file_stamp, identity_of
from speechbrain_slm.utils.user_tables import SUFFIXES, Row, iterate_rows

HUB = "hub:"


class Part(NamedTuple):
    """Some rows of a source."""

    name: str  # tells it from the others of its source
    where: str  # the file, for the ledger
    folder: Path | None  # what audio paths are relative to
    identity: str  # another one if the rows are others
    batches: Iterator[list[Row]]  # not read before they are asked for


def table_parts(
    source: str | Path, rows: int, columns: list[str]
) -> Iterator[Part]:
    """Yield the parts of a table, a folder or a hub dataset, in order.

    Arguments
    ---------
    source : ``hub:<name>[:<configuration>[:<split>]]`` for one of the hub.
    rows
        Rows in a batch, and in a part where the format has none of its own
        (the parts of a Parquet file are its row groups).
    columns : Those that it must have.
    """
    if str(source).startswith(HUB):
        name = str(source)
        found = _hub_rows(name.removeprefix(HUB), rows, columns)
        yield from row_parts("", name, None, found, rows)
        return
    for number, path in enumerate(source_files(source)):
        name = f"{number:05d}-"
        if path.suffix == ".parquet":
            yield from _row_groups(name, path, rows, columns)
        else:
            found = iterate_rows(path, columns, batch=rows)
            yield from row_parts(name, str(path), path.parent, found, rows)


def row_parts(
    name: str, where: str, folder: Path | None, found: Iterator[Row], rows: int
) -> Iterator[Part]:
    """Cut rows that are read one after the other: each part is its text."""
    for index in itertools.count():
        chunk = list(itertools.islice(found, rows))
        if not chunk:
            return
        text = json.dumps(chunk, sort_keys=True, default=_short).encode()
        identity = hashlib.sha256(text).hexdigest()
        number, batches = f"{name}{index:05d}", iter([chunk])
        yield Part(number, where, folder, identity, batches)


def _short(value: object) -> str:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return repr(value)


def _row_groups(
    name: str, path: Path, rows: int, columns: list[str]
) -> Iterator[Part]:
    # Its rows may hold audio: it is not read to find out whether it is as it
    # was. The system's word is taken: its size, and when it was written.
    stamp = file_stamp(path)
    with open_parquet(path) as file:
        check_columns(path, file.schema_arrow.names, columns)
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        counts = [group.num_rows for group in groups]

    def read(group: int, first: int) -> Iterator[list[Row]]:
        wanted = {"row_groups": [group], "columns": columns}
        with open_parquet(path, mapped=True) as file:
            for batch in file.iter_batches(rows, **wanted):
                values = batch.to_pylist()
                yield [Row(first + n, row) for n, row in enumerate(values)]
                first += len(values)
        if file_stamp(path) != stamp:
            raise ValueError(
                f"{path} was changed while it was read; run the same command "
                "again"
            )

    # A file without rows may have no group.
    starts = [0, *itertools.accumulate(counts)]
    for group, first in enumerate(starts[:-1]):
        known = str(path), path.parent, identity_of([stamp, group])
        yield Part(f"{name}{group:05d}", *known, read(group, first))


def source_files(source: str | Path) -> list[Path]:
    """List the tables of a file or folder, by name, of one format.

    Hidden files, and what systems leave, are none.
    """
    path = as_stored(source)
    # What is no regular file is told by whoever opens it.
    if path.exists() and not path.is_dir():
        return [path]
    files = [file for file in files_in(path) if file.suffix in SUFFIXES]
    if not files:
        raise FileNotFoundError(
            f"{path} is no file, and no folder that holds a table "
            f"({', '.join(SUFFIXES)}). For a hub dataset write hub:<name>, or "
            "fetch it: hf download <name> --repo-type dataset --local-dir "
            "<folder>. Where recordings come without a table (spoken), write "
            "{folders: {en: <folder>, fr: <folder>}}"
        )
    formats = sorted({file.suffix for file in files})
    if len(formats) > 1:
        raise ValueError(
            f"{path} holds tables of several formats ({', '.join(formats)}); "
            "name the file that is meant"
        )
    return files


def _hub_rows(name: str, rows: int, columns: list[str]) -> Iterator[Row]:
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
