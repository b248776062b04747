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
from speechbrain_slm.utils import ledger as ledgers
from speechbrain_slm.utils import ownership
from speechbrain_slm.utils.atomic import TEMPORARY
from speechbrain_slm.utils.distributed import rank
from speechbrain_slm.utils.jobs import deal
from speechbrain_slm.utils.pieces import join_tables, read_piece, write_piece
from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY, check_matched

logger = logging.getLogger(__name__)
MARK = "spoken"
_WRITTEN = pa.schema([*MANIFEST, ("text", pa.string())])


def refuse_others(output_folder: Path, splits: Iterable[str]) -> None:
    """Refuse a folder whose manifests would not be those of one run."""
    paths = [output_folder / f"{split}.parquet" for split in splits]
    ownership.refuse_foreign(paths, MARK)
    for path in sorted(set(output_folder.glob("*.parquet")) - set(paths)):
        # The ledger will be this run's alone.
        if ownership.has_mark(path, MARK):
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
            dealt = scratch / f"{bucket}.parquet"
            rows = pq.read_table(dealt, page_checksum_verification=True)
            kept, ledger = align(rows.to_pylist(), languages, max_ratio)
            table = pa.Table.from_pylist(kept, _WRITTEN)
            if kept:
                check_matched(f"{folder}, bucket {bucket}", table, languages)
            # Rows that nobody asked for are neither kept nor lost.
            whys = [row["reason"] for row in ledger if "language" in row]
            lost = sum(
                not why.startswith(f"{OTHER_LANGUAGE}: ") for why in whys
            )
            facts = {"ledger": ledger, "lost": lost, "kept": len(kept)}
            write_piece(paths[bucket], table, facts)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return paths


def _deal(
    scratch: Path, parts: dict[Path, str], own: Sequence[int], buckets: int
) -> None:
    """Write the rows of this rank's stories, a file a bucket."""
    with contextlib.ExitStack() as stack:
        writers = {}
        for bucket in own:
            path = scratch / f"{bucket}.parquet"
            writer = pq.ParquetWriter(path, FACTS, write_page_checksum=True)
            writers[bucket] = stack.enter_context(writer)
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

    If it is not, those of an earlier run stay, and so does their ledger: this
    run's is ``refused.left_out.jsonl`` then.

    Arguments
    ---------
    buckets : Split -> its files, small enough to be copied one by one.
    languages : Those that every sentence has.
    max_left_out : Share of a split's rows that may have been left out.
    """
    manifests = {split: output_folder / f"{split}.parquet" for split in buckets}
    told = output_folder / f"refused.{ledgers.LEDGER}"
    lost, kept = Counter[str](), Counter[str]()
    with ledgers.open_ledger(told) as ledger:
        for split, paths in buckets.items():
            for bucket in paths:
                facts = read_piece(bucket, []).facts
                for entry in facts["ledger"]:
                    ledger.write(split=split, action="dropped", **entry)
                lost[split] += facts["lost"]
                kept[split] += facts["kept"]
    total = lost + kept
    # As ``check_share`` will say, and so the ledger has its name before.
    refused = any(
        not kept[split] or lost[split] / total[split] > max_left_out
        for split in buckets
    )
    if not refused or not any(map(Path.exists, manifests.values())):
        told = told.replace(output_folder / ledgers.LEDGER)
    for split in buckets:
        if not kept[split]:
            raise ValueError(
                f"No sentence of {split} is left in all of "
                f"{', '.join(languages)}: {ledger.reasons[split]}. {told} "
                "names each; correct the names of columns and languages, or "
                "the source."
            )
    advice = "Mend the source and run again; what is good is not read again."
    for split in buckets:
        counts, why = (lost[split], total[split]), ledger.reasons[split]
        ledgers.check_share(
            f"rows of {split}", *counts, max_left_out, why, told, advice
        )
    # Whenever this run ends, what is there is of one run.
    ownership.withdraw(manifests.values(), MARK)
    schema = _WRITTEN.with_metadata(ownership.mark_of(MARK))
    for split, paths in buckets.items():
        tables = (read_piece(bucket).table for bucket in paths)
        with join_tables(manifests[split], schema, tables) as rows:
            logger.info("%s: %d rows", split, rows)


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
    for story, sentences in sorted(stories.items()):
        whole: list[dict] = []
        # Rows whose number cannot be read stand at None.
        for number in sorted(sentences, key=lambda n: -1 if n is None else n):
            rows = sentences[number]
            reasons = _reasons(rows, languages, max_ratio)
            # One of a language that is not wanted hurts no other.
            ours = [row["language"] in languages for row in rows]
            good = any(ours) and not any(itertools.compress(reasons, ours))
            if good:
                whole.append({row["language"]: row for row in rows})
            for row, reason, own in zip(rows, reasons, ours, strict=True):
                if not (good and own):
                    why = {"reason": reason or ledgers.ELSEWHERE}
                    why |= {key: row[key] for key in MANIFEST_KEY}
                    ledger.append({**why, "place": row["source"]})
        if not whole:
            ledger.append({"story_id": story, "reason": ledgers.NOTHING_LEFT})
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
    reasons, lengths = [], []
    for row in rows:
        reason, language = row["reason"], row["language"]
        if not reason and (times := counts[language]) > 1:
            reason = f"not alone: stands {times} times in '{language}'"
        elif not reason and missing:
            reason = f"no row in {missing}"
        if not reason:
            lengths.append((row["num_samples"] / row["sample_rate"], language))
        reasons.append(reason)
    if max_ratio and len(lengths) == len(languages):
        (short, one), (long, other) = min(lengths), max(lengths)
        if long > max_ratio * short:
            found = f"{long:.2f} s in {other} and {short:.2f} s in {one}"
            found = f"lengths differ: {found}; max_ratio is {max_ratio}"
            return [reason or found for reason in reasons]
    return reasons
