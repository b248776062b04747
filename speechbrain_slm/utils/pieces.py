"""Tables between two steps, each with its own sum from the moment it is made.

A piece is a Parquet file that says what made it, and whether it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from speechbrain_slm.utils.atomic import atomic_path, write_atomic

_FACTS, _SUM = b"facts", b"sum"
# What stands for the sum while it is taken; nothing else holds it.
_BLANK = hashlib.sha256(b"the sum of a piece").hexdigest().encode()


class DamagedPiece(ValueError):
    """A piece is not what was written."""


class Piece(NamedTuple):
    """The rows of a piece, and what it says of itself."""

    table: pa.Table
    facts: dict


def write_piece(path: str | Path, table: pa.Table, facts: dict) -> None:
    """Publish a piece, all of it or nothing; JSON can hold its facts."""
    # The sum is taken of the bytes in memory, before any reaches a disk, and
    # stands among them, in the place of a blank of its length.
    text = json.dumps(facts, ensure_ascii=False).encode()
    table = table.replace_schema_metadata({_FACTS: text, _SUM: _BLANK})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    write_atomic(path, content.replace(_BLANK, _digest(content)))


def read_piece(path: str | Path, columns: list[str] | None = None) -> Piece:
    """Read a piece, or some columns of it, and check its sum (DamagedPiece).

    Example
    -------
    >>> path = getfixture("tmp_path") / "rows.parquet"
    >>> write_piece(path, pa.table({"a": [1, 2]}), {"identity": "x"})
    >>> read_piece(path).facts
    {'identity': 'x'}
    >>> _ = path.write_bytes(path.read_bytes().replace(b"x", b"y"))
    >>> read_piece(path)
    Traceback (most recent call last):
    ...
    speechbrain_slm.utils.pieces.DamagedPiece: ...
    """
    # Read once: what was checked is what is used.
    content = Path(path).read_bytes()
    faults = pa.ArrowException, OSError, KeyError, TypeError, ValueError
    with contextlib.suppress(*faults):
        metadata = pq.read_metadata(pa.BufferReader(content)).metadata
        found = metadata[_SUM]
        if _digest(content.replace(found, _BLANK)) == found:
            table = pq.read_table(pa.BufferReader(content), columns=columns)
            facts = json.loads(metadata[_FACTS])
            return Piece(table.replace_schema_metadata(None), facts)
    raise DamagedPiece(
        f"{path} is damaged: its content has not the sum that it had when it "
        "was made. Run the same command again; it makes what is damaged anew."
    )


def find_piece(
    path: str | Path, columns: list[str] | None = None
) -> Piece | None:
    """Read a piece; None where it has to be made (anew)."""
    try:
        return read_piece(path, columns)
    except (OSError, DamagedPiece):
        return None


@contextlib.contextmanager
def join_tables(
    path: str | Path, schema: pa.Schema, tables: Iterable[pa.Table]
) -> Iterator[int]:
    """Write tables, one behind the other, and yield how many rows they have.

    The file takes its name when the block succeeds.
    """
    rows = 0
    with atomic_path(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for table in tables:
                if len(table):  # or there would be an empty row group
                    writer.write_table(table)
                    rows += len(table)
        yield rows


def _digest(content):
    return hashlib.sha256(content).hexdigest().encode()
