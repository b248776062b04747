"""Manifests as the extraction needs them: checked, and each audio once."""

import hashlib
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.units.rows import KEY_COLUMNS, KeyIndex, Rows, codes, parts
from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.scratch import blocks, positions, scratch
from speechbrain_slm.utils.tables import (
    MANIFEST,
    MANIFEST_KEY,
    check_matched,
    read_table,
)

# Neither can be 0: something that fills what is missing wrote it.
_COUNTED = ("num_samples", "sample_rate")
NO_MANIFEST = (
    "Run the recipe that writes it (synthesis), or make one of recordings that "
    "you have: recipes/TinyStories/spoken does, from folders or tables."
)


def read_manifest(path: str | Path, languages: Sequence[str]) -> pa.Table:
    """Read a manifest and refuse one that a store cannot be made of.

    Audio paths are absolute then, or relative to the working directory.

    Raises
    ------
    ValueError
        If it has no row, an unknown language, or a story whose languages
        differ in their number of sentences.
    """
    path = Path(path)
    table = read_table(path, MANIFEST, MANIFEST_KEY, advice=NO_MANIFEST)
    table = table.select(MANIFEST.names).combine_chunks()
    if not len(table):
        raise ValueError(f"{path} has no row; expected a spoken sentence a row")
    check_matched(path, table, languages)
    check_rows(path, table)
    return with_paths(path, table).combine_chunks()


def check_rows(path: Path, table: pa.Table) -> None:
    """Refuse what a manifest says of an audio file and no file can have."""
    for name in _COUNTED:
        row = pc.index(pc.less(table[name], 1), True).as_py()
        if row >= 0:
            raise ValueError(
                f"{path}, row {row}: {name} is {table[name][row]}; expected "
                f"1 or more, as the audio file {table['audio'][row]} has it. "
                "Make the manifest again, or drop the row."
            )
    sound = pc.match_substring_regex(table["sha256"], "^[0-9a-f]{64}$")
    row = pc.index(sound, False).as_py()
    if row >= 0:
        raise ValueError(
            f"{path}, row {row}: sha256 is '{table['sha256'][row]}'; expected "
            "the audio file's SHA-256, 64 hexadecimal digits in lower case"
        )


def with_paths(path: Path, table: pa.Table) -> pa.Table:
    """Write a manifest's audio paths as they are seen from here."""
    absolute = pc.starts_with(table["audio"], "/")
    beside = pc.binary_join_element_wise(str(path.parent), table["audio"], "/")
    audio = pc.if_else(absolute, table["audio"], beside)
    column = table.column_names.index("audio")
    return table.set_column(column, MANIFEST.field("audio"), audio)


def distinct_utterances(table: pa.Table) -> np.ndarray:
    """Find every audio file that manifests name, once in each language.

    ``key`` and ``row``, the first row of each, in the order of their SHA-256.
    ValueError if rows say different things of the same audio.
    """
    records = KeyIndex(table).first()
    rows = Rows(table.select([*KEY_COLUMNS, "audio"]))
    for part in blocks(len(records) - 1):
        here = records[part.start : part.stop + 1]
        # Those of one SHA-256 stand together, and so do a few others.
        digest = np.ascontiguousarray(here["key"]).astype("S8")
        alike = np.flatnonzero(digest[1:] == digest[:-1])
        told = (rows.take(here["row"][alike + n]).to_pylist() for n in (0, 1))
        for one, other in zip(*told, strict=True):
            for name in _COUNTED:
                low, high = sorted((one[name], other[name]))
                if low != high and one["sha256"] == other["sha256"]:
                    raise ValueError(
                        f"{one['audio']}: rows of the manifests give its "
                        f"{name} as {low} and {high} under one sha256; "
                        "expected one value"
                    )
    return records


def refuse_missing_audio(paths: Iterable[str]) -> None:
    """Stop where audio files are not there, before any work is done."""
    # What is there and is no file is a reason of that one audio.
    absent = [path for path in paths if not os.path.exists(as_stored(path))]
    if absent:
        raise FileNotFoundError(
            f"{absent[0]} does not exist, though a manifest names it "
            f"({len(absent)} such file(s)); nothing was fitted or encoded. "
            "Mend the manifest's paths, or bring the audio back."
        )


def content_identity(
    table: pa.Table, columns: Sequence[str], rows: np.ndarray | None = None
) -> str:
    """Name the content of columns, in the order of ``rows``, or of all.

    Without the paths, moving the audio changes nothing.
    """
    count = len(table) if rows is None else len(rows)
    digest = hashlib.sha256()
    for name in columns:
        # As lines of text, so that the type of a number does not count.
        digest.update(f"{name}\n{count}\n".encode())
        between = b""
        for _, batch in parts(table, [name], rows):
            texts = batch[name].cast(pa.string())
            one = pa.ListArray.from_arrays([0, len(texts)], texts)
            digest.update(between)
            # By Arrow: no Python object a row.
            digest.update(pc.binary_join(one, "\n")[0].as_buffer())
            between = b"\n"
        digest.update(b"\n")
    return digest.hexdigest()


def sample_utterances(
    table: pa.Table, seconds: float, seed: int
) -> list[dict[str, Any]]:
    """Draw audio files, the same amount of each (language, speaker).

    Of ``seconds`` in all, each gives its share, or all it has where that is
    less.
    """
    rows = distinct_utterances(table)["row"]
    stratum, languages = codes(table, "language", rows)
    speaker, speakers = codes(table, "speaker", rows)
    lengths = seconds_of(table, rows)
    found: set[int] = set()
    for part in blocks(len(rows)):
        stratum[part] = stratum[part] * len(speakers) + speaker[part]
        found.update(np.unique(stratum[part]).tolist())
    # Of each its language and its speaker: by these they are drawn in turn.
    names = list(itertools.product(languages, speakers))
    spoken = Rows(table.select([*KEY_COLUMNS, "audio", "speaker"]))
    drawn = []
    for number, one in enumerate(sorted(found, key=names.__getitem__)):
        flags = scratch(len(rows), bool)
        for part in blocks(len(rows)):
            flags[part] = stratum[part] == one
        here = positions(flags)
        np.random.default_rng([seed, number]).shuffle(here)
        end = 0.0  # of the speech drawn so far, in seconds
        # In the order drawn, each that begins before the share is full: of
        # 3 s, 3 s and 3 s for 5 s, the first two.
        for part in blocks(len(here)):
            length = lengths[here[part]]
            ends = np.cumsum([end, *length])[1:]
            chosen = ends - length < seconds / len(found)
            end = ends[-1]
            drawn += spoken.take(rows[here[part][chosen]]).to_pylist()
    return drawn


def seconds_of(table: pa.Table, rows: np.ndarray | None = None) -> np.ndarray:
    """Return how long the audio of each row is: seconds, float64, in a file."""
    found = scratch(len(table) if rows is None else len(rows), np.float64)
    for part, batch in parts(table, _COUNTED, rows):
        samples, rates = (batch[name].to_numpy() for name in _COUNTED)
        found[part] = samples / rates
    return found
