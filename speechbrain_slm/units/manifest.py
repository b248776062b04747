"""Manifests of any size: checked, memory-mapped, and each audio once."""

import errno
import functools
import hashlib
import itertools
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.units import rows as tables
from speechbrain_slm.units.rows import KEY_COLUMNS, Rows, parts
from speechbrain_slm.utils import columns
from speechbrain_slm.utils.atomic import atomic_path, remove_temporary
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.scratch import blocks, fill, positions, scratch
from speechbrain_slm.utils.store_format import map_file
from speechbrain_slm.utils.tables import (
    MANIFEST,
    MANIFEST_KEY,
    check_matched,
    read_table,
)

# Neither can be 0: something that fills what is missing wrote it.
_COUNTED = ("num_samples", "sample_rate")
_TEXTS = [one.name for one in MANIFEST if pa.types.is_string(one.type)]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
COPIED_ROWS = 1 << 15  # in memory at once: some 10 MB
NO_MANIFEST = (
    "Run the recipe that writes it (synthesis), or make one of recordings that "
    "you have: recipes/TinyStories/spoken does, from folders or tables."
)


def read_manifest(path: str | Path, languages: Sequence[str]) -> pa.Table:
    """Read a manifest and refuse one that a store cannot be made of.

    Audio paths are absolute then, or relative to the working directory.
    ValueError if it has no row, an unknown language, or a story whose
    languages differ in their number of sentences.
    """
    path = Path(path)
    table = read_table(path, MANIFEST, MANIFEST_KEY, advice=NO_MANIFEST)
    table = table.select(MANIFEST.names).combine_chunks()
    check_matched(path, table, languages)
    return _with_paths(path, table).combine_chunks()


def _with_paths(path: Path, table: pa.Table) -> pa.Table:
    """Refuse what no audio file can have; write its path as seen from here."""
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
    absolute = pc.starts_with(table["audio"], "/")
    beside = pc.binary_join_element_wise(str(path.parent), table["audio"], "/")
    audio = pc.if_else(absolute, table["audio"], beside)
    place = MANIFEST.get_field_index("audio")
    return table.set_column(place, MANIFEST.field("audio"), audio)


def map_manifests(
    paths: Sequence[str | Path], languages: Sequence[str], folder: str | Path
) -> dict[str, pa.Table]:
    """Check manifests of any size, and memory-map copies of them, by split."""
    splits = [Path(path).stem for path in paths]
    if not splits or len(set(splits)) < len(splits):
        raise ValueError(
            f"manifests is {list(map(str, paths))}; expected one file or "
            "more, each of another name: the splits are named after them"
        )
    return {
        split: map_manifest(path, languages, Path(folder) / f"{split}.arrow")
        for split, path in zip(splits, paths, strict=True)
    }


def map_manifest(
    path: str | Path, languages: Sequence[str], copy: str | Path
) -> pa.Table:
    """Do what :func:`read_manifest` does, whatever the size.

    ``copy`` is the Arrow file to write, where other ranks find it.
    """
    path, copy = Path(path), Path(copy)
    if is_main():
        remove_temporary(copy.parent)
        if not _copy_checked(path, languages, copy):
            # What is wrong is told by the one who reads it as a whole.
            table = read_manifest(path, languages)
            _write_batches(copy, table.to_batches(COPIED_ROWS))
    barrier()
    return map_file(copy, MANIFEST)


def _copy_checked(path: Path, languages: Sequence[str], copy: Path) -> bool:
    """Copy a manifest batch by batch; tell whether nothing is wrong."""
    if path.suffix not in (".parquet", ".csv") or not path.is_file():
        return False
    try:
        _write_batches(copy, _sound_batches(path, languages))
    except (pa.ArrowException, OSError, ValueError) as error:
        if getattr(error, "errno", None) in _FULL:
            raise
        return False
    return _is_matched(map_file(copy, MANIFEST))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    if path.suffix == ".csv":
        with columns.open_csv(path) as reader:
            yield from reader
        return
    # Mapped: what is read of it would stay in memory else.
    file = pq.ParquetFile(path, memory_map=True)
    how = {"columns": MANIFEST.names, "use_threads": False}
    yield from file.iter_batches(COPIED_ROWS, **how)


def _sound_batches(
    path: Path, languages: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    whole = pc.field("language").isin(pa.array(languages, pa.string()))
    filled = (pc.field(name) != "" for name in _TEXTS)
    whole = functools.reduce(operator.and_, filled, whole)
    for batch in _batches(path):
        columns.check_columns(path, batch.schema.names, MANIFEST.names)
        typed = [columns.as_type(path, f, batch[f.name]) for f in MANIFEST]
        table = pa.table(typed, schema=MANIFEST)
        if len(table.drop_null().filter(whole)) < len(table):
            raise ValueError("a hole, or an unknown language")
        yield from _with_paths(path, table).to_batches()


def _write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, MANIFEST) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
            # Arrow keeps what is freed for later.
            pa.default_memory_pool().release_unused()


