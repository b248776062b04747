"""Stories of a table, shard by shard, and what became of each shard.

A shard is so many stories, in the table's order; its translation is published
as one file. A table is read some thousand rows at a time, however long it is.
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
from speechbrain_slm.utils.pieces import DamagedPiece, read_piece
from speechbrain_slm.utils.tables import STORIES

PARTS = "part-*.parquet"
# A row a story; it has sentences, or a reason why it has none.
_TEXT = pa.string()
PART = pa.schema(
    {"story_id": _TEXT, "sentences": pa.list_(_TEXT), "reason": _TEXT}
)
_ROWS = 16384  # read at once


class Shard(NamedTuple):
    """Whole stories of a table: their rows, and at which each story begins."""

    table: pa.Table  # columns of STORIES have its types, whatever the file has
    starts: np.ndarray  # int64 [stories]

    @property
    def lengths(self) -> np.ndarray:
        """Sentences of each story."""
        return np.diff(self.starts, append=len(self.table))

    @property
    def names(self) -> list[str]:
        """The ``story_id`` of each story."""
        return self.table["story_id"].take(self.starts).to_pylist()

    def stories(self, language: str) -> list[Story]:
        """Return them in one language."""
        texts, ends = self.table[language].to_pylist(), [*self.starts[1:], None]
        told = map(lambda start, end: texts[start:end], self.starts, ends)
        return list(map(Story, self.names, told))


def read_shards(
    held: HeldFile, columns: list[str], stories_per_shard: int
) -> Iterator[Shard]:
    """Cut a stories table into shards of whole stories."""
    left = None
    with parquet_of(held) as file:
        for batch in filter(len, file.iter_batches(_ROWS, columns=columns)):
            held.check()
            table = pa.Table.from_batches([batch])
            for field in STORIES:
                place = table.column_names.index(field.name)
                column = as_type(held.path, field, table[field.name])
                table = table.set_column(place, field, column)
            left = table if left is None else pa.concat_tables([left, table])
            starts = _starts(left)
            # The last story may go on in the next batch.
            whole = (len(starts) - 1) // stories_per_shard * stories_per_shard
            for first in range(0, whole, stories_per_shard):
                here = starts[first : first + stories_per_shard + 1]
                rows = left[int(here[0]) : int(here[-1])]
                yield Shard(rows, here[:-1] - here[0])
            left = left[int(starts[whole]) :]
    if left is not None:
        yield Shard(left, _starts(left))


def _starts(table: pa.Table) -> np.ndarray:
    ids = table["story_id"].combine_chunks()
    new = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.concatenate([[True], new.astype(bool)]))


def survey(held: HeldFile, language: str, stories_per_shard: int) -> dict:
    """Read a stories table through, and refuse what is none (ValueError).

    Returns the number of its ``stories`` and the ``sha256`` of the file.
    """
    path, columns = held.path, [*STORIES.names, language]
    with parquet_of(held) as file:
        check_columns(path, file.schema_arrow.names, columns)
    rows, stories, seen = 0, 0, Seen()
    for shard in read_shards(held, columns, stories_per_shard):
        row, fault = _first_fault(shard, language)
        if fault:
            raise ValueError(f"{path}, row {rows + row}: {fault}")
        rows += len(shard.table)
        stories += len(shard.starts)
        if not seen.add(list(map(digest_id, shard.names))).all():
            raise ValueError(
                f"{path}: the rows of a story do not stand together, or two "
                "stories have one story_id; sort it by story_id and sentence"
            )
    if not stories:
        raise ValueError(f"{path} holds no story")
    return {"stories": stories, "sha256": held.sha256()}


def _first_fault(shard: Shard, language: str) -> tuple[int, str]:
    table = shard.table
    for name in table.column_names:
        if (row := pc.index(pc.is_null(table[name]), True).as_py()) >= 0:
            return row, f"no '{name}'"
    row = pc.index(pc.utf8_trim_whitespace(table[language]), "").as_py()
    if row >= 0:
        return row, f"column '{language}' has no text"
    starts = np.repeat(shard.starts, shard.lengths)
    expected, found = np.arange(len(table)) - starts, table["sentence"]
    for row in np.flatnonzero(found.to_numpy() != expected)[:1].tolist():
        return row, (
            f"story '{table['story_id'][row]}' has sentence {found[row]} where "
            f"{expected[row]} is expected; a story's rows stand together, "
            "numbered 0, 1, 2, ..."
        )
    return 0, ""


def facts_of(pinned: dict, stories: list[Story]) -> dict:
    """Say what makes a part: what its folder holds, and what was translated."""
    return {"plan": identity_of(pinned), "stories": identity_of(stories)}


def find_parts(folder: Path) -> dict[int, Path]:
    """Find the shards that are done, those of array jobs too, by number."""
    return {
        int(path.stem.removeprefix("part-")): path
        for path in sorted(folder.glob(f"**/{PARTS}"))
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
            f"{path} was made with another configuration than the folder's "
            "plan.json says; remove it and run again"
        )
    return table.cast(PART), facts


def forget_rejected(folder: Path) -> None:
    """Remove the shards with rejected stories: a rerun tries them again."""
    for path in find_parts(folder).values():
        reasons = read_part(path)[0]["reason"]
        if reasons.null_count < len(reasons):
            path.unlink()
