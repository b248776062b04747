"""Manifests of any size: checked, copied to an Arrow file, memory-mapped."""

import errno
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.units.manifest import check_rows, read_manifest, with_paths
from speechbrain_slm.units.rows import StoryOrder
from speechbrain_slm.utils.atomic import atomic_path, remove_temporary
from speechbrain_slm.utils.columns import as_type, check_columns, open_csv
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.scratch import blocks
from speechbrain_slm.utils.store_format import map_file
from speechbrain_slm.utils.tables import MANIFEST

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What stands in memory at once: some 10 MB.
COPIED_ROWS = 1 << 15


def map_manifests(
    paths: Sequence[str | Path], languages: Sequence[str], folder: str | Path
) -> dict[str, pa.Table]:
    """Check manifests of any size, and memory-map copies of them, by split.

    Each is named after its split. See :func:`read_manifest`.
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
    """Do what :func:`read_manifest` does, whatever the size.

    ``copy`` is the Arrow file to write, where other ranks find it.
    """
    path, copy = Path(path), Path(copy)
    if is_main():
        remove_temporary(copy.parent)
        if not _copy_checked(path, languages, copy):
            # Something is wrong: what it is is told by the one who reads it
            # as a whole.
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
    return _is_aligned(map_file(copy, MANIFEST))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    if path.suffix == ".csv":
        with open_csv(path) as reader:
            yield from reader
        return
    # Mapped: what is read of it would stay in memory else.
    file = pq.ParquetFile(path, memory_map=True)
    check_columns(path, file.schema_arrow.names, MANIFEST.names)
    yield from file.iter_batches(
        COPIED_ROWS, columns=MANIFEST.names, use_threads=False
    )


def _sound_batches(
    path: Path, languages: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    known = pa.array(list(languages), pa.string())
    for batch in _batches(path):
        check_columns(path, batch.schema.names, MANIFEST.names)
        columns = [as_type(path, one, batch[one.name]) for one in MANIFEST]
        table = pa.table(columns, schema=MANIFEST)
        for column in table.columns:
            text = pa.types.is_string(column.type)
            if column.null_count or (text and pc.index(column, "").as_py() + 1):
                raise ValueError("a hole")
        check_rows(path, table)
        if not pc.all(pc.is_in(table["language"], known)).as_py():
            raise ValueError("an unknown language")
        yield from with_paths(path, table).to_batches()


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


def _is_aligned(table: pa.Table) -> bool:
    """Do what ``read_manifest`` does of stories, in numbers alone."""
    if not len(table):
        return False
    # In this order a key that stands twice is a sentence with the number of
    # the one before.
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
    # Sizes 3, 3 of story 0, then 2 of story 7: only the first two compare.
    bounds = told.bounds
    for part in blocks(len(bounds) - 2):
        here = bounds[part.start : part.stop + 2].astype(np.int64)
        sizes, story = np.diff(here), told.story[here[:-1]]
        if ((story[1:] == story[:-1]) & (sizes[1:] != sizes[:-1])).any():
            return False
    return True
