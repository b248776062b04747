"""From somebody's spoken, sentence-aligned corpus to a manifest.

Two passes. The first reads the audio of each part of the sources and writes
down what it found: processes share the parts, and a second run skips those
whose rows and audio are what they were. The second (``spoken_assembly``) sorts
the findings by story, some stories at a time, and drops in every language what
is missing or bad in one. The memory is that of a batch of rows and of a part's
findings, then that of a bucket of stories.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from speechbrain_slm.speech.imported.assembly import (
    assemble,
    publish,
    refuse_others,
)
from speechbrain_slm.speech.imported.recordings import COLUMNS
from speechbrain_slm.speech.imported.rows import (
    FACTS,
    Columns,
    facts_of,
    is_unchanged,
)
from speechbrain_slm.speech.imported.sources import is_recordings, iterate_parts
from speechbrain_slm.utils.atomic import remove_temporary
from speechbrain_slm.utils.audio import MAX_SECONDS
from speechbrain_slm.utils.distributed import (
    barrier,
    is_main,
    rank,
    world_size,
)
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.pieces import find_piece, write_piece

logger = logging.getLogger(__name__)


def import_spoken(
    sources: dict,
    output_folder: str | Path,
    columns: Columns,
    languages: list[str],
    language_names: dict | None = None,
    num_workers: int = 2,
    batch_rows: int = 256,
    buckets: int = 64,
    max_left_out: float = 0.2,
    max_ratio: float | None = None,
    max_seconds: float = MAX_SECONDS,
) -> None:
    """Write a manifest for each split of a spoken corpus.

    The ranks of ``torchrun`` share the work.

    Arguments
    ---------
    sources : Split -> list of sources (see :func:`iterate_parts`).
    output_folder
        Gets ``<split>.parquet``, ``left_out.jsonl``, ``audio/`` (what came as
        bytes) and ``parts/``, which may be removed when all is done.
    columns : Which columns hold what. Folders of recordings have their own.
    languages : Those wanted. A story needs every sentence in each.
    language_names : A language's name in the source -> ours.
    num_workers : Threads that read and decode audio.
    batch_rows : Rows held at once, audio included.
    buckets
        Into how many the stories are dealt; the second pass holds one, without
        audio.
    max_left_out
        Share of a split's rows that may be left out, without those in
        languages that are not wanted.
    max_ratio
        A sentence is left out that lasts so many times as long in one
        language as in another: recordings that do not say the same.
    max_seconds : A recording that is longer is left out.

    Raises
    ------
    FileNotFoundError
        If a source does not exist.
    FileExistsError
        If a manifest is in the way that another recipe made.
    ValueError
        If a source lacks a column, or no sentence of a split is left.
    TooManyLeftOut
        If more is left out than ``max_left_out``; the ledger is written, and
        the manifests of an earlier run stay.
    """
    output_folder = Path(output_folder)
    parts_folder = output_folder / "parts"
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
        refuse_others(output_folder, sources)
        # What killed processes left.
        for folder in (output_folder / "audio", parts_folder):
            for inner in folder.glob("**/"):
                remove_temporary(inner)
    barrier()
    request = {
        "languages": list(languages),
        "language_names": dict(language_names or {}),
        "max_seconds": max_seconds,
    }
    parts = {split: {} for split in sources}
    with ThreadPoolExecutor(num_workers) as pool:
        for split, here in sources.items():
            for number, source in enumerate(here):
                own = Columns(**COLUMNS) if is_recordings(source) else columns
                parts[split] |= _read_source(
                    source,
                    parts_folder / split / f"{number:03d}",
                    batch_rows,
                    own,
                    request,
                    output_folder,
                    pool,
                )
    barrier()
    for split in sources:
        assemble(
            parts_folder / split, parts[split], languages, buckets, max_ratio
        )
    barrier()
    if is_main():
        publish(
            sources,
            output_folder,
            parts_folder,
            languages,
            buckets,
            max_left_out,
        )
    barrier()


def _read_source(
    source, folder, batch_rows, columns, request, output_folder, pool
):
    """Read this rank's parts; return the identity of each part of all ranks."""
    request = {**request, "columns": vars(columns)}
    found, kept = {}, 0
    parts = iterate_parts(source, batch_rows, columns.names())
    for number, part in enumerate(parts):
        path = folder / f"{part.name}.parquet"
        identity = identity_of([part.identity, part.where, request])
        found[path] = identity
        if number % world_size() != rank():
            continue
        piece = find_piece(path, ["file", "stamp"])
        if (
            piece is not None
            and piece.facts["identity"] == identity
            and is_unchanged(piece.table)
        ):
            kept += 1
            continue
        rows = []
        for batch in part.batches():
            facts = pool.map(
                lambda row, part=part: facts_of(
                    row,
                    part.where,
                    columns,
                    request["languages"],
                    part.folder,
                    output_folder,
                    request["language_names"],
                    request["max_seconds"],
                ),
                batch,
            )
            facts = [fact for one in facts for fact in one]
            rows.append(pa.Table.from_pylist(facts, FACTS))
        table = pa.concat_tables(rows or [FACTS.empty_table()])
        write_piece(path, table, {"identity": identity})
        logger.info("Rank %d: %s, part %s", rank(), part.where, part.name)
    logger.info(
        "Rank %d: %s: %d of its parts are as they were", rank(), source, kept
    )
    return found
