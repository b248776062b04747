"""Translations that exist: a file with a row a sentence.

The file may be far larger than the memory: what is held of it are two numbers
a story, its name's hash and where it begins.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from speechbrain_slm.stories.duplicates import digest_id
from speechbrain_slm.stories.translation import Checks, Story, TranslationError
from speechbrain_slm.utils.columns import check_columns, parquet_of, readable
from speechbrain_slm.utils.files import (
    HeldFile,
    nfc,
    refuse_encoding,
    refuse_wide,
)
from speechbrain_slm.utils.user_tables import as_text, tsv_fields, tsv_names

logger = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".tsv", ".parquet")
_MARK = b"\xef\xbb\xbf"  # of UTF-8, where a file has one
# Where it begins, the row, and why it is none.
_Found = tuple[int, dict, str]
_BLOCK = 1 << 16  # bytes: some stories


class ParallelFile:
    r"""A :class:`Translator` that looks stories up.

    Arguments
    ---------
    path
        A ``.jsonl``, ``.tsv`` or ``.parquet`` file (see ``utils.user_tables``)
        with ``story_id``, ``sentence`` (0, 1, 2, ...) and text columns;
        the rows of a story stand together, in order.
    source_column
        The text that was translated: a story in which it is not that of the
        stories table is left out, since nothing says that sentence ``i`` is
        the same there. None trusts the numbers alone.

    Example
    -------
    >>> path = getfixture("tmp_path") / "fr.tsv"
    >>> _ = path.write_text("story_id\tsentence\tfr\na\t0\tBonjour.\n")
    >>> stories = [Story("a", ["Hello."]), Story("b", ["Goodbye."])]
    >>> list(ParallelFile(path, "fr").translate([stories], Checks()))
    [[['Bonjour.'], TranslationError('the parallel file does not have it')]]
    """

    def __init__(
        self,
        path: str | Path,
        target_column: str,
        source_column: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.target_column = target_column
        self.source_column = source_column
        if self.path.suffix not in SUFFIXES:
            names = ", ".join(SUFFIXES)
            raise ValueError(f"{self.path}: expected a file in {names}")

    def to(self, device: object) -> ParallelFile:
        """Return itself: there is nothing to compute."""
        return self

    def usage(self) -> dict:
        """Return nothing: it has been paid for."""
        return {}

    @cached_property
    def identity(self) -> dict:
        """The file's content and what is read of it."""
        return {
            "type": "parallel",
            "sha256": self._rows.held.sha256(),
            "target_column": self.target_column,
            "source_column": self.source_column,
        }

    @cached_property
    def _rows(self) -> _TextRows | _ParquetRows:
        columns = ["story_id", "sentence", self.target_column]
        if self.source_column:
            columns.append(self.source_column)
        parquet = self.path.suffix == ".parquet"
        return (_ParquetRows if parquet else _TextRows)(self.path, columns)

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted hashes of names, and where each story begins."""
        found, begins, last, first = [], [], None, ""
        for start, row, fault in self._rows.read():
            first = first or fault
            if not fault and row["story_id"] != last:
                last = row["story_id"]
                found.append(_hash(last))
                begins.append(start)
        if first:
            logger.warning("%s: a row that is none: %s", self.path, first)
            if not found:
                raise ValueError(f"{self.path}: no line is a row; {first}")
        names, starts = np.array(found, np.uint64), np.array(begins, np.int64)
        order = np.argsort(names, kind="stable")
        names, starts = names[order], starts[order]
        twice = np.flatnonzero(names[1:] == names[:-1])
        if len(twice):
            _, row, _ = next(self._rows.read(int(starts[twice[0] + 1])))
            raise ValueError(
                f"{self.path}: the rows of story '{row['story_id']}' do not "
                "stand together; sort the file by story_id and sentence"
            )
        return names, starts

    def translate(
        self, shards: Iterable[list[Story]], check: Checks
    ) -> Iterator[list]:
        """See :meth:`Translator.translate`."""
        for shard in shards:
            yield [self._story(story) for story in shard]

    def _story(self, story: Story) -> list[str] | TranslationError:
        names, starts = self._index
        name = _hash(story.story_id)
        place = int(np.searchsorted(names, name))
        if place == len(names) or names[place] != name:
            return TranslationError("the parallel file does not have it")
        found: list[dict] = []
        for _, row, fault in self._rows.read(int(starts[place])):
            # What comes after a story's last sentence is none of it.
            if fault and len(found) == len(story.sentences):
                break
            if fault:
                return TranslationError(f"the parallel file: {fault}")
            if nfc(row["story_id"]) != nfc(story.story_id):
                break
            if str(row["sentence"]) != str(len(found)):
                return TranslationError(
                    f"the parallel file has sentence {row['sentence']} where "
                    f"{len(found)} is expected"
                )
            found.append(row)
        if self.source_column and len(found) == len(story.sentences):
            for number, row in enumerate(found):
                if row[self.source_column] != story.sentences[number]:
                    fault = "has another source text in the parallel file"
                    return TranslationError(fault, number)
        return [row[self.target_column] for row in found]


def _hash(story_id: str) -> np.uint64:
    # An accent may be written in two ways.
    return np.uint64(digest_id(nfc(story_id)))


class _TextRows:
    """Rows of a text file, found by the byte at which they begin."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self.path, self.columns = path, columns
        self.held = HeldFile(path, "translations, a row a sentence")
        refuse_wide(self.held.path)
        self.header: list[str] = []
        with open(path, "rb") as file:
            line = file.readline()
        self.start = len(_MARK) if line.startswith(_MARK) else 0
        if path.suffix == ".tsv":
            text = self._decode(line[self.start :])
            self.header, self.quoted = tsv_names(text)
            self.start = len(line)
            check_columns(path, self.header, columns)

    def read(self, start: int | None = None) -> Iterator[_Found]:
        """Yield rows from a byte on, or all, and why one is none."""
        start = self.start if start is None else start
        self.held.check()
        # A buffer of its own over the file that is held: what the path leads
        # to may have been replaced.
        number = self.held.file.fileno()
        with open(number, "rb", buffering=_BLOCK, closefd=False) as file:
            file.seek(start)
            for line in file:
                if line.strip():
                    row, fault = self._row(self._decode(line))
                    where = f"line at byte {start}: " if fault else ""
                    yield start, row, where + fault
                start += len(line)

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            refuse_encoding(self.path)

    def _row(self, text: str) -> tuple[dict, str]:
        try:
            if self.header:
                fields = tsv_fields(text, self.quoted)
                row = dict(zip(self.header, fields, strict=True))
            else:
                row = json.loads(text)
            row = {name: row[name] for name in self.columns}
            return {**row, "story_id": as_text(row["story_id"])}, ""
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            wanted = ", ".join(self.columns)
            return {}, f"{error!r}; expected a row with {wanted}"


