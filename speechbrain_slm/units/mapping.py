"""Manifests of any size: checked, copied to an Arrow file, memory-mapped."""

import errno
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.units.manifest import (
    COUNTED,
    is_sha256,
    read_manifest,
    with_paths,
)
from speechbrain_slm.units.rows import StoryOrder
from speechbrain_slm.utils.atomic import atomic_path, remove_temporary
from speechbrain_slm.utils.columns import as_type, open_csv
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.scratch import blocks
from speechbrain_slm.utils.store_format import map_file
from speechbrain_slm.utils.tables import MANIFEST

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What stands in memory at once: some 10 MB.
COPIED_ROWS = 1 << 15


def map_manifests(
    paths: Sequence[str], languages: Sequence[str], folder: str | Path
) -> dict:
    """Check manifests of any size, and memory-map copies of them.

    Arguments
    ---------
    paths : ``.parquet`` or ``.csv`` files, each named after its split.
    languages : The languages that they may hold.

    Returns
    -------
    A pyarrow.Table of each split (see :func:`read_manifest`).

    Raises
    ------
    ValueError
        If there is no path, or two of one name; see also
        :func:`read_manifest`.
    """
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
    """Check a manifest of any size, and memory-map a copy of it.

    Little of a manifest stands in memory at a time: the numbers by which it
    is checked stand in temporary files.

    Arguments
    ---------
    path : A ``.parquet`` or ``.csv`` file.
    languages : The languages that it may hold.
    copy : The Arrow file to write, where other ranks find it.

    Returns
    -------
    See :func:`read_manifest`; zero-copy.

    Raises
    ------
    ValueError
        See :func:`read_manifest`.
    """
    path, copy = Path(path), Path(copy)
    if is_main():
        remove_temporary(copy.parent)
        if not _copy_checked(path, languages, copy):
            # Something is wrong: what it is is told by the one who reads it
            # as a whole.
            table = read_manifest(path, languages)
            _write_batches(copy, iter(table.to_batches(COPIED_ROWS)))
    barrier()
    return map_file(copy, MANIFEST)


def _copy_checked(path, languages, copy):
    """Copy a manifest batch by batch; tell whether nothing is wrong."""
    if path.suffix not in (".parquet", ".csv") or not path.is_file():
        return False
    try:
        _write_batches(copy, _sound_batches(path, languages))
    except (pa.ArrowException, OSError, ValueError, _Unsound) as error:
        if getattr(error, "errno", None) in _FULL:
            raise
        return False
    return _is_aligned(map_file(copy, MANIFEST))


class _Unsound(Exception):
    """A row is not what a manifest's row should be."""


def _batches(path):
    """Read a manifest, some rows at a time."""
    if path.suffix == ".csv":
        with open_csv(path) as reader:
            yield from reader
        return
    # Mapped: what is read of it would stay in memory else.
    file = pq.ParquetFile(path, memory_map=True)
    if set(MANIFEST.names) - set(file.schema_arrow.names):
        raise _Unsound
    yield from file.iter_batches(
        COPIED_ROWS, columns=MANIFEST.names, use_threads=False
    )


def _sound_batches(path, languages):
    known = pa.array(list(languages), pa.string())
    for batch in _batches(path):
        if set(MANIFEST.names) - set(batch.schema.names):
            raise _Unsound
        columns = [as_type(path, one, batch[one.name]) for one in MANIFEST]
        table = pa.table(columns, schema=MANIFEST)
        for field in MANIFEST:
            column = table[field.name]
            if column.null_count or (
                pa.types.is_string(field.type)
                and pc.any(pc.equal(column, "")).as_py()
            ):
                raise _Unsound
        if any(pc.min(table[name]).as_py() < 1 for name in COUNTED):
            raise _Unsound
        if not pc.all(pc.is_in(table["language"], known)).as_py():
            raise _Unsound
        if not pc.all(is_sha256(table["sha256"])).as_py():
            raise _Unsound
        yield from with_paths(path, table).to_batches()


def _write_batches(path, batches):
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, MANIFEST) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
            # Arrow keeps what is freed for later.
            pa.default_memory_pool().release_unused()


def _is_aligned(table):
    """Do what ``read_manifest`` does of stories, in numbers alone."""
    if not len(table):
        return False
    told = StoryOrder(table)
    # Numbered 0, 1, 2, ... without a gap, and none twice.
    if told.sentence[0]:
        return False
    for part in blocks(len(table) - 1):
        here = told.sentence[part.start : part.stop + 1].astype(np.int64)
        begins = told.begins[part.start + 1 : part.stop + 1]
        if (here[1:] != np.where(begins, 0, here[:-1] + 1)).any():
            return False
    # As many in each language: as in the one before, of the same story.
    bounds = told.bounds
    for part in blocks(len(bounds) - 2):
        here = bounds[part.start : part.stop + 2].astype(np.int64)
        sizes, story = np.diff(here), told.story[here[:-1]]
        if ((story[1:] == story[:-1]) & (sizes[1:] != sizes[:-1])).any():
            return False
    return True
