"""From somebody's spoken, sentence-aligned corpus to a manifest.

Two passes. The first reads the audio of each part of the sources and writes
down what it found: processes share the parts, and a second run skips those
that are there. The second sorts the findings by story, some stories at a time,
and drops in every language what is missing or bad in one. The memory is that
of a batch of rows, then that of a bucket of stories.
"""

import contextlib
import json
import logging
import zlib
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from speechbrain_slm.corpus.spoken_rows import FACTS, facts_of
from speechbrain_slm.corpus.spoken_sources import (
    HUB,
    iterate_parts,
    source_files,
)
from speechbrain_slm.utils.atomic import atomic_path, remove_temporary
from speechbrain_slm.utils.distributed import (
    barrier,
    is_main,
    rank,
    world_size,
)
from speechbrain_slm.utils.plans import pin_plan
from speechbrain_slm.utils.tables import MANIFEST, check_alignment, write_table

logger = logging.getLogger(__name__)
_WRITTEN = pa.schema([*MANIFEST, ("text", pa.string())])


def import_spoken(
    sources,
    output_folder,
    columns,
    languages,
    language_names=None,
    num_workers=2,
    batch_rows=256,
    buckets=64,
):
    """Write a manifest for each split of a spoken corpus.

    The ranks of ``torchrun`` share the work.

    Arguments
    ---------
    sources : dict
        Split -> list of sources (see :func:`iterate_parts`).
    output_folder : str or Path
        Gets ``<split>.parquet``, ``left_out.jsonl``, ``audio/`` (what came as
        bytes) and ``parts/``, which may be removed when all is done.
    columns : Columns
        Which columns hold what.
    languages : list of str
        Those wanted. A story needs every sentence in each.
    language_names : dict, optional
        A language's name in the source -> ours.
    num_workers : int
        Threads that read and decode audio.
    batch_rows : int
        Rows held at once, audio included.
    buckets : int
        Into how many the stories are dealt; the second pass holds one, without
        audio.

    Raises
    ------
    FileNotFoundError
        If a source does not exist.
    ValueError
        If a source lacks a column, the folder was begun with other sources,
        or no sentence of a split is left.
    """
    output_folder = Path(output_folder)
    parts_folder = output_folder / "parts"
    # So that a split of the YAML file can be switched off.
    sources = {split: here for split, here in sources.items() if here}
    if not sources:
        raise ValueError("sources is empty; expected {split: [source, ...]}")
    if is_main():
        plan = {
            "sources": {
                split: [_describe(one) for one in here]
                for split, here in sources.items()
            },
            "columns": dict(vars(columns)),
            "languages": list(languages),
            "language_names": dict(language_names or {}),
            "batch_rows": batch_rows,
            "buckets": buckets,
        }
        pin_plan(parts_folder, json.loads(json.dumps(plan)), "**/*.parquet")
        # What killed processes left.
        for folder in (output_folder / "audio", parts_folder):
            for inner in folder.glob("**/"):
                remove_temporary(inner)
    barrier()
    with ThreadPoolExecutor(num_workers) as pool:
        for split, here in sources.items():
            for number, source in enumerate(here):
                _read_source(
                    source,
                    parts_folder / split / f"{number:03d}",
                    batch_rows,
                    lambda row, where, folder: facts_of(
                        row,
                        where,
                        columns,
                        languages,
                        folder,
                        output_folder,
                        language_names or {},
                    ),
                    columns,
                    pool,
                )
    barrier()
    for split in sources:
        _assemble(parts_folder / split, languages, buckets)
    barrier()
    if is_main():
        _publish(sources, output_folder, parts_folder, languages)
    barrier()


def _describe(source):
    if str(source).startswith(HUB):
        return str(source)
    sizes = [[file.name, file.stat().st_size] for file in source_files(source)]
    return [str(source), sizes]


def _read_source(source, folder, batch_rows, facts, columns, pool):
    parts = iterate_parts(source, columns.names(), batch_rows)
    for number, part in enumerate(parts):
        path = folder / f"{part.name}.parquet"
        if number % world_size() != rank() or path.is_file():
            continue
        with (
            atomic_path(path) as temporary,
            pq.ParquetWriter(temporary, FACTS, compression="zstd") as writer,
        ):
            for rows in part.read():
                wheres = [part.where] * len(rows)
                folders = [part.folder] * len(rows)
                found = pool.map(facts, rows, wheres, folders)
                found = [fact for one in found for fact in one]
                writer.write_table(pa.Table.from_pylist(found, FACTS))
        logger.info("Rank %d: %s, part %s", rank(), source, part.name)