class _ParquetRows:
    """Rows of a Parquet file, found by their number; one group is held."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self.columns = columns
        self.held = HeldFile(path, "translations, a row a sentence")
        with parquet_of(self.held) as file:
            self.file = file
        check_columns(path, self.file.schema_arrow.names, columns)
        meta = self.file.metadata
        sizes = [meta.row_group(n).num_rows for n in range(meta.num_row_groups)]
        self.bounds = np.cumsum([0, *sizes])
        self.group = -1, columns

    def read(self, start: int | None = None) -> Iterator[_Found]:
        """Yield rows from a number on, or the names of all, and faults."""
        columns = ["story_id"] if start is None else self.columns
        start = start or 0
        self.held.check()
        while start < self.bounds[-1]:
            group = int(np.searchsorted(self.bounds, start, "right")) - 1
            if (group, columns) != self.group:
                with readable(self.held.path, "Parquet"):
                    self.rows = self.file.read_row_group(group, columns)
                self.group = group, columns
            offset = start - int(self.bounds[group])
            # A story at a time: a group may have a million rows.
            for row in self.rows.slice(offset, 64).to_pylist():
                fault = ""
                try:
                    row["story_id"] = as_text(row["story_id"])
                except ValueError as error:
                    fault = f"row {start}: story_id: {error}"
                yield start, row, fault
                start += 1
