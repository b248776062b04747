"""From somebody's spoken, sentence-aligned corpus to a manifest.

Two passes. The first reads the audio of each part of the sources and writes
down what it found: processes share the parts, and a second run skips those
whose rows and audio are what they were. The second (``assembly``) sorts the
findings by story, some stories at a time, and drops in every language what is
missing or bad in one. The memory is that of a batch of rows and of a part's
findings, then that of a bucket of stories.
"""

import itertools
import logging
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from speechbrain_slm.speech.imported import assembly, rows
from speechbrain_slm.speech.imported.assembly import publish
from speechbrain_slm.speech.imported.recordings import COLUMNS
from speechbrain_slm.speech.imported.rows import Columns, Reader
from speechbrain_slm.speech.imported.sources import Part, Source, iterate_parts
from speechbrain_slm.speech.imported.whole_stories import (
    StoryReader,
    WholeStories,
)
from speechbrain_slm.utils.atomic import remove_temporary
from speechbrain_slm.utils.audio import MAX_SECONDS
from speechbrain_slm.utils.distributed import barrier, is_main, rank, world_size
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.pieces import find_piece, write_piece
from speechbrain_slm.utils.user_tables import Row

logger = logging.getLogger(__name__)


def import_spoken(
    sources: dict[str, list],
    output_folder: str | Path,
    columns: Columns | WholeStories,
    languages: list[str],
    language_names: dict[str, str] | None = None,
    num_workers: int = 2,
    batch_rows: int = 256,
    buckets: int = 64,
    max_left_out: float = 0.2,
    max_ratio: float | None = None,
    max_seconds: float = MAX_SECONDS,
) -> None:
    """Write ``<split>.parquet``, a manifest, for each split of a spoken corpus.

    Arguments
    ---------
    sources : Split -> sources (see :func:`iterate_parts`).
    columns
        Of rows of one sentence, or of a whole story. Folders of recordings
        have their own.
    languages : Those wanted. A story needs every sentence in each.
    language_names : A language's name in the source -> ours.
    num_workers : Threads that read audio.
    batch_rows : Rows held at once, audio included.
    buckets : Into how many the stories are dealt; one is held at once.
    max_left_out : Share of a split's rows, in the wanted languages.
    max_ratio
        A sentence is left out that lasts so many times as long in one
        language as in another: recordings that do not say the same.
    max_seconds : A recording that is longer is left out.

    Raises
    ------
    TooManyLeftOut
        The manifests of an earlier run stay then.
    """
    folder = Path(output_folder)
    sources = _begin(sources, folder)
    if isinstance(columns, WholeStories):
        columns.refuse_one_name_twice(sources)
    names = dict(language_names or {})
    kind: type = StoryReader if isinstance(columns, WholeStories) else Reader
    reader = kind(columns, list(languages), names, folder, max_seconds)
    parts: dict[str, dict[Path, str]] = {}
    with ThreadPoolExecutor(num_workers) as pool:
        for split, here in sources.items():
            found = parts[split] = {}
            for number, source in enumerate(here):
                place = folder / "parts" / split / f"{number:03d}"
                found |= _read_source(source, place, reader, batch_rows, pool)
    barrier()
    how = languages, buckets, max_ratio
    paths = {
        split: assembly.assemble(folder / "parts" / split, found, *how)
        for split, found in parts.items()
    }
    barrier()
    if is_main():
        publish(folder, paths, languages, max_left_out)
    barrier()


def _begin(sources: dict[str, list], folder: Path) -> dict[str, list]:
    """Check what is asked for, and make the folder ready for it."""
    # So that a split of the YAML file can be switched off.
    sources = {split: here for split, here in sources.items() if here}
    if not sources:
        raise ValueError("sources is empty; expected {split: [source, ...]}")
    for split, here in sources.items():
        # A text would be read letter by letter.
        if not isinstance(here, list | tuple):
            raise ValueError(
                f"sources: {split} is {here!r}; expected a list of sources, "
                f"{{{split}: [...]}}"
            )
    if is_main():
        assembly.refuse_others(folder, sources)
        # What killed processes left.
        for place in (folder / "audio", folder / "parts"):
            for inner in place.glob("**/"):
                remove_temporary(inner)
    barrier()
    return sources


def _read_source(
    source: Source,
    folder: Path,
    reader: Reader,
    batch_rows: int,
    pool: Executor,
) -> dict[Path, str]:
    """Read this rank's parts; return the identity of each part of all ranks."""
    if isinstance(source, Mapping):
        reader = Reader(**{**vars(reader), "columns": COLUMNS})
    request = {**vars(reader), "columns": reader.columns.request()}
    # The folder may be moved, and all that was read with it.
    del request["output_folder"]
    found, kept = {}, 0
    parts = iterate_parts(source, batch_rows, reader.columns.names())
    for number, part in enumerate(parts):
        path = folder / f"{part.name}.parquet"
        found[path] = identity_of([part.identity, part.where, request])
        if number % world_size() != rank():
            continue
        facts = {"identity": found[path]}
        there = find_piece(path, ["file", "stamp"])
        if there and there.facts == facts and rows.is_unchanged(there.table):
            kept += 1
            continue
        write_piece(path, _read(part, reader, pool), facts)
        logger.info("Rank %d: %s, part %s", rank(), part.where, part.name)
    told = "Rank %d: %s: %d of its parts are as they were"
    logger.info(told, rank(), source, kept)
    return found


def _read(part: Part, reader: Reader, pool: Executor) -> pa.Table:
    def facts_of(row: Row) -> list[dict]:
        return reader.facts_of(row, part.where, part.folder)

    tables = [rows.FACTS.empty_table()]
    for batch in part.batches:
        facts = [*itertools.chain.from_iterable(pool.map(facts_of, batch))]
        tables.append(pa.Table.from_pylist(facts, rows.FACTS))
    return pa.concat_tables(tables)
