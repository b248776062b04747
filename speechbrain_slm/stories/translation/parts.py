"""Stories of a table, shard by shard, and what became of each shard.

A table is read in pieces of some thousand rows: how long it is does not
matter. A shard is so many stories, in the table's order; its translation is
published as one file, whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.stories.duplicates import Seen, digest_id
from speechbrain_slm.stories.translation import Story
from speechbrain_slm.utils.columns import as_type, check_columns, parquet_of
from speechbrain_slm.utils.files import HeldFile
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.pieces import DamagedPiece, read_piece, write_piece
from speechbrain_slm.utils.tables import STORIES

PARTS = "part-*.parquet"
# A row a story; it has sentences, or a reason why it has none.
PART = pa.schema(
    [
        ("story_id", pa.string()),
        ("sentences", pa.list_(pa.string())),
        ("reason", pa.string()),
    ]
)
_ROWS = 16384  # read at once


class Shard(NamedTuple):
    """Whole stories of a table.

    Attributes
    ----------
    table
        Their rows; ``story_id`` and ``sentence`` are of the types of
        ``STORIES``, whatever the file has.
    starts : Where each story begins, int64 ``[stories]``.
    """

    table: pa.Table
    starts: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Sentences of each story."""
        return np.diff(self.starts, append=len(self.table))

    def stories(self, language: str) -> list[Story]:
        """Return them in one language."""
        names = self.table["story_id"].take(self.starts).to_pylist()
        texts = self.table[language].to_pylist()
        ends = self.starts + self.lengths
        return [
            Story(name, texts[start:end])
            for name, start, end in zip(names, self.starts, ends, strict=True)
        ]


def read_shards(
    held: HeldFile, columns: list[str], stories_per_shard: int
) -> Iterator[Shard]:
    """Cut a stories table into shards of whole stories."""
    left = None
    with parquet_of(held) as file:
        for batch in file.iter_batches(_ROWS, columns=columns):
            held.check()
            table = _typed(held.path, pa.Table.from_batches([batch]))
            left = table if left is None else pa.concat_tables([left, table])
            starts = _starts(left)
            # The last story may go on in the next batch.
            whole = (len(starts) - 1) // stories_per_shard * stories_per_shard
            for first in range(0, whole, stories_per_shard):
                here = starts[first : first + stories_per_shard + 1]
                rows = left[int(here[0]) : int(here[-1])]
                yield Shard(rows, here[:-1] - here[0])
            left = left[int(starts[whole]) :] if len(starts) else None
    if left is not None and len(left):
        yield Shard(left, _starts(left))


def _typed(path: Path, table: pa.Table) -> pa.Table:
    for field in STORIES:
        place = table.column_names.index(field.name)
        column = as_type(path, field, table[field.name])
        table = table.set_column(place, field, column)
    return table


def _starts(table: pa.Table) -> np.ndarray:
    ids = table["story_id"].combine_chunks()
    if not len(ids):
        return np.zeros(0, dtype=np.int64)
    new = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.concatenate([[True], new.astype(bool)]))


def survey(held: HeldFile, language: str, stories_per_shard: int) -> dict:
    """Read a stories table through and refuse what is not one.

    Returns
    -------
    ``stories``: their number; ``sha256``: of the file.

    Raises
    ------
    ValueError
        If it is no Parquet file, lacks a column, has no story, a sentence
        without text, a story whose sentences are not numbered 0, 1, 2, ...,
        or one whose rows do not stand together.
    """
    path, columns = held.path, [*STORIES.names, language]
    with parquet_of(held) as file:
        check_columns(path, file.schema_arrow.names, columns)
    rows, stories, seen = 0, 0, Seen()
    for shard in read_shards(held, columns, stories_per_shard):
        _check_shard(path, shard, language, rows)
        rows += len(shard.table)
        stories += len(shard.starts)
        names = shard.table["story_id"].take(shard.starts).to_pylist()
        if not seen.add([digest_id(name) for name in names]).all():
            raise ValueError(
                f"{path}: the rows of a story do not stand together, or two "
                "stories have one story_id; sort it by story_id and sentence"
            )
    if not stories:
        raise ValueError(f"{path} holds no story")
    return {"stories": stories, "sha256": held.sha256()}


def _check_shard(path: Path, shard: Shard, language: str, row: int) -> None:
    table, starts = shard
    for name in table.column_names:
        if table[name].null_count:
            hole = pc.index(pc.is_null(table[name]), True).as_py()
            raise ValueError(f"{path}, row {row + hole}: no '{name}'")
    empty = pc.index(pc.utf8_trim_whitespace(table[language]), "").as_py()
    if empty >= 0:
        raise ValueError(
            f"{path}, row {row + empty}: column '{language}' has no text"
        )
    expected = np.arange(len(table)) - np.repeat(starts, shard.lengths)
    wrong = np.flatnonzero(table["sentence"].to_numpy() != expected)
    if len(wrong):
        here = table.slice(int(wrong[0]), 1).to_pylist()[0]
        raise ValueError(
            f"{path}, row {row + wrong[0]}: story '{here['story_id']}' has "
            f"sentence {here['sentence']} where {expected[wrong[0]]} is "
            "expected; a story's rows stand together, numbered 0, 1, 2, ..."
        )


def facts_of(pinned: dict, stories: list[Story]) -> dict:
    """Say what makes a part: what its folder holds, and what was translated."""
    return {"plan": identity_of(pinned), "stories": identity_of(stories)}


def write_part(
    folder: Path, number: int, rows: list[dict], facts: dict
) -> None:
    """Publish a shard: a row a story, of ``PART``."""
    table = pa.Table.from_pylist(rows, schema=PART)
    write_piece(folder / PARTS.replace("*", f"{number:07d}"), table, facts)


def find_parts(folder: Path) -> dict[int, Path]:
    """Find the shards that are done, those of array jobs too, by number."""
    return {
        int(path.stem.removeprefix("part-")): path
        for path in sorted(folder.glob(f"**/{PARTS}"))
        if not path.name.startswith(".")
    }


def read_part(path: Path, pinned: dict | None = None) -> tuple[pa.Table, dict]:
    """Read a shard, a table of ``PART``, and its facts.

    One that is damaged, or of another pinned configuration, is an error and is
    not replaced: what it holds may have been paid for.
    """
    try:
        table, facts = read_piece(path)
    except DamagedPiece as error:
        raise ValueError(
            f"{path} is damaged, or of another version of the recipe: its "
            "content has not the sum that it was made with. Remove it and run "
            "again."
        ) from error
    if pinned is not None and facts["plan"] != identity_of(pinned):
        raise ValueError(
            f"{path} was made with another configuration than the "
            "folder's plan.json says; remove it and run again"
        )
    return table.cast(PART), facts


def forget_rejected(folder: Path) -> None:
    """Remove the shards with rejected stories: a rerun tries them again."""
    for path in find_parts(folder).values():
        reasons = read_part(path)[0]["reason"]
        if reasons.null_count < len(reasons):
            path.unlink()
