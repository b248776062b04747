"""Stories tables, read a part at a time: memory does not grow with them."""

import array
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.speech.utterances import Speech
from speechbrain_slm.utils.columns import as_type, check_columns, open_parquet
from speechbrain_slm.utils.tables import STORIES

logger = logging.getLogger(__name__)
STORIES_TABLE = "a stories table. Run the stage that writes it first"
_BATCH = 1 << 16  # rows


@dataclass(frozen=True)
class Shard:
    """Rows ``start`` to ``stop`` of a split's stories table: whole stories."""

    split: str
    number: int
    path: Path
    start: int
    stop: int


def changed(path: str | Path) -> ValueError:
    """Return the error of a file that changed while it was spoken."""
    return ValueError(
        f"{path} was changed while it was spoken. Run the same command again: "
        "it speaks what the text is then, and keeps what it has spoken of it."
    )


def group_of(story_id: str) -> str:
    """Return what a story stays or goes with: a cloze item, or itself.

    Example
    -------
    >>> group_of("x.prompt"), group_of("x.right"), group_of("a.b")
    ('x', 'x', 'a.b')
    """
    item, dot, part = story_id.rpartition(".")
    of_item = dot and part in ("prompt", "right", "wrong", "topic")
    return item if of_item else story_id


def list_shards(split: str, path: str | Path, speech: Speech) -> list[Shard]:
    """Check a whole stories table and cut it into shards.

    ValueError if it is none: names the file, row and column.
    """
    starts, row, several = [], 0, False
    count, group = 0, None  # of the stories, those of a cloze item as one
    seen = array.array("q")  # 8 bytes are all that is kept of a story
    with _open(path, speech.languages) as (file, columns):
        before: list[pa.Table] = []
        for batch in file.iter_batches(_BATCH, columns=columns):
            table = _typed(path, batch)
            _refuse_holes(path, table, row)
            # The last row of the batch before says whether a story goes on.
            whole = pa.concat_tables([*before, table])
            begins = _changes(whole["story_id"], len(table))
            _check_numbers(path, whole, begins, row)
            if "speaker" in columns:
                inside = _changes(whole["speaker"], len(table)) & ~begins
                several |= bool(inside.any())
                _check_speakers(path, table, inside, speech)
            names = table["story_id"].filter(pa.array(begins)).to_pylist()
            seen.extend(map(hash, names))
            groups = map(group_of, names)
            for place, name in zip(np.flatnonzero(begins), groups, strict=True):
                if name == group:
                    continue
                # 5 a shard: groups 0, 5, 10, ... of the table begin one.
                if count % speech.stories_per_shard == 0:
                    starts.append(row + int(place))
                count, group = count + 1, name
            row, before = row + len(table), [table.slice(len(table) - 1)]
    if not seen:
        raise ValueError(f"{path} holds no story; expected one or more")
    if twice := len(seen) - len(np.unique(seen)):
        raise ValueError(
            f"{path}: {twice} story_id(s) stand more than once; expected the "
            "rows of a story together"
        )
    by_story = "speaker" in columns and not several
    if by_story and speech.speaker_per == "sentence":
        told = "gives each story one speaker; none is drawn for its sentences"
        logger.info("%s: its column 'speaker' %s", path, told)
    ends = zip(starts, [*starts[1:], row], strict=True)
    return [Shard(split, n, Path(path), *one) for n, one in enumerate(ends)]


def read_shard(shard: Shard, languages: list[str]) -> pa.Table:
    """Read a shard: story_id, sentence, languages; speaker, if there is one."""
    with _open(shard.path, languages) as (file, columns):
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        bounds = np.cumsum([0, *(group.num_rows for group in groups)])
        if shard.stop > bounds[-1]:
            raise changed(shard.path)
        # The row groups that hold its first and its last row.
        rows = [shard.start, shard.stop - 1]
        first, last = np.searchsorted(bounds, rows, "right") - 1
        whole = file.read_row_groups(range(first, last + 1), columns=columns)
        start = shard.start - int(bounds[first])
        table = whole.slice(start, shard.stop - shard.start)
        return _typed(shard.path, table).combine_chunks()


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


def _changes(column: pa.ChunkedArray, rows: int) -> np.ndarray:
    """Tell which of the last rows differ from the one before."""
    names = column.combine_chunks()
    other = pc.not_equal(names[1:], names[:-1]).to_numpy(zero_copy_only=False)
    return np.append(True, other)[-rows:]


def _check_numbers(
    path: str | Path, whole: pa.Table, begins: np.ndarray, first_row: int
) -> None:
    sentences, rows = whole["sentence"].to_numpy(), len(begins)
    steps = np.diff(sentences, prepend=0)[-rows:]
    wrong = np.where(begins, sentences[-rows:] != 0, steps != 1)
    if wrong.any():
        row = int(wrong.argmax())
        found = whole.slice(len(whole) - rows + row, 1).to_pylist()[0]
        raise ValueError(
            f"{path}, row {first_row + row}: sentence {found['sentence']} of "
            f"story '{found['story_id']}'; expected the rows of a story "
            "together and numbered 0, 1, 2, ... without a gap"
        )


def _check_speakers(
    path: str | Path, table: pa.Table, inside: np.ndarray, speech: Speech
) -> None:
    """Refuse speakers nobody knows, and a change of them ``inside`` a story."""
    told = set(pc.unique(table["speaker"]).to_pylist())
    if unknown := sorted(told - speech.speakers.keys()):
        raise ValueError(
            f"{path}: unknown speaker(s) {', '.join(map(repr, unknown))}; "
            f"expected one of {', '.join(speech.speakers)}"
        )
    if speech.speaker_per == "story" and inside.any():
        raise ValueError(
            f"{path}: story '{table['story_id'][int(inside.argmax())]}' has "
            "more than one speaker; expected one from its first sentence to "
            "its last. If it is meant so, set speaker_per to sentence."
        )
