"""From parts to manifests, the ledger and the items that can be asked."""

import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.corpus.parts import SCHEMA, part_path, read_facts
from speechbrain_slm.utils.atomic import atomic_path, remove_temporary
from speechbrain_slm.utils.tables import (
    ITEMS,
    ITEMS_EMPTY,
    ITEMS_KEY,
    MANIFEST,
    read_table,
    write_table,
)

logger = logging.getLogger(__name__)
LEDGER = "left_out.jsonl"
ITEMS_FILE = "items.parquet"


class TooManyLeftOut(RuntimeError):
    """More utterances failed than the run may leave out."""


def merge_parts(shards, output_folder, max_left_out):
    """Write the manifests, once all parts are there.

    Arguments
    ---------
    shards : list of Shard
        All shards of all splits.
    output_folder : str or Path
        Gets ``<split>.parquet`` and ``left_out.jsonl``; items that lack a
        story are taken out of its ``items.parquet``.
    max_left_out : float
        Share of the utterances that may have failed.

    Raises
    ------
    TooManyLeftOut
        If more did: the ledger is written, the manifests are not, and a rerun
        speaks the shards with failures again.
    ValueError
        If nothing is left of a split.
    """
    output_folder = Path(output_folder)
    paths = {}
    for shard in shards:
        path = part_path(output_folder, shard)
        paths.setdefault(shard.split, []).append(path)
    everything = [path for found in paths.values() for path in found]
    _check_share(everything, output_folder / LEDGER, max_left_out)
    for split, found in paths.items():
        _write_manifest(output_folder / f"{split}.parquet", found)
    _write_items(output_folder, paths, everything)
    _tidy(output_folder, everything)


def _check_share(paths, ledger, max_left_out):
    """Write the ledger and refuse too long a one."""
    reasons, utterances, failed, bad = Counter(), 0, 0, []
    with (
        atomic_path(ledger) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        for path in paths:
            facts = read_facts(path)
            utterances += facts["utterances"]
            failed += facts["failed"]
            if facts["failed"]:
                bad.append(path)
            for entry in facts["ledger"]:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                reasons[entry["reason"]] += 1
    if failed:
        logger.warning(
            "%d of %d utterances are left out; %s lists %s",
            failed,
            utterances,
            ledger,
            ", ".join(f"{count} x {name}" for name, count in reasons.items()),
        )
    if failed > max_left_out * utterances:
        for path in bad:
            path.unlink()
        raise TooManyLeftOut(
            f"{failed} of {utterances} utterances cannot be used "
            f"({failed / utterances:.2%}; max_left_out is {max_left_out:.2%})."
            f" {ledger} names each with its reason. Mend the texts or the "
            "voices and run again, or raise max_left_out."
        )


def _write_manifest(path, parts):
    columns = [*MANIFEST.names, "text"]
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    rows = 0
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for part in parts:
            table = pq.read_table(part, columns=columns)
            if len(table):
                writer.write_table(table.replace_schema_metadata(None))
            rows += len(table)
        if not rows:
            raise ValueError(
                f"No story is left for {path}; {path.parent / LEDGER} says why"
            )


def _write_items(output_folder, splits, parts):
    """Take out the items that name a story which is not there.

    It failed here, or was left out before, by a translation. Where no story
    of theirs has been spoken or has failed, they are another run's.
    """
    file = output_folder / ITEMS_FILE
    if not file.is_file():
        return
    items = read_table(file, ITEMS, ITEMS_KEY, ITEMS_EMPTY)
    roles = ("prompt", "right", "wrong")
    named = pc.unique(
        pa.chunked_array(
            [part for name in roles for part in items[name].chunks]
        )
    )
    there = set()
    for split in splits:
        manifest = pq.ParquetFile(output_folder / f"{split}.parquet")
        for batch in manifest.iter_batches(columns=["story_id"]):
            found = pc.unique(batch["story_id"])
            there.update(found.filter(pc.is_in(found, named)).to_pylist())
    gone = np.zeros(len(items), dtype=bool)
    for name in roles:
        known = pa.array(sorted({*there, ""}))
        gone |= ~pc.is_in(items[name], known).to_numpy()
    failed = {
        entry["story_id"]
        for part in parts
        for entry in read_facts(part)["ledger"]
    }
    ours = there or not failed.isdisjoint(named.to_pylist())
    if ours and gone.any():
        logger.warning("%d of %d items are left out", gone.sum(), len(items))
        write_table(file, items.filter(pa.array(~gone)))


def _tidy(output_folder, parts):
    """Remove what killed processes and other settings left behind."""
    for folder in (output_folder / "audio").glob("*"):
        remove_temporary(folder)
    kept = {part.parent for part in parts}
    for folder in {part.parents[1] for part in parts}:
        for other in folder.iterdir():
            if other not in kept:
                shutil.rmtree(other)
