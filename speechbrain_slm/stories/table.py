"""A stories table that is written as the stories come."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.ownership import mark_of
from speechbrain_slm.utils.tables import STORIES

ROW_GROUP = 32768  # sentences, and the rest of the last one's story


class Table:
    """A row group ends with a story: it can be read again group by group."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self.num_stories, self.num_sentences = 0, 0
        self._writer = writer
        self._columns: dict[str, list] = {n: [] for n in writer.schema.names}

    def add(
        self, story_id: str, speaker: str | None, told: dict[str, list[str]]
    ) -> None:
        """Add a story: language -> as many sentences as in the others."""
        length = len(next(iter(told.values())))
        self._columns["story_id"] += [story_id] * length
        self._columns["sentence"] += range(length)
        if speaker is not None:
            self._columns["speaker"] += [speaker] * length
        for language, sentences in told.items():
            self._columns[language] += sentences
        self.num_stories += 1
        self.num_sentences += length
        if len(self._columns["sentence"]) >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait."""
        schema = self._writer.schema
        self._writer.write_table(pa.table(self._columns, schema=schema))
        for column in self._columns.values():
            column.clear()


@contextlib.contextmanager
def open_table(
    path: Path, languages: Iterable[str], speakers: object, maker: str
) -> Iterator[Table]:
    """Open a stories table that appears when the block ends.

    Arguments
    ---------
    speakers : Whether it has a column ``speaker``.
    maker : Whose mark it gets, see ``utils.ownership``.
    """
    columns = [*(["speaker"] if speakers else []), *languages]
    fields = [pa.field(name, pa.string()) for name in columns]
    schema = pa.schema([*STORIES, *fields], metadata=mark_of(maker))
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        table = Table(writer)
        yield table
        table.flush()
