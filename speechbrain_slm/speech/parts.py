"""Parts: what is known of a shard of stories once it is spoken.

A part is a piece (see ``utils.pieces``) of manifest rows; its facts say what
made it and hold the ledger. It is there as a whole or not at all, so the parts
that are there are what a run that was killed has done.
"""

from pathlib import Path

import pyarrow as pa

from speechbrain_slm.utils.jobs import PARTS
from speechbrain_slm.utils.pieces import find_piece, write_piece
from speechbrain_slm.utils.tables import MANIFEST

SCHEMA = pa.schema([*MANIFEST, ("text", pa.string()), ("size", pa.int64())])
ROWS = "rows.parquet"


def part_path(output_folder: str | Path, shard) -> Path:
    """Return where the part of a shard stands.

    Arguments
    ---------
    shard : Shard
        A shard of stories.

    """
    folder = Path(output_folder) / PARTS / shard.split
    return folder / f"{shard.number:05d}" / ROWS


def write_part(path: Path, table: pa.Table, facts: dict) -> None:
    """Publish a part.

    Arguments
    ---------
    path : See :func:`part_path`.
    table : Columns of ``SCHEMA``.
    facts : ``identity``, ``utterances`` and ``failed`` (counts), ``ledger``.
    """
    write_piece(path, table.select(SCHEMA.names).cast(SCHEMA), facts)


def is_complete(path: Path, identity: str, output_folder: str | Path) -> bool:
    """Tell whether a part is this run's and its audio is all there.

    Arguments
    ---------
    path : See :func:`part_path`.
    identity : What would make it now.
    output_folder : Where ``audio/`` is.

    """
    part = find_piece(path, ["audio", "size"])
    if part is None or part.facts["identity"] != identity:
        return False
    try:
        for name, size in set(
            zip(*part.table.to_pydict().values(), strict=True)
        ):
            if (Path(output_folder) / name).stat().st_size != size:
                return False
    except OSError:
        return False
    return True
