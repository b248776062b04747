"""Rows of somebody's table that hold codes, and the units in them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from speechbrain_slm.units.characters import Codes, Layout, read_codes
from speechbrain_slm.utils.store_format import SCHEMAS
from speechbrain_slm.utils.table_parts import Part
from speechbrain_slm.utils.user_tables import Row, as_text

# Columns of a store, where a sentence may end anywhere.
STORIES = SCHEMAS[1]
# Characters that are worked on at once: as many as a processor's cache holds.
_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Columns:
    """Which columns of a source hold what.

    Arguments
    ---------
    codes : Codes as characters.
    story : The story's name; None: its file and row.
    suffix
        How the names of the rows end that are read; it is taken off. For sets
        that tell each story several times, ``_type1`` and ``_type2``.
    language : None where ``sources`` says it.
    """

    codes: str
    story: str | None = None
    suffix: str | None = None
    language: str | None = None
    speaker: str | None = None

    def __post_init__(self) -> None:
        if self.suffix and not self.story:
            raise ValueError(
                f"columns: suffix is {self.suffix!r}, but story names no "
                "column; expected both or no suffix"
            )

    def names(self) -> list[str]:
        """List the columns that are read."""
        found = (self.codes, self.story, self.language, self.speaker)
        return [name for name in found if name]


class _Story(NamedTuple):
    story_id: str
    language: str
    speaker: str
    codes: str
    place: str


class Found(NamedTuple):
    """What a part holds."""

    batches: list[pa.RecordBatch]  # of ``STORIES``
    ledger: list[dict]
    counts: Counter  # rows, those of them that are lost, and other rows


@dataclass(frozen=True)
class Reader:
    """How rows become units."""

    columns: Columns
    layout: Layout
    language_names: dict[str, str]
    aligned: bool
    wanted: int  # codebooks
    deduplicate: bool
    max_left_out: float

    def read(self, part: Part, language: str, first: bool = False) -> Found:
        """Read a part; ValueError if all may not go on.

        That is for a bad row, if ``max_left_out`` is 0, and where none of a
        source's ``first`` part is good: its end may be hours away.
        """
        found = Found([], [], Counter())
        stories = self._stories(part, language, found)
        for group in _groups(stories):
            found.batches.extend(self._batches(group, found.ledger))
        lost = [one for one in found.ledger if one["action"] == "dropped"]
        found.counts["lost"] = len(lost)
        none = first and len(lost) == found.counts["rows"]
        if lost and (none or not self.max_left_out):
            told = lost[0]
            raise ValueError(
                f"{told['place']}: {told['reason']}: {told['detail']}. Mend "
                "the source, or say in 'layout' and 'columns' what it is; "
                "max_left_out lets some rows be left out."
            )
        if found.counts["others"]:
            told = {"place": part.where, "action": "passed over"}
            told["reason"] = "rows of other names or languages"
            told["detail"] = str(found.counts["others"])
            found.ledger.append(told)
        return found

    def _stories(
        self, part: Part, language: str, found: Found
    ) -> Iterator[_Story]:
        for row in itertools.chain.from_iterable(part.batches):
            place = f"{part.where}, row {row.number}"
            try:
                story = self._story(row, f"{part.name}-{row.number}", language)
            except ValueError as error:
                told = {"reason": "no story", "detail": str(error)}
                told |= {"place": place, "action": "dropped"}
                found.ledger.append(told)
                found.counts["rows"] += 1
                continue
            found.counts["rows" if story else "others"] += 1
            if story:
                yield _Story(*story, place)

    def _story(
        self, row: Row, name: str, language: str
    ) -> tuple[str, str, str, str] | None:
        """Read a row; None if it is none of those that are asked for."""
        if row.fault:
            raise ValueError(row.fault)
        of, values = self.columns, row.values
        if of.story:
            name = as_text(values[of.story])
            if not name.endswith(of.suffix or ""):
                return None
            name = name.removesuffix(of.suffix or "")
        if of.language:
            language = as_text(values[of.language])
            if self.language_names and language not in self.language_names:
                return None
            language = self.language_names.get(language, language)
        speaker = as_text(values[of.speaker]) if of.speaker else ""
        codes = values[of.codes]
        told = {"name": name, "language": language, "text": codes}
        for what, value in told.items():
            if not value or not isinstance(value, str):
                raise ValueError(f"its {what} is {value!r:.80}; expected some")
        if not self.aligned:
            # Or a name that two languages have would make them parallel.
            name = f"{language}/{name}"
        return name, language, speaker, codes

    def _batches(
        self, stories: list[_Story], ledger: list[dict]
    ) -> Iterator[pa.RecordBatch]:
        """Read the codes of some rows; one by one, if something is wrong."""
        texts = [story.codes for story in stories]
        try:
            codes = read_codes(texts, self.layout, self.wanted)
            if self.aligned and not codes.lengths.all():
                # Those behind it would take its place in this language alone.
                raise ValueError("no codes: an utterance of an aligned story")
        except ValueError as error:
            if len(stories) > 1:
                for story in stories:
                    yield from self._batches([story], ledger)
                return
            reason, _, detail = str(error).partition(": ")
            ledger.append(_entry(stories[0], "dropped", reason, detail))
            return
        silent = codes.lengths == 0
        owner = np.repeat(np.arange(len(stories)), codes.counts)
        counts = np.bincount(owner[~silent], minlength=len(stories))
        for n in np.flatnonzero(counts != codes.counts):
            told = f"{codes.counts[n] - counts[n]} of {codes.counts[n]}"
            how = ("kept", "utterances without codes are passed over", told)
            ledger.append(_entry(stories[n], *how))
        for n in np.flatnonzero(counts == 0):
            ledger.append(_entry(stories[n], "dropped", "no codes", ""))
        units, lengths = codes.units, codes.lengths[~silent]
        if self.deduplicate and len(units):
            units, lengths = _deduplicate(units, lengths)
        kept = list(itertools.compress(stories, counts))
        yield _record(kept, Codes(units, lengths, counts[counts > 0]))


def _entry(story: _Story, action: str, reason: str, detail: str) -> dict:
    told = {"story_id": story.story_id, "language": story.language}
    told |= {"place": story.place, "action": action}
    return {**told, "reason": reason, "detail": detail}


def _groups(stories: Iterator[_Story]) -> Iterator[list[_Story]]:
    """Yield stories together, of so many characters as are read at once."""
    group: list[_Story] = []
    size = 0
    for story in stories:
        if group and size + len(story.codes) > _AT_ONCE:
            yield group
            group, size = [], 0
        group.append(story)
        size += len(story.codes)
    if group:
        yield group


def _deduplicate(
    units: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Write a unit that repeats itself in an utterance once."""
    begins = np.cumsum(lengths) - lengths
    first = np.append(True, units[1:] != units[:-1])
    first[begins] = True
    return units[first], np.add.reduceat(first, begins, dtype=np.int64)


def _record(stories: list[_Story], codes: Codes) -> pa.RecordBatch:
    ends = np.append(0, np.cumsum(codes.lengths))
    bounds = np.append(0, np.cumsum(codes.counts))
    # Lengths 2 3 | 4 end at 2 5 | 9 of all, at 2 5 | 4 of their stories.
    inside = ends[1:] - np.repeat(ends[bounds[:-1]], codes.counts)
    lists = (
        pa.ListArray.from_arrays(pa.array(at, pa.int32()), pa.array(values))
        for at, values in (
            (ends[bounds], codes.units),
            (bounds, inside.astype(np.int32)),
        )
    )
    names = ("story_id", "language", "speaker")
    told = [[getattr(one, name) for one in stories] for name in names]
    return pa.record_batch([*told, *lists], schema=STORIES)
