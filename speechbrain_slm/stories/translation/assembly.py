"""Putting a translated table together from its shards."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.stories.translation.parts import (
    facts_of,
    find_parts,
    read_part,
    read_shards,
    stories_of,
)
from speechbrain_slm.utils.atomic import published_together
from speechbrain_slm.utils.columns import parquet_of
from speechbrain_slm.utils.ledger import LEDGER, check_share, open_ledger
from speechbrain_slm.utils.ownership import mark_of
from speechbrain_slm.utils.tables import STORIES

logger = logging.getLogger(__name__)

MAKER = "translation recipe"
# Of a table that was not written.
REFUSED_SUFFIX = ".left_out.refused.jsonl"
_ROWS = 65536  # in a row group of the result


def forget_rejected(folder: Path) -> None:
    """Remove the shards with rejected stories: a rerun tries them again."""
    for path in find_parts(folder).values():
        reasons = read_part(path)[0]["reason"]
        if reasons.null_count < len(reasons):
            path.unlink()


def output_schema(
    held, target_language: str, leave_out: Sequence[str]
) -> pa.Schema:
    """Return the columns of the new table.

    Arguments
    ---------
    held : HeldFile
        The table without it.
    leave_out : Columns that are not taken over.

    Raises
    ------
    ValueError
        If there is such a column already, or none to leave out.
    """
    with parquet_of(held) as file:
        schema = file.schema_arrow
    unknown = set(leave_out) - set(schema.names)
    if unknown:
        raise ValueError(
            f"{held.path} has no column(s) {', '.join(sorted(unknown))} to "
            f"leave out; found {', '.join(schema.names)}"
        )
    ours = {field.name: field for field in STORIES}
    fields = [
        ours.get(field.name, field)
        for field in schema
        if field.name not in leave_out
    ]
    if target_language in [field.name for field in fields]:
        raise ValueError(
            f"{held.path} has a column '{target_language}' already; add it to "
            "leave_out to have it made anew"
        )
    added = pa.field(target_language, pa.string())
    return pa.schema([*fields, added], metadata=mark_of(MAKER))


def assemble(
    held,
    path_out: Path,
    languages: tuple[str, ...],
    folder: Path,
    schema: pa.Schema,
    plan: dict,
    max_rejected: float,
) -> dict:
    """Put the table together, and write the ledger.

    Arguments
    ---------
    held : HeldFile
        The table without the language.
    languages : That which is there, and that which is added.
    folder : Where its shards are, all of them.
    max_rejected : Share of the stories that may be left out.

    Returns
    -------
    Numbers of ``stories`` and of those ``left_out``.

    Raises
    ------
    TooManyLeftOut
        If more are left out; the table is not written then.
    ValueError
        If a shard is damaged, or that of other stories, or no story is left.
    """
    parts = find_parts(folder)
    source, target = languages
    counts = {"stories": 0, "left_out": 0}
    path = path_out.with_suffix(f".{LEDGER}")
    columns = schema.names[:-1]
    waiting: list[pa.Table] = []
    refused = path_out.with_suffix(REFUSED_SUFFIX)
    with published_together(path_out.parent) as new:
        with (
            pq.ParquetWriter(
                new / path_out.name, schema, compression="zstd"
            ) as writer,
            open_ledger(new / path.name) as ledger,
        ):
            wanted = list(dict.fromkeys([*columns, source]))
            shards = read_shards(held, wanted, plan["stories_per_shard"])
            for number, (table, starts) in enumerate(shards):
                part, facts = read_part(parts[number], plan)
                stories = stories_of(table, starts, source)
                if facts != facts_of(plan, stories):
                    raise ValueError(
                        f"{parts[number]} is not of these stories; remove it "
                        "and run again"
                    )
                table = table.select(columns)
                waiting.append(_joined(parts[number], table, starts, part))
                counts["stories"] += len(part)
                for row in part.filter(part["reason"].is_valid()).to_pylist():
                    counts["left_out"] += 1
                    ledger.write(
                        story_id=row["story_id"],
                        language=target,
                        action="dropped",
                        reason=row["reason"],
                    )
                if sum(map(len, waiting)) >= _ROWS:
                    _write(writer, waiting, schema)
            _write(writer, waiting, schema)

        def forget():
            forget_rejected(folder)
            # That of the table which is there, if one is, stays beside it.
            os.replace(new / path.name, refused)

        check_share(
            f"stories of {held.path}",
            counts["left_out"],
            counts["stories"],
            max_rejected,
            str(ledger),
            refused,
            "Mend the cause and run again: they are tried again.",
            forget,
            "max_rejected",
        )
        if counts["left_out"] == counts["stories"]:
            raise ValueError(f"{held.path}: no story has a translation")
    refused.unlink(missing_ok=True)
    logger.info(
        "%s: %d stories, %d left out (%s)",
        path_out,
        counts["stories"] - counts["left_out"],
        counts["left_out"],
        path.name,
    )
    return counts


def _joined(path, table, starts, part):
    """Put translations beside their sentences, story by story."""
    kept = part["reason"].is_null()
    lengths = pa.array([*starts[1:].tolist(), len(table)])
    lengths = pc.subtract(lengths, pa.array(starts))
    same = part["story_id"].equals(table["story_id"].take(pa.array(starts)))
    found = pc.list_value_length(part["sentences"])
    if (
        not same
        or not pc.all(
            pc.or_(
                pc.invert(kept), pc.fill_null(pc.equal(found, lengths), False)
            )
        ).as_py()
    ):
        raise ValueError(
            f"{path} is not of these stories; remove it and run again"
        )
    story = pc.list_parent_indices(
        pa.ListArray.from_arrays(
            pa.array([*starts.tolist(), len(table)], pa.int32()),
            pa.nulls(len(table)),
        )
    )
    rows = table.filter(kept.take(story))
    texts = pc.list_flatten(part["sentences"].filter(kept))
    return rows.append_column("", texts)


def _write(writer, waiting, schema):
    if waiting:
        table = pa.concat_tables(waiting)
        if len(table):
            table = table.rename_columns(schema.names)
            writer.write_table(table.cast(schema))
        waiting.clear()
