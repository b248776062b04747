"""Pairs of a right and a wrong utterance as rows of a table, audio included.

So spoken benchmarks stand on the hub: a row has two columns of audio
(``{bytes, path}`` in Parquet), and others that name the pair, its voice and its
part. What the columns are called differs from set to set, and is told. Every
row is one comparison: a row that cannot be used ends the reading.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from speechbrain_slm.benchmarks.spoken_items import Clip, Item
from speechbrain_slm.utils.audio import BadAudio, read_audio
from speechbrain_slm.utils.audio_cells import content_or_path, keep_audio
from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.table_parts import table_parts
from speechbrain_slm.utils.user_tables import as_text

# Rows held at once: whole stories, twice a row.
BATCH = 32


@dataclass(frozen=True)
class PairRows:
    """Where the rows of a benchmark are, and which column holds what.

    Arguments
    ---------
    source
        A table, a folder of tables, ``hub:<name>:<configuration>:<split>``; or
        speaker -> one of these, where no column says who speaks.
    positive, negative : Columns of audio.
    pair : The columns that name a pair, all of them together.
    speaker
        The column that names the voice. The voices of a pair count once.
    subset : The column of its part; each gets an accuracy of its own.
    subsets : What that column must hold, if it is known: no less and no more.
    language : What the utterances are called in the store.
    """

    source: str | Mapping[str, str]
    positive: str
    negative: str
    pair: Sequence[str]
    speaker: str | None = None
    subset: str | None = None
    subsets: Sequence[str] | None = None
    language: str = "en"

    @classmethod
    def told(cls, name: str, settings: Mapping[str, Any]) -> PairRows:
        """Read the settings of a YAML file; ValueError if they are none."""
        known = [field.name for field in fields(cls)]
        absent = [key for key in known[:4] if not settings.get(key)]
        unknown = [key for key in settings if key not in known]
        if absent or unknown:
            raise ValueError(
                f"{name}: found {', '.join(settings) or 'nothing'}; expected "
                f"{', '.join(known[:4])} and, or not, {', '.join(known[4:])}"
            )
        rows = cls(**settings)
        if isinstance(rows.pair, str) or (rows.subsets and not rows.subset):
            raise ValueError(
                f"{name}: pair is {rows.pair!r}, subset is {rows.subset!r}; "
                "expected a list of columns, [id], and the column in which the "
                "subsets stand"
            )
        return rows

    def columns(self) -> list[str]:
        """List the columns that the tables must have."""
        names = [*self.pair, self.speaker, self.subset]
        names += [self.positive, self.negative]
        return list(dict.fromkeys(name for name in names if name))


def read_pair_rows(
    benchmark: str, rows: PairRows, output_folder: str | Path
) -> tuple[list[Clip], list[Item]]:
    """Read a benchmark; its items have no prompt.

    Audio that comes as bytes is written to ``audio/`` in the output folder.
    ValueError, which names the row, if there is anything wrong with it.
    """
    clips: list[Clip] = []
    items: dict[str, Item] = {}
    for place, teller, base, row in _rows(rows):
        try:
            if row.fault:
                raise ValueError(row.fault)
            item, speaker = _item(benchmark, rows, teller, row.values)
            if item.item_id in items:
                raise ValueError(
                    f"'{item.item_id}' stands twice; expected that "
                    f"{', '.join(rows.pair)} (and the speaker) name one row: "
                    "add columns to 'pair', or name each table once"
                )
            sides = {item.right: rows.positive, item.wrong: rows.negative}
            for side, column in sides.items():
                cell = row.values[column]
                found = _audio(column, cell, base, Path(output_folder))
                clips.append(Clip(side, rows.language, speaker, *found))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        items[item.item_id] = item
    found = {item.subset for item in items.values()}
    if rows.subsets and found != set(rows.subsets):
        raise ValueError(
            f"{benchmark}: column {rows.subset} holds "
            f"{', '.join(sorted(found))}; expected {', '.join(rows.subsets)}. "
            "Fetch all of the set, or correct 'subsets'."
        )
    return clips, list(items.values())


def _rows(rows):
    """Yield a row's place, its speaker by its folder, and where paths start."""
    sources = rows.source
    if not isinstance(sources, Mapping):
        sources = {"": sources}
    for teller, source in sources.items():
        row = None
        for part in table_parts(source, BATCH, rows.columns()):
            for row in itertools.chain.from_iterable(part.batches):
                place = f"{part.where}, row {row.number}"
                yield place, teller, part.folder, row
        if row is None:
            raise ValueError(f"{source} has no row; expected one a pair")


def _item(benchmark, rows, speaker, values):
    """Return the item of a row, and who speaks."""

    def text(column):
        try:
            found = as_text(values[column]).strip()
        except ValueError as error:
            raise ValueError(f"{column}: {error}") from error
        if not found:
            raise ValueError(f"{column} is empty; expected a name or a number")
        return found

    names = [text(column) for column in rows.pair]
    if rows.speaker:
        speaker = ".".join(filter(None, [speaker, text(rows.speaker)]))
    item = ".".join([*names, *([speaker] if speaker else [])])
    sides = (f"{benchmark}.{item}.{side}" for side in ("right", "wrong"))
    kinds = (
        "/".join(names) if speaker else "",
        text(rows.subset) if rows.subset else "",
    )
    ends = rows.language, rows.language, "", *sides, *kinds
    return Item(item, benchmark, *ends), speaker or "unknown"


def _audio(column, cell, base, folder):
    """Return the file of a cell, and its sound where the cell has the bytes."""
    try:
        audio = content_or_path(cell)
        if isinstance(audio, bytes):
            sound = read_audio(audio, keep=None)
            return keep_audio(audio, sound, folder / "audio"), sound
    except BadAudio as error:
        raise ValueError(f"{column}: bad audio: {error}") from error
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from error
    path = as_stored(Path(base or "", audio))
    if not path.is_file():
        raise ValueError(f"{column}: {path} does not exist")
    return path, None
