"""From what was found of a spoken corpus to its manifests and its ledger."""

import contextlib
import itertools
import logging
import shutil
import uuid
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from speechbrain_slm.speech.imported.rows import FACTS, OTHER_LANGUAGE
from speechbrain_slm.utils.atomic import TEMPORARY
from speechbrain_slm.utils.distributed import rank
from speechbrain_slm.utils.jobs import deal
from speechbrain_slm.utils.ledger import (
    ELSEWHERE,
    LEDGER,
    NOTHING_LEFT,
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


def assemble(
    folder: Path,
    parts: dict[Path, str],
    languages: list[str],
    buckets: int,
    max_ratio: float | None = None,
) -> list[Path]:
    """Sort what was found by story, in buckets that the ranks share.

    Arguments
    ---------
    folder : Of the parts of a split; gets ``buckets/``.
    parts : Path -> identity, in order.
    buckets : Into how many the stories are dealt.
    max_ratio : See :func:`align`.

    Returns
    -------
    The files of all buckets, once every rank has done its own.
    """
    paths = [folder / "buckets" / f"{n:05d}.parquet" for n in range(buckets)]
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
            # Rows that nobody asked for are neither kept nor lost.
            lost = sum(
                "language" in entry
                and not entry["reason"].startswith(f"{OTHER_LANGUAGE}: ")
                for entry in ledger
            )
            facts = {
                "ledger": ledger,
                "lost": lost,
                "total": lost + len(kept),
                "kept": len(kept),
            }
            write_piece(paths[bucket], table, facts)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return paths


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


def align(
    facts: list[dict], languages: list[str], max_ratio: float | None = None
) -> tuple[list[dict], list[dict]]:
    """Keep the sentences that are good in every language, numbered anew.

    Arguments
    ---------
    facts : All rows of some stories, with the fields of ``FACTS``.
    max_ratio
        How many times as long as in another language a sentence may last.

    Returns
    -------
    Rows of a manifest; and the ledger: an entry for each row that was dropped,
    in the numbers of the source, and one for each story that goes as a whole.
    """
    kept: list[dict] = []
    ledger: list[dict] = []
    stories: dict = defaultdict(lambda: defaultdict(list))
    for fact in facts:
        stories[fact["story_id"]][fact["sentence"]].append(fact)

    def drop(row: dict, reason: str) -> None:
        entry = {"story_id": row["story_id"], "sentence": row["sentence"]}
        entry |= {"language": row["language"], "place": row["source"]}
        ledger.append({**entry, "action": "dropped", "reason": reason})

    for story, sentences in sorted(stories.items()):
        whole: list[dict] = []
        # Rows whose number cannot be read stand at None.
        order = sorted(sentences, key=lambda n: -1 if n is None else n)
        for rows in map(sentences.__getitem__, order):
            reasons = _reasons(rows, languages, max_ratio)
            # One of a language that is not wanted hurts no other.
            ours = [row["language"] in languages for row in rows]
            good = any(ours) and not any(itertools.compress(reasons, ours))
            if good:
                whole.append({row["language"]: row for row in rows})
            for row, reason, own in zip(rows, reasons, ours, strict=True):
                if not (good and own):
                    drop(row, reason or ELSEWHERE)
        if not whole:
            entry = {"story_id": story, "action": "dropped"}
            ledger.append({**entry, "reason": NOTHING_LEFT})
        kept += [
            {**sentence[language], "sentence": number}
            for language in languages
            for number, sentence in enumerate(whole)
        ]
    return kept, ledger


def _reasons(
    rows: list[dict], languages: list[str], max_ratio: float | None
) -> list[str]:
    """Say of each row of a sentence why it goes; empty if it is good."""
    counts = Counter(row["language"] for row in rows)
    missing = ", ".join(name for name in languages if not counts[name])
    reasons = []
    for row in rows:
        reason, times = row["reason"], counts[row["language"]]
        if not reason and times > 1:
            reason = f"not alone: stands {times} times in '{row['language']}'"
        elif not reason and missing:
            reason = f"no row in {missing}"
        reasons.append(reason)
    wanted = [
        (row["num_samples"] / row["sample_rate"], row["language"])
        for row, reason in zip(rows, reasons, strict=True)
        if not reason
    ]
    if max_ratio and len(wanted) == len(languages):
        (short, one), (long, other) = min(wanted), max(wanted)
        if long > max_ratio * short:
            found = (
                f"lengths differ: {long:.2f} s in {other} and {short:.2f} s in "
                f"{one}; max_ratio is {max_ratio}"
            )
            reasons = [reason or found for reason in reasons]
    return reasons
