"""From what was found of a spoken corpus to its manifests and its ledger."""

import contextlib
import logging
import shutil
import uuid
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from speechbrain_slm.speech.imported.matching import align
from speechbrain_slm.speech.imported.rows import FACTS, OTHER_LANGUAGE
from speechbrain_slm.utils.atomic import TEMPORARY
from speechbrain_slm.utils.distributed import rank
from speechbrain_slm.utils.jobs import deal
from speechbrain_slm.utils.ledger import (
    LEDGER,
    TOO_FEW,
    Reasons,
    check_share,
    open_ledger,
)
from speechbrain_slm.utils.ownership import (
    has_mark,
    mark_of,
    refuse_foreign,
    withdraw,
)
from speechbrain_slm.utils.pieces import join_tables, read_piece, write_piece
from speechbrain_slm.utils.tables import MANIFEST, check_matched

logger = logging.getLogger(__name__)
MARK = "spoken"
_WRITTEN = pa.schema([*MANIFEST, ("text", pa.string())])


def refuse_others(output_folder: Path, splits: Iterable[str]) -> None:
    """Refuse a folder whose manifests would not be those of one run.

    Raises
    ------
    FileExistsError
        If one of them was made by another recipe.
    ValueError
        If the folder has a manifest of an earlier import that this run does
        not name: the ledger would be this run's alone.
    """
    paths = [output_folder / f"{split}.parquet" for split in splits]
    refuse_foreign(paths, MARK)
    for path in sorted(set(output_folder.glob("*.parquet")) - set(paths)):
        if has_mark(path, MARK):
            raise ValueError(
                f"{path} is of an earlier import, and this one has the splits "
                f"{', '.join(splits)} alone. Name the sources of all splits, "
                "remove it, or choose another output_folder."
            )


def bucket_paths(folder: Path, buckets: int) -> list[Path]:
    """Name the files of a split's stories, dealt into buckets."""
    return [folder / "buckets" / f"{n:05d}.parquet" for n in range(buckets)]


def assemble(
    folder: Path,
    parts: dict[Path, str],
    languages: list[str],
    buckets: int,
    max_ratio: float | None = None,
) -> None:
    """Sort what was found by story, in buckets that the ranks share.

    Arguments
    ---------
    folder : Of the parts of a split; gets ``buckets/``.
    parts : Path -> identity, in order.
    buckets : Into how many the stories are dealt.
    max_ratio : See :func:`align`.

    Raises
    ------
    ValueError
        If a part is damaged, or not of the source as this rank read it.
    """
    paths = bucket_paths(folder, buckets)
    scratch = folder / f"{TEMPORARY}{uuid.uuid4().hex[:8]}-rank-{rank()}"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        own = deal(range(buckets))
        _deal(scratch, parts, own, buckets)
        for bucket in own:
            content = pq.read_table(
                scratch / f"{bucket}.parquet", page_checksum_verification=True
            )
            kept, ledger = align(content.to_pylist(), languages, max_ratio)
            table = pa.Table.from_pylist(kept, _WRITTEN)
            if kept:
                check_matched(f"{folder}, bucket {bucket}", table, languages)
            # Rows that nobody asked for are neither kept nor lost. Good ones
            # that go with their story are not lost, either: where stories have
            # two sentences, each bad one would count twice.
            wanted = [
                entry["reason"] != TOO_FEW
                for entry in ledger
                if "language" in entry
                and not entry["reason"].startswith(f"{OTHER_LANGUAGE}: ")
            ]
            facts = {
                "ledger": ledger,
                "lost": sum(wanted),
                "total": len(wanted) + len(kept),
                "kept": len(kept),
            }
            write_piece(paths[bucket], table, facts)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _deal(
    scratch: Path, parts: dict[Path, str], own: Sequence[int], buckets: int
) -> None:
    """Write the rows of this rank's stories, a file a bucket."""
    with contextlib.ExitStack() as stack:
        writers = {
            bucket: stack.enter_context(
                pq.ParquetWriter(
                    scratch / f"{bucket}.parquet",
                    FACTS,
                    write_page_checksum=True,
                )
            )
            for bucket in own
        }
        for path, identity in parts.items():
            table, facts = read_piece(path)
            if facts["identity"] != identity:
                raise ValueError(
                    f"{path} is of other rows than this process has read: the "
                    "source was changed during the run. Run the same command "
                    "again; what has not changed is kept."
                )
            dealt = defaultdict(list)
            for row, name in enumerate(table["story_id"].to_pylist()):
                dealt[zlib.crc32(name.encode()) % buckets].append(row)
            for bucket in dealt.keys() & writers.keys():
                writers[bucket].write_table(table.take(dealt[bucket]))


def publish(
    output_folder: Path,
    buckets: dict[str, list[Path]],
    languages: list[str],
    max_left_out: float,
) -> None:
    """Write the ledger, and the manifests if enough is left.

    Arguments
    ---------
    buckets : Split -> its files, small enough to be copied one by one.
    languages : Those that every sentence has.
    max_left_out : Share of a split's rows that may have been left out.

    Raises
    ------
    ValueError
        If nothing is left of a split.
    TooManyLeftOut
        If too little is.
    """
    ledger = output_folder / LEDGER
    counts, reasons = _write_ledger(ledger, buckets)
    for split in buckets:
        if not counts[split]["kept"]:
            raise ValueError(
                f"No sentence of {split} is left in all of "
                f"{', '.join(languages)}: {reasons[split]}. {ledger} names "
                "each; correct the names of columns and languages, or the "
                "source."
            )
    for split in buckets:
        check_share(
            f"rows of {split}",
            counts[split]["lost"],
            counts[split]["total"],
            max_left_out,
            reasons[split],
            ledger,
            "Mend the source and run again; what is good is not read again.",
        )
    # Whenever this run ends, what is there is of one run.
    withdraw([output_folder / f"{split}.parquet" for split in buckets], MARK)
    schema = _WRITTEN.with_metadata(mark_of(MARK))
    for split, paths in buckets.items():
        path = output_folder / f"{split}.parquet"
        tables = (read_piece(bucket).table for bucket in paths)
        with join_tables(path, schema, tables) as rows:
            logger.info("%s: %d rows", split, rows)


def _write_ledger(
    path: Path, buckets: dict[str, list[Path]]
) -> tuple[dict[str, Counter[str]], dict[str, Reasons]]:
    counts: dict[str, Counter[str]] = {split: Counter() for split in buckets}
    with open_ledger(path) as ledger:
        for split, paths in buckets.items():
            for bucket in paths:
                facts = read_piece(bucket, []).facts
                for entry in facts["ledger"]:
                    ledger.write(split=split, **entry)
                for name in ("lost", "total", "kept"):
                    counts[split][name] += facts[name]
    return counts, ledger.reasons