def _assemble(folder, languages, buckets):
    """Sort what was found by story, in buckets that the ranks share."""
    own = range(rank(), buckets, world_size())
    scratch = folder / f"rank-{rank()}"
    scratch.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        writers = {
            bucket: stack.enter_context(
                pq.ParquetWriter(scratch / f".tmp-{bucket}.parquet", FACTS)
            )
            for bucket in own
        }
        for path in sorted(folder.glob("[0-9]*/[0-9]*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches():
                dealt = defaultdict(list)
                names = batch.column("story_id").to_pylist()
                for row, name in enumerate(names):
                    dealt[zlib.crc32(name.encode()) % buckets].append(row)
                for bucket in dealt.keys() & writers.keys():
                    writers[bucket].write_batch(batch.take(dealt[bucket]))
    for bucket in own:
        content = pq.read_table(scratch / f".tmp-{bucket}.parquet")
        kept, ledger = align(content.to_pylist(), languages)
        table = pa.Table.from_pylist(kept, _WRITTEN)
        if kept:
            check_alignment(f"{folder}, bucket {bucket}", table, languages)
        write_table(folder / "buckets" / f"{bucket:05d}.parquet", table)
        with (
            atomic_path(folder / "buckets" / f"{bucket:05d}.jsonl") as path,
            open(path, "w", encoding="utf-8") as file,
        ):
            for entry in ledger:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    remove_temporary(scratch)
    scratch.rmdir()


def align(facts, languages):
    """Keep the sentences that are good in every language, numbered anew.

    Arguments
    ---------
    facts : list of dict
        All rows of some stories, with the fields of ``FACTS``.
    languages : list of str
        Those that every sentence needs.

    Returns
    -------
    list of dict
        Rows of a manifest, a story's languages one after the other.
    list of dict
        The ledger: an entry for each row that was dropped, in the numbers of
        the source, and one for each story of which nothing is left.
    """
    stories, kept, ledger = defaultdict(lambda: defaultdict(list)), [], []
    for fact in facts:
        stories[fact["story_id"]][fact["sentence"]].append(fact)
    for story in sorted(stories):
        whole = []
        order = sorted(stories[story], key=lambda n: -1 if n is None else n)
        for number in order:
            rows = stories[story][number]
            reasons = _reasons(rows, languages)
            # Of a language that is not wanted: that hurts no other.
            others = [row for row in rows if row["language"] not in languages]
            if len(others) < len(rows) and sum(map(bool, reasons)) == len(
                others
            ):
                whole.append({row["language"]: row for row in rows})
                rows, reasons = others, [row["reason"] for row in others]
            ledger += [
                {
                    "story_id": story,
                    "sentence": number,
                    "language": row["language"],
                    "action": "dropped",
                    "reason": reason
                    or "the sentence was dropped in another language",
                    "source": row["source"],
                }
                for row, reason in zip(rows, reasons, strict=True)
            ]
        if not whole:
            reason = "no sentence of the story is left"
            entry = {"story_id": story, "action": "dropped", "reason": reason}
            ledger.append(entry)
        kept += [
            {**sentence[language], "sentence": number}
            for language in languages
            for number, sentence in enumerate(whole)
        ]
    return kept, ledger


def _reasons(rows, languages):
    """Say of each row of a sentence why it goes; empty if it is good."""
    counts = Counter(row["language"] for row in rows)
    missing = [name for name in languages if not counts[name]]
    reasons = []
    for row in rows:
        reason = row["reason"]
        if not reason and counts[row["language"]] > 1:
            reason = (
                f"stands {counts[row['language']]} times in '{row['language']}'"
            )
        if not reason and missing:
            reason = f"no row in {', '.join(missing)}"
        reasons.append(reason)
    return reasons


def _publish(sources, output_folder, parts_folder, languages):
    """Join the buckets, which are small enough to be copied one by one."""
    with (
        atomic_path(output_folder / "left_out.jsonl") as temporary,
        open(temporary, "w", encoding="utf-8") as ledger,
    ):
        for split in sources:
            buckets = parts_folder / split / "buckets"
            count, reasons = 0, Counter()
            with (
                atomic_path(output_folder / f"{split}.parquet") as path,
                pq.ParquetWriter(path, _WRITTEN, compression="zstd") as writer,
            ):
                for bucket in sorted(buckets.glob("[0-9]*.parquet")):
                    table = pq.read_table(bucket)
                    count += len(table)
                    if len(table):
                        writer.write_table(table)
                    with open(bucket.with_suffix(".jsonl")) as entries:
                        for line in entries:
                            entry = {"split": split, **json.loads(line)}
                            reasons[entry["reason"].split(":")[0]] += 1
                            text = json.dumps(entry, ensure_ascii=False)
                            ledger.write(text + "\n")
                if not count:
                    raise ValueError(
                        f"No sentence of {split} is left in all of "
                        f"{', '.join(languages)}: "
                        + "; ".join(f"{n} x {r}" for r, n in reasons.items())
                        + f". Each is named in {buckets}/*.jsonl; correct the "
                        "names of columns and languages, or the source."
                    )
            logger.info("%s: %d rows; dropped: %s", split, count, dict(reasons))
