"""Translations that exist: a file with a row a sentence."""

from __future__ import annotations

import itertools
import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from speechbrain_slm.stories.translation import (
    Checks,
    Story,
    TranslationError,
    Translator,
)
from speechbrain_slm.utils.files import HeldFile, nfc
from speechbrain_slm.utils.user_tables import as_text, iterate_rows

logger = logging.getLogger(__name__)


class ParallelFile(Translator):
    r"""A :class:`Translator` that looks stories up.

    Arguments
    ---------
    path
        A table (see ``utils.user_tables``) with ``story_id``, ``sentence``
        (0, 1, 2, ...) and text columns; the rows of a story stand together, in
        order.
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
        self.target_column, self.source_column = target_column, source_column

    @property
    def identity(self) -> dict:
        """The file's content and what is read of it."""
        return {
            "type": "parallel",
            "sha256": self._read[0],
            "target_column": self.target_column,
            "source_column": self.source_column,
        }

    @cached_property
    def _read(self) -> tuple[str, sqlite3.Connection]:
        """Read the file once: its hash, and a row a story in a database."""
        # In a temporary file, which SQLite removes: it may be far larger than
        # the memory, and its stories in another order than the table's.
        database = sqlite3.connect("")
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("CREATE TABLE stories (name TEXT PRIMARY KEY, rows)")
        with HeldFile(self.path, "translations, a row a sentence") as held:
            for name, rows in itertools.groupby(self._rows(), lambda r: r[0]):
                told = json.dumps([row for _, row in rows], default=_no_text)
                try:
                    insert = "INSERT INTO stories VALUES (?, ?)"
                    database.execute(insert, (name, told))
                except sqlite3.IntegrityError:
                    raise ValueError(
                        f"{self.path}: the rows of story '{name}' do not stand "
                        "together; sort the file by story_id and sentence"
                    ) from None
            # Of one that was put in its place meanwhile nothing is known.
            held.check_there()
            return held.sha256(), database

    def _rows(self) -> Iterator[tuple[str, list | str]]:
        """Yield names of stories with a row's cells, or why it is no row."""
        columns = ["story_id", "sentence", self.target_column]
        columns += [self.source_column] if self.source_column else []
        name = first = ""
        for number, values, fault in iterate_rows(self.path, columns):
            try:
                # An accent may be written in two ways.
                found = "" if fault else nfc(as_text(values["story_id"]))
                fault = fault or ("" if found else "no story_id")
            except ValueError as error:
                fault = f"story_id: {error}"
            if fault:
                fault = f"row {number}: {fault}"
                first = first or fault
                # It may be one of the story before it.
                if name:
                    yield name, fault
            else:
                name = found
                yield name, [values[column] for column in columns[1:]]
        if first and not name:
            raise ValueError(f"{self.path}: no line is a row; {first}")
        if first:
            logger.warning("%s: a row that is none: %s", self.path, first)

    def translate(
        self, shards: Iterable[list[Story]], check: Checks
    ) -> Iterator[list]:
        """See :meth:`Translator.translate`."""
        for shard in shards:
            yield [self._story(story) for story in shard]

    def _story(self, story: Story) -> list[str] | TranslationError:
        select, name = "SELECT rows FROM stories WHERE name = ?", story.story_id
        found = self._read[1].execute(select, (nfc(name),)).fetchone()
        if found is None:
            return TranslationError("the parallel file does not have it")
        texts: list[str] = []
        sources: list[str] = []
        for row in json.loads(found[0]):
            # What comes after a story's last sentence is none of it.
            if isinstance(row, str) and len(texts) == len(story.sentences):
                break
            if isinstance(row, str):
                return TranslationError(f"the parallel file: {row}")
            number, text, *source = row
            if str(number) != str(len(texts)):
                return TranslationError(
                    f"the parallel file has sentence {number} where "
                    f"{len(texts)} is expected"
                )
            texts.append(text)
            sources += source
        if len(texts) == len(story.sentences):
            for number, source in enumerate(sources):
                if source != story.sentences[number]:
                    fault = "has another source text in the parallel file"
                    return TranslationError(fault, number)
        return texts


def _no_text(value: object) -> None:
    """JSON cannot hold it; nothing is refused by `Checks`."""