def _is_matched(table: pa.Table) -> bool:
    """Do what ``read_manifest`` does of stories, in numbers alone."""
    if not len(table):
        return False
    # In this order a key that stands twice is a sentence with the number of
    # the one before. They go 0, 1, 2, ... without a gap, and none twice.
    told = tables.StoryOrder(table)
    wrong = bool(told.sentence[0])
    for part in blocks(len(table) - 1):
        here = told.sentence[part.start : part.stop + 1].astype(np.int64)
        begins = told.begins[part.start + 1 : part.stop + 1]
        wrong |= (here[1:] != np.where(begins, 0, here[:-1] + 1)).any()
    # As many in each language: as in the one before, of the same story.
    # Sizes 3, 3 of story 0, then 2 of story 7: only the first two compare.
    for part in blocks(len(told.bounds) - 2):
        here = told.bounds[part.start : part.stop + 2].astype(np.int64)
        sizes, story = np.diff(here), told.story[here[:-1]]
        wrong |= ((story[1:] == story[:-1]) & (sizes[1:] != sizes[:-1])).any()
    return not wrong


def distinct_utterances(table: pa.Table) -> np.ndarray:
    """Find every audio file that manifests name, once in each language.

    ``key`` and ``row``, the first row of each, in the order of their SHA-256.
    ValueError if rows say different things of the same audio.
    """
    records = tables.KeyIndex(table).first()
    rows = Rows(table.select([*KEY_COLUMNS, "audio"]))
    for part in blocks(len(records) - 1):
        here = records[part.start : part.stop + 1]
        # Those of one SHA-256 stand together, and so do a few others.
        digest = np.ascontiguousarray(here["key"]).astype("S8")
        alike = np.flatnonzero(digest[1:] == digest[:-1])
        told = (rows.take(here["row"][alike + n]).to_pylist() for n in (0, 1))
        for (one, other), name in itertools.product(
            zip(*told, strict=True), _COUNTED
        ):
            low, high = sorted((one[name], other[name]))
            if low != high and one["sha256"] == other["sha256"]:
                raise ValueError(
                    f"{one['audio']}: rows of the manifests give its {name} "
                    f"as {low} and {high} under one sha256; expected one value"
                )
    return records


def refuse_missing_audio(table: pa.Table, rows: np.ndarray) -> None:
    """Stop where audio files are not there, before any work is done."""
    for _, batch in parts(table, ["audio"], rows):
        paths = batch["audio"].to_pylist()
        # What is there and is no file is a reason of that one audio.
        absent = [one for one in paths if not os.path.exists(as_stored(one))]
        if absent:
            raise FileNotFoundError(
                f"{absent[0]} does not exist, though a manifest names it "
                f"({len(absent)} such file(s)); nothing was fitted or encoded. "
                "Mend the manifest's paths, or bring the audio back."
            )


def content_identity(
    table: pa.Table, names: Sequence[str], rows: np.ndarray | None = None
) -> str:
    """Name the content of columns, in the order of ``rows``, or of all.

    Without the paths, moving the audio changes nothing.
    """
    count = len(table) if rows is None else len(rows)
    digest = hashlib.sha256()
    for name in names:
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
    stratum, languages = tables.codes(table, "language", rows)
    speaker, speakers = tables.codes(table, "speaker", rows)
    lengths = seconds_of(table, rows)
    found: set[int] = set()
    for part in blocks(len(rows)):
        stratum[part] = stratum[part] * len(speakers) + speaker[part]
        found.update(np.unique(stratum[part]).tolist())
    # Of each its language and its speaker: by these they are drawn in turn.
    names = list(itertools.product(languages, speakers))
    spoken = Rows(table.select([*KEY_COLUMNS, "audio", "speaker"]))
    drawn = []

    def places(one):
        return positions(fill(len(rows), bool, lambda p: stratum[p] == one))

    for number, one in enumerate(sorted(found, key=names.__getitem__)):
        here = places(one)
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


def seconds_of(table: pa.Table, rows: np.ndarray) -> np.ndarray:
    """Return how long the audio of each row is: seconds, float64, in a file."""
    found = scratch(len(rows), np.float64)
    for part, batch in parts(table, _COUNTED, rows):
        samples, rates = (batch[name].to_numpy() for name in _COUNTED)
        found[part] = samples / rates
    return found
