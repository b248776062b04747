"""From parts to manifests, the ledger and the items that can be asked."""

import logging
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.speech.shard_speech import ROWS, SCHEMA, part_path
from speechbrain_slm.utils.atomic import remove_temporary
from speechbrain_slm.utils.ledger import LEDGER, check_share, open_ledger
from speechbrain_slm.utils.ownership import mark_of, remove_own
from speechbrain_slm.utils.pieces import join_tables, read_piece
from speechbrain_slm.utils.story_tables import ITEMS_FILE, MARK
from speechbrain_slm.utils.tables import (
    ITEMS,
    ITEMS_EMPTY,
    ITEMS_KEY,
    MANIFEST,
    read_table,
    write_table,
)

logger = logging.getLogger(__name__)
_NUMBER = re.compile(r"\d{5}")


def merge_parts(
    identities: dict, output_folder: str | Path, max_left_out: float
) -> None:
    """Write the manifests, once all parts are there.

    Arguments
    ---------
    identities : Shard -> identity of its part, for all shards of all splits.
    output_folder
        Gets ``<split>.parquet`` and ``left_out.jsonl``; items that lack a
        story are taken out of its ``items.parquet``.
    max_left_out
        Share of the utterances, and of each split's rows, that may have gone.

    Raises
    ------
    TooManyLeftOut
        If more did: the ledger is written, the manifests are not, and a rerun
        speaks the shards with failures again.
    ValueError
        If nothing is left of a split, or a part is of another text.
    """
    output_folder = Path(output_folder)
    splits = {}
    for shard, identity in identities.items():
        path = part_path(output_folder, shard)
        splits.setdefault(shard.split, {})[path] = identity
    parts = {
        path: identity
        for one in splits.values()
        for path, identity in one.items()
    }
    _check_shares(splits, output_folder / LEDGER, max_left_out)
    for split, found in splits.items():
        _write_manifest(output_folder / f"{split}.parquet", found)
    _write_items(output_folder, splits, parts)
    _tidy(output_folder, parts)


def _read(path, identity, columns=None):
    part = read_piece(path, columns)
    if part.facts["identity"] != identity:
        raise ValueError(
            f"{path} is of another text, or of other settings, than this run "
            "has: they were changed while it was spoken. Run the same command "
            "again; what was spoken is kept."
        )
    return part


def _check_shares(splits, path, most):
    """Write the ledger and refuse too long a one."""
    counts: Counter = Counter()
    bad = []
    with open_ledger(path) as ledger:
        for split, parts in splits.items():
            for part, identity in parts.items():
                table, facts = _read(part, identity, ["audio"])
                counts["utterances"] += facts["utterances"]
                counts["failed"] += facts["failed"]
                counts[split, "rows"] += len(table)
                if facts["failed"]:
                    bad.append(part)
                for entry in facts["ledger"]:
                    ledger.write(**entry)
                    counts[split, "lost"] += "sentence" in entry
    checks = [
        ("utterances", counts["failed"], counts["utterances"], str(ledger))
    ]
    for split in splits:
        lost = counts[split, "lost"]
        total, why = lost + counts[split, "rows"], str(ledger.reasons[split])
        checks.append((f"rows of {split}", lost, total, why))
    for what, lost, total, why in checks:
        check_share(
            what,
            lost,
            total,
            most,
            why,
            path,
            "Mend the texts or the voices and run again.",
            forget=lambda: [part.unlink() for part in bad],
        )


def _write_manifest(path, parts):
    columns = [*MANIFEST.names, "text"]
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    tables = (
        _read(part, identity, columns).table for part, identity in parts.items()
    )
    with join_tables(path, schema.with_metadata(mark_of(MARK)), tables) as rows:
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
        for part, identity in parts.items()
        for entry in _read(part, identity, []).facts["ledger"]
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
            if other not in kept and _NUMBER.fullmatch(other.name):
                remove_own(other, ROWS, ".lock")
