"""Stories tables, read a part at a time: memory does not grow with them."""

import contextlib
import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.utils.columns import as_type, check_columns, open_parquet
from speechbrain_slm.utils.tables import STORIES

logger = logging.getLogger(__name__)
STORIES_TABLE = "a stories table. Run the stage that writes it first"
# Stories of one cloze item, "X.prompt" and so on: they stay or go together.
_PART = r"\.(prompt|right|wrong|topic)$"
_BATCH = 1 << 16  # rows
_Names = TypeVar("_Names", pa.Array, pa.ChunkedArray)


@dataclass(frozen=True)
class Shard:
    """Rows ``start`` to ``stop`` of a split's stories table: whole stories."""

    split: str
    number: int
    path: Path
    start: int
    stop: int


def groups_of(story_ids: _Names) -> _Names:
    """Return what stays or goes together: an item's name, or the story's.

    Example
    -------
    >>> groups_of(pa.array(["x.prompt", "x.right", "a.b"])).to_pylist()
    ['x', 'x', 'a.b']
    """
    return pc.replace_substring_regex(story_ids, _PART, "")


def list_shards(
    split: str,
    path: str | Path,
    languages: list[str],
    speakers: Iterable[str],
    stories_per_shard: int,
    speaker_per: str = "story",
) -> list[Shard]:
    """Check a whole stories table and cut it into shards.

    ValueError if it is none: names the file, row and column.

    Arguments
    ---------
    languages : The text columns that must be there, every row of them filled.
    speakers : Who may tell a story.
    stories_per_shard : The stories of a cloze item count as one.
    speaker_per : ``story`` refuses one of several speakers.
    """
    starts, names, row, count, several = [], [], 0, 0, False
    with _open(path, languages) as (file, columns):
        before: list[pa.Table] = []
        for batch in file.iter_batches(_BATCH, columns=columns):
            table = _typed(path, batch)
            _refuse_holes(path, table, row)
            table = table.append_column("group", groups_of(table["story_id"]))
            # The last row of the batch before says whether a story goes on.
            whole = pa.concat_tables([*before, table])
            begins = _changes(whole, "story_id", len(table))
            _check_numbers(path, whole, begins, row)
            if "speaker" in columns:
                inside = _changes(whole, "speaker", len(table)) & ~begins
                several |= bool(inside.any())
                _check_speakers(path, table, speakers, inside, speaker_per)
            names.append(_numbers(table["story_id"].filter(pa.array(begins))))
            groups = begins & _changes(whole, "group", len(table))
            found = np.flatnonzero(groups)
            # 5 a shard: stories 0, 5, 10, ... of the table begin one.
            cut = (count + np.arange(len(found))) % stories_per_shard == 0
            starts += (row + found[cut]).tolist()
            count, row = count + len(found), row + len(table)
            before = [table.slice(len(table) - 1)]
    _refuse_twice(path, names)
    if speaker_per == "sentence" and "speaker" in columns and not several:
        told = "gives each story one speaker; none is drawn for its sentences"
        logger.info("%s: its column 'speaker' %s", path, told)
    ends = zip(starts, [*starts[1:], row], strict=True)
    return [Shard(split, n, Path(path), *one) for n, one in enumerate(ends)]


def read_shard(shard: Shard, languages: list[str]) -> pa.Table:
    """Read a shard: story_id, sentence, languages; speaker, if there is one."""
    parts, begin = [], 0
    with _open(shard.path, languages) as (file, columns):
        for number in range(file.num_row_groups):
            end = begin + file.metadata.row_group(number).num_rows
            if begin < shard.stop and end > shard.start:
                group = file.read_row_group(number, columns=columns)
                start = max(shard.start - begin, 0)
                part = group.slice(start, min(end, shard.stop) - begin - start)
                parts.append(_typed(shard.path, part))
            begin = end
    if begin < shard.stop:
        raise ValueError(
            f"{shard.path} has {begin} rows and had more when this run began; "
            "run the same command again, what was spoken is kept"
        )
    return pa.concat_tables(parts).combine_chunks()


