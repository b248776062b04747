"""The units of audio files, between extraction and the unit store.

A row is an audio file in a language. Rows come in Arrow files named after
their own SHA-256, so that a damaged file is found out. Which row stands in
which file says nothing: rows are found by what they are of.
"""

import functools
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.units.rows import KEY_COLUMNS, KeyIndex, Rows, keys, parts
from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.scratch import blocks, fill, scratch, select
from speechbrain_slm.utils.store_format import map_file
from speechbrain_slm.utils.tables import MANIFEST

logger = logging.getLogger(__name__)

# Its units, or the reason why it has none; a note says what was done to the
# audio beside decoding it.
SCHEMA = pa.schema(
    [
        *map(MANIFEST.field, KEY_COLUMNS),
        pa.field("units", pa.list_(pa.uint16())),
        pa.field("reason", pa.string()),
        pa.field("note", pa.string()),
    ]
)
FILES = "utterances-*.arrow"
_DIGITS = 32  # of a SHA-256, in a file's name


def utterance_files(folder: str | Path) -> list[Path]:
    """List the files, sorted, those of array jobs included."""
    # Not those of somebody else, which have other names.
    name = FILES.replace("*", "[0-9a-f]" * _DIGITS)
    return sorted(Path(folder).glob(f"**/{name}"))


def write_utterances(folder: str | Path, table: pa.RecordBatch) -> None:
    """Publish one file of rows of ``SCHEMA``, all of it or nothing."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write(table)
    content = sink.getvalue()
    # Two that publish the same rows write the same file.
    name = hashlib.sha256(content).hexdigest()[:_DIGITS]
    write_atomic(Path(folder) / FILES.replace("*", name), content)


def _damage(path: Path) -> str:
    if path.name == FILES.replace("*", sha256_file(path)[:_DIGITS]):
        return ""
    return f"{path} is damaged: it has not the SHA-256 that its name gives."


def remove_damaged(folder: str | Path) -> None:
    """Remove files that are not what was written, and say so."""
    for path in utterance_files(folder):
        if damage := _damage(path):
            how = "It is removed, and its audio encoded again."
            logger.warning("%s %s", damage, how)
            path.unlink(missing_ok=True)


def forget_rejects(folder: str | Path) -> None:
    """Remove what is said of bad audio, so that a rerun reads it again."""
    for path in utterance_files(folder):
        table = map_file(path, SCHEMA).combine_chunks()
        good = table.filter(pc.equal(table["reason"], ""))
        if len(good) < len(table):
            # First: a kill in between leaves rows twice, not none.
            for batch in good.to_batches():
                write_utterances(path.parent, batch)
            path.unlink()


class Utterances:
    """The units of audio files, memory-mapped and checked.

    ``table`` has all rows. ValueError if a file is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        tables = [SCHEMA.empty_table()]
        for path in utterance_files(folder):
            if damage := _damage(path):
                raise ValueError(f"{damage} Run the units recipe again.")
            tables.append(map_file(path, SCHEMA))
        self.table = pa.concat_tables(tables)
        self._units = Rows(self.table.select(["units"]))
        self._texts = Rows(self.table.select(["reason", "note"]))

    def __len__(self) -> int:
        return len(self.table)

    @functools.cached_property
    def index(self) -> KeyIndex:
        """Finds its rows, until :meth:`forget_index` frees its file."""
        return KeyIndex(self.table)

    def forget_index(self) -> None:
        """Free what finding rows needs, until one is looked for again."""
        vars(self).pop("index", None)

    def locate(self, table: pa.Table) -> np.ndarray:
        """Find the row of each spoken sentence: uint32, in a file.

        ValueError if a sentence's audio was not encoded.
        """
        found = scratch(len(table), np.uint32)
        for part, batch in parts(table, [*KEY_COLUMNS, "audio"]):
            rows = self.index.find(keys(batch))
            if (rows < 0).any():
                audio = batch["audio"][int(rows.argmin())]
                told = f"{audio} has no units in {self.folder}"
                raise ValueError(f"{told}; run the extraction to its end")
            found[part] = rows
        return found

    def good_rows(self, table: pa.Table) -> np.ndarray:
        """List the rows of a manifest's good audio, by SHA-256, each once."""
        wanted, located = scratch(len(self), bool), self.locate(table)
        for part in blocks(len(located)):
            wanted[located[part]] = True
        bad, rows = self.has_text("reason"), self.index.records["row"]
        for part in blocks(len(bad)):
            wanted[part] &= ~bad[part]
        flags = fill(len(rows), bool, lambda part: wanted[rows[part]])
        self.forget_index()
        return select(rows, flags)

    def has_text(self, name: str) -> np.ndarray:
        """Tell which rows have a ``reason``, or a ``note``: bool, in a file."""
        found = scratch(len(self), bool)
        for part, batch in parts(self.table, [name]):
            told = pc.not_equal(batch[name], "")
            found[part] = told.to_numpy(zero_copy_only=False)
        return found

    def texts(self, rows: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Read the ``reason`` and ``note`` of rows."""
        return self._texts.take(rows).to_pylist()

    def units(self, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Read the units of rows, uint16."""
        column = self._units.take(rows)["units"]
        bounds, flat = column.offsets.to_numpy(), column.flatten().to_numpy()
        return np.split(flat, bounds[1:-1] - bounds[0]) if len(column) else []
