"""From parts to manifests, the ledger and the items that can be asked."""

import logging
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.speech.shard_speech import ROWS, SCHEMA, part_path
from speechbrain_slm.speech.story_shards import Shard, changed
from speechbrain_slm.utils.atomic import remove_temporary
from speechbrain_slm.utils.ledger import LEDGER, check_share, open_ledger
from speechbrain_slm.utils.ownership import mark_of, remove_own
from speechbrain_slm.utils.pieces import Piece, join_tables, read_piece
from speechbrain_slm.utils.tables import (
    ITEMS_FILE,
    MANIFEST,
    MARK,
    read_items,
    write_table,
)

logger = logging.getLogger(__name__)
Parts = dict[Path, str]  # path -> identity


def merge_parts(
    identities: dict[Shard, str], output_folder: Path, max_left_out: float
) -> None:
    """Write the manifests and the ledger, once all parts are there.

    Items that lack a story are taken out of ``items.parquet``. If more went
    than ``max_left_out``, of the utterances or of a split's rows, no manifest
    is written, and a rerun speaks the shards with failures again.
    """
    splits: dict[str, Parts] = defaultdict(dict)
    for shard, identity in identities.items():
        splits[shard.split][part_path(output_folder, shard)] = identity
    hurt = _check_shares(splits, output_folder / LEDGER, max_left_out)
    manifests = [output_folder / f"{split}.parquet" for split in splits]
    for path, parts in zip(manifests, splits.values(), strict=True):
        _write_manifest(path, parts)
    _write_items(output_folder / ITEMS_FILE, manifests, hurt)
    # What killed processes and other settings left behind.
    for folder in (output_folder / "audio").glob("*"):
        remove_temporary(folder)
    for parts in splits.values():
        kept = {part.parent for part in parts}
        there = next(iter(kept)).parent.glob("[0-9]" * 5)
        for folder in set(there) - kept:
            remove_own(folder, ROWS, ".lock")


def _read(path: Path, identity: str, columns: list[str]) -> Piece:
    part = read_piece(path, columns)
    if part.facts["identity"] != identity:
        raise changed(path)
    return part


def _check_shares(
    splits: dict[str, Parts], path: Path, most: float
) -> set[str]:
    """Write the ledger, refuse too long a one; return the stories in it."""
    spoken, failed, bad, hurt = 0, 0, [], set()
    kept, lost = Counter[str](), Counter[str]()
    with open_ledger(path) as ledger:
        for split, parts in splits.items():
            for part, identity in parts.items():
                table, facts = _read(part, identity, ["audio"])
                spoken += facts["utterances"]
                failed += facts["failed"]
                if facts["failed"]:
                    bad.append(part)
                kept[split] += len(table)
                for entry in facts["ledger"]:
                    ledger.write(**entry)
                    hurt.add(entry["story_id"])
                    lost[split] += "sentence" in entry
    checks = [("utterances", failed, spoken, most, str(ledger))]
    for split in splits:
        total, why = lost[split] + kept[split], str(ledger.reasons[split])
        checks.append((f"rows of {split}", lost[split], total, most, why))

    advice = "Mend the texts or the voices and run again."
    for check in checks:
        check_share(*check, path, advice, lambda: [*map(Path.unlink, bad)])
    return hurt


def _write_manifest(path: Path, parts: Parts) -> None:
    columns = [*MANIFEST.names, "text"]
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    tables = (_read(*part, columns).table for part in parts.items())
    with join_tables(path, schema.with_metadata(mark_of(MARK)), tables) as rows:
        if not rows:
            raise ValueError(
                f"No story is left for {path}; {path.parent / LEDGER} says why"
            )


def _write_items(path: Path, manifests: list[Path], hurt: set[str]) -> None:
    """Take out the items that name a story which is not there.

    It failed here, or was left out before, by a translation. Where no story
    of theirs has been spoken or has failed, they are another run's.
    """
    if not path.is_file():
        return
    items, stories = read_items(path)
    named, there = set().union(*stories), set()
    for manifest in manifests:
        batches = pq.ParquetFile(manifest).iter_batches(columns=["story_id"])
        for batch in batches:
            there |= named.intersection(pc.unique(batch[0]).to_pylist())
    stays = list(map(there.issuperset, stories))
    if (there or named & hurt) and not all(stays):
        gone = len(stays) - sum(stays)
        logger.warning("%d of %d items are left out", gone, len(items))
        write_table(path, items.filter(pa.array(stays)))
