"""Stories tables, read a part at a time: memory does not grow with them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.utils.tables import STORIES

logger = logging.getLogger(__name__)

# Stories of one cloze item, "X.prompt" and so on: they stay or go together.
_PART = r"\.(prompt|right|wrong|topic)$"
_BATCH = 1 << 16  # rows


@dataclass(frozen=True)
class Shard:
    """Rows ``start`` to ``stop`` of a split's stories table: whole stories."""

    split: str
    number: int
    path: Path
    start: int
    stop: int


def groups_of(
    story_ids: pa.Array | pa.ChunkedArray,
) -> pa.Array | pa.ChunkedArray:
    """Return what stays or goes together: an item's name, or the story's.

    Example
    -------
    >>> groups_of(pa.array(["x.prompt", "x.right", "a.b"])).to_pylist()
    ['x', 'x', 'a.b']
    """
    return pc.replace_substring_regex(story_ids, _PART, "")


def refuse_missing(path: str | Path) -> None:
    """Refuse a stories table that is not there.

    Raises
    ------
    FileNotFoundError
        Names it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path} does not exist; expected a stories table. Run the stage "
            "that writes it first."
        )


def _open(path, languages):
    path = Path(path)
    refuse_missing(path)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as a stories table in Parquet: {error}. "
            "Write it again."
        ) from error
    found = file.schema_arrow.names
    expected = [*STORIES.names, *languages]
    missing = [name for name in expected if name not in found]
    if missing:
        raise ValueError(
            f"{path}: missing column(s) {', '.join(missing)}; found "
            f"{', '.join(found)}"
        )
    extra = ["speaker"] if "speaker" in found else []
    return file, [*expected, *extra]


def _typed(path, batch):
    """Give the columns of a batch their types."""
    columns = {}
    for name in batch.schema.names:
        kind = pa.int32() if name == "sentence" else pa.string()
        try:
            columns[name] = batch[name].cast(kind)
        except pa.ArrowException as error:
            raise ValueError(
                f"{path}: column '{name}' should be {kind}: {error}"
            ) from error
    return pa.table(columns)


def _refuse_holes(path, table, first_row):
    for name in table.column_names:
        column = table[name]
        empty = pc.is_null(column)
        if pa.types.is_string(column.type):
            blank = pc.equal(pc.utf8_trim_whitespace(column), "")
            empty = pc.or_kleene(empty, blank)
        row = pc.index(empty, True).as_py()
        if row >= 0:
            raise ValueError(
                f"{path}, row {first_row + row}: column '{name}' is empty; "
                "every row needs a value, and every language its sentence"
            )


class _Order:
    """Checks the order of the rows, from one batch to the next."""

    def __init__(self, path, speakers, speaker_per) -> None:
        self.path, self.speakers = path, speakers
        self.speaker_per = speaker_per
        self.row, self.several = 0, False
        self._last = dict.fromkeys(("story_id", "group", "speaker"))
        self._last["sentence"] = -1
        self._names = []

    def check(self, table):
        """Refuse rows out of order; return where stories or items begin."""
        stories, sentence = table["story_id"], table["sentence"].to_numpy()
        begins = _changes(stories, self._last["story_id"])
        before = np.concatenate([[self._last["sentence"]], sentence[:-1]])
        wrong = np.flatnonzero(sentence != np.where(begins, 0, before + 1))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"{self.path}, row {self.row + row}: sentence "
                f"{sentence[row]} of story '{stories[row]}'; expected the "
                "rows of a story together and numbered 0, 1, 2, ... without "
                "a gap"
            )
        if "speaker" in table.column_names:
            self._check_speakers(table, begins)
        groups = groups_of(stories)
        group_begins = begins & _changes(groups, self._last["group"])
        names = stories.filter(pa.array(begins)).to_pylist()
        self._names.append(np.array([_number(name) for name in names], "u8"))
        for name in table.column_names:
            self._last[name] = table[name][-1].as_py()
        self._last["group"] = groups[-1].as_py()
        self.row += len(table)
        return group_begins

    def _check_speakers(self, table, begins):
        found = set(pc.unique(table["speaker"]).to_pylist())
        unknown = sorted(found - set(self.speakers))
        if unknown:
            raise ValueError(
                f"{self.path}: unknown speaker(s) "
                f"{', '.join(map(repr, unknown))}; expected one of "
                f"{', '.join(self.speakers)}"
            )
        changes = _changes(table["speaker"], self._last["speaker"])
        inside = np.flatnonzero(changes & ~begins)
        self.several |= len(inside) > 0
        if self.several and self.speaker_per == "story":
            raise ValueError(
                f"{self.path}: story '{table['story_id'][int(inside[0])]}' has "
                "more than one speaker; expected one from its first sentence "
                "to its last. If it is meant so, set speaker_per to sentence."
            )

    def finish(self) -> None:
        """Refuse a story whose rows stand in two places."""
        names = np.concatenate([*self._names, np.zeros(0, "u8")])
        twice = len(names) - len(np.unique(names))
        if twice:
            raise ValueError(
                f"{self.path}: {twice} story_id(s) stand more than once; "
                "expected the rows of a story together"
            )


def _changes(names, previous):
    """Tell which names differ from the one before."""
    names = names.combine_chunks()
    other = pc.not_equal(names[1:], names[:-1]).to_numpy(False)
    return np.concatenate([[names[0].as_py() != previous], other])


def _number(name):
    """Return 8 bytes for a name: all that is kept of a story."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def list_shards(
    split: str,
    path: str | Path,
    languages: list[str],
    speakers: Iterable[str],
    stories_per_shard: int,
    speaker_per: str = "story",
) -> list[Shard]:
    """Check a whole stories table and cut it into shards.

    Arguments
    ---------
    languages : The text columns that must be there, every row of them filled.
    speakers : Who may tell a story.
    stories_per_shard
        Stories in a shard; the stories of a cloze item count as one.
    speaker_per
        ``story``: a story of several speakers is refused. ``sentence``: it
        is not.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the table is not a stories table: names the file, row and column.
    """
    file, columns = _open(path, languages)
    order, starts, count = _Order(path, speakers, speaker_per), [], 0
    for batch in file.iter_batches(_BATCH, columns=columns):
        table = _typed(path, batch)
        _refuse_holes(path, table, order.row)
        first_row = order.row
        found = np.flatnonzero(order.check(table))
        cut = (count + np.arange(len(found))) % stories_per_shard == 0
        starts += (first_row + found[cut]).tolist()
        count += len(found)
    order.finish()
    if not starts:
        raise ValueError(f"{path} holds no story; expected one or more")
    if speaker_per == "sentence" and "speaker" in columns and not order.several:
        logger.info(
            "%s: its column 'speaker' gives each story one speaker; none is "
            "drawn for its sentences",
            path,
        )
    return [
        Shard(split, number, Path(path), start, stop)
        for number, (start, stop) in enumerate(
            zip(starts, [*starts[1:], order.row], strict=True)
        )
    ]


def read_shard(shard: Shard, languages: list[str]) -> pa.Table:
    """Read the rows of a shard.

    Arguments
    ---------
    shard : Of a table that :func:`list_shards` has checked.

    Returns
    -------
    story_id, sentence, the languages and, where there is one, speaker.
    """
    file, columns = _open(shard.path, languages)
    parts, begin = [], 0
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