@contextlib.contextmanager
def _open(
    path: str | Path, languages: list[str]
) -> Iterator[tuple[pq.ParquetFile, list[str]]]:
    with open_parquet(path, STORIES_TABLE) as file:
        found, columns = file.schema_arrow.names, [*STORIES.names, *languages]
        check_columns(path, found, columns)
        yield file, columns + ["speaker"] * ("speaker" in found)


def _typed(path: str | Path, rows: pa.RecordBatch | pa.Table) -> pa.Table:
    """Give the columns their types: text, but for those of ``STORIES``."""
    types = dict(zip(STORIES.names, STORIES.types, strict=True))
    names = rows.schema.names
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    columns = [as_type(path, field, rows[field.name]) for field in schema]
    return pa.table(columns, schema)


def _refuse_holes(path: str | Path, table: pa.Table, first_row: int) -> None:
    for name in table.column_names:
        empty = pc.is_null(table[name])
        if pa.types.is_string(table[name].type):
            blank = pc.equal(pc.utf8_trim_whitespace(table[name]), "")
            empty = pc.or_kleene(empty, blank)
        row = pc.index(empty, True).as_py()
        if row >= 0:
            raise ValueError(
                f"{path}, row {first_row + row}: column '{name}' is empty; "
                "every row needs a value, and every language its sentence"
            )


def _changes(table: pa.Table, name: str, rows: int) -> np.ndarray:
    """Tell which of the last rows differ from the one before."""
    names = table[name].combine_chunks()
    other = pc.not_equal(names[1:], names[:-1]).to_numpy(zero_copy_only=False)
    return np.append(True, other)[-rows:]


def _check_numbers(
    path: str | Path, whole: pa.Table, begins: np.ndarray, first_row: int
) -> None:
    sentence, rows = whole["sentence"].to_numpy(), len(begins)
    previous = np.append(0, sentence)[-rows - 1 : -1]
    expected = np.where(begins, 0, previous + 1)
    wrong = np.flatnonzero(sentence[-rows:] != expected)
    if len(wrong):
        place = len(whole) - rows + int(wrong[0])
        raise ValueError(
            f"{path}, row {first_row + wrong[0]}: sentence {sentence[place]} "
            f"of story '{whole['story_id'][place]}'; expected the rows of a "
            "story together and numbered 0, 1, 2, ... without a gap"
        )


def _refuse_twice(path: str | Path, names: list[np.ndarray]) -> None:
    if not names:
        raise ValueError(f"{path} holds no story; expected one or more")
    stories = np.concatenate(names)
    if twice := len(stories) - len(np.unique(stories)):
        raise ValueError(
            f"{path}: {twice} story_id(s) stand more than once; expected the "
            "rows of a story together"
        )


def _check_speakers(
    path: str | Path,
    table: pa.Table,
    speakers: Iterable[str],
    inside: np.ndarray,
    speaker_per: str,
) -> None:
    """Refuse speakers nobody knows, and a change of them ``inside`` a story."""
    told = set(pc.unique(table["speaker"]).to_pylist())
    if unknown := sorted(told - set(speakers)):
        raise ValueError(
            f"{path}: unknown speaker(s) {', '.join(map(repr, unknown))}; "
            f"expected one of {', '.join(speakers)}"
        )
    if speaker_per == "story" and inside.any():
        raise ValueError(
            f"{path}: story '{table['story_id'][int(inside.argmax())]}' has "
            "more than one speaker; expected one from its first sentence to "
            "its last. If it is meant so, set speaker_per to sentence."
        )


def _numbers(names: pa.ChunkedArray) -> np.ndarray:
    """Return 8 bytes for each name: all that is kept of a story."""
    encoded = (name.encode() for name in names.to_pylist())
    digests = (
        hashlib.blake2b(name, digest_size=8).digest() for name in encoded
    )
    return np.frombuffer(b"".join(digests), "<u8")
