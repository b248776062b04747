"""Putting a translated table together from its shards."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.stories.translation.parts import (
    Shard,
    facts_of,
    find_parts,
    forget_rejected,
    read_part,
    read_shards,
)
from speechbrain_slm.utils import ledger as ledgers
from speechbrain_slm.utils.atomic import published_together
from speechbrain_slm.utils.columns import parquet_of
from speechbrain_slm.utils.files import HeldFile
from speechbrain_slm.utils.ownership import mark_of
from speechbrain_slm.utils.tables import STORIES

logger = logging.getLogger(__name__)

MAKER = "translation recipe"
# Of a table that was not written.
REFUSED_SUFFIX = ".left_out.refused.jsonl"
_ROWS = 65536  # in a row group of the result


def output_schema(
    held: HeldFile, target_language: str, leave_out: Sequence[str]
) -> pa.Schema:
    """Return the columns of the new table, the added one last."""
    with parquet_of(held) as file:
        schema = file.schema_arrow
    if unknown := set(leave_out) - set(schema.names):
        raise ValueError(
            f"{held.path} has no column(s) {', '.join(sorted(unknown))} to "
            f"leave out; found {', '.join(schema.names)}"
        )
    ours = {field.name: field for field in STORIES}
    kept = {
        field.name: ours.get(field.name, field)
        for field in schema
        if field.name not in leave_out
    }
    if target_language in kept:
        raise ValueError(
            f"{held.path} has a column '{target_language}' already; add it to "
            "leave_out to have it made anew"
        )
    added = pa.field(target_language, pa.string())
    return pa.schema([*kept.values(), added], metadata=mark_of(MAKER))


def assemble(
    held: HeldFile,
    path_out: Path,
    folder: Path,
    schema: pa.Schema,
    pinned: dict,
    max_rejected: float,
) -> dict[str, int]:
    """Put the table together, and write the ledger.

    Returns
    -------
    Numbers of ``stories`` and of those ``left_out``.

    Raises
    ------
    TooManyLeftOut
        If more are left out than may be; the table is not written then.
    ValueError
        If a shard is damaged, or that of other stories, or no story is left.
    """
    path = path_out.with_suffix(f".{ledgers.LEDGER}")
    refused = path_out.with_suffix(REFUSED_SUFFIX)
    with published_together(path_out.parent) as new:
        with ledgers.open_ledger(new / path.name) as ledger:
            tables = _joined(held, folder, schema, pinned, ledger)
            _write(new / path_out.name, schema, tables)
        stories, left_out = pinned["stories"], ledger.counts.total()

        def forget() -> None:
            forget_rejected(folder)
            # That of the table which is there, if one is, stays beside it.
            os.replace(new / path.name, refused)

        ledgers.check_share(
            f"stories of {held.path}",
            left_out,
            stories,
            max_rejected,
            str(ledger),
            refused,
            "Mend the cause and run again: they are tried again.",
            forget,
            "max_rejected",
        )
        if left_out == stories:
            raise ValueError(f"{held.path}: no story has a translation")
    refused.unlink(missing_ok=True)
    told = stories - left_out, left_out, path.name
    logger.info("%s: %d stories, %d left out (%s)", path_out, *told)
    return {"stories": stories, "left_out": left_out}


def _write(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    # Shards of some hundred rows are too small for a row group each.
    waiting = schema.empty_table()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in tables:
            waiting = pa.concat_tables([waiting, table])
            if len(waiting) >= _ROWS:
                writer.write_table(waiting)
                waiting = schema.empty_table()
        if len(waiting):
            writer.write_table(waiting)


def _joined(
    held: HeldFile,
    folder: Path,
    schema: pa.Schema,
    pinned: dict,
    ledger: ledgers.Ledger,
) -> Iterator[pa.Table]:
    """Yield the new table's rows, shard by shard; write of what is left out."""
    parts, source = find_parts(folder), pinned["source_language"]
    *columns, target = schema.names
    # The source is read even where it is left out: by it a shard is known.
    wanted = list(dict.fromkeys([*columns, source]))
    shards = read_shards(held, wanted, pinned["stories_per_shard"])
    for number, shard in enumerate(shards):
        part, facts = read_part(parts[number], pinned)
        if facts != facts_of(pinned, shard.stories(source)):
            raise ValueError(
                f"{parts[number]} is not of these stories; remove it, run again"
            )
        rejected = part.filter(part["reason"].is_valid())
        for row in rejected.select(["story_id", "reason"]).to_pylist():
            ledger.write(**row, language=target, action="dropped")
        rows = _beside(shard, part, columns)
        yield rows.rename_columns(schema.names).cast(schema)


def _beside(shard: Shard, part: pa.Table, columns: list[str]) -> pa.Table:
    """Put translations beside their sentences, story by story."""
    kept = part["reason"].is_null()
    # A story without a translation has null: [["Un.", "Deux."], null].
    told = part["sentences"].filter(kept)
    # Else a sentence would stand beside the translation of another.
    counts = pc.list_value_length(told).to_numpy()
    if not np.array_equal(counts, shard.lengths[kept.to_numpy()]):
        raise ValueError("a part has more or fewer sentences than its stories")
    rows = np.repeat(kept.to_numpy(), shard.lengths)
    table = shard.table.select(columns).filter(pa.array(rows))
    return table.append_column("", pc.list_flatten(told))
