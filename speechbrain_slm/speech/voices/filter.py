"""Leave out the stories of some speakers, and the items made of them."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.hashing import file_stamp
from speechbrain_slm.utils.ledger import LEDGER, check_share, open_ledger
from speechbrain_slm.utils.ownership import mark_of, refuse_foreign, withdraw
from speechbrain_slm.utils.tables import (
    ITEMS,
    ITEMS_EMPTY,
    ITEMS_KEY,
    read_table,
    write_table,
)

logger = logging.getLogger(__name__)
MARK = "speaker_check"
_BATCH_ROWS = 65536


def output_tables(
    splits: Iterable[str], output_folder: str | Path
) -> list[Path]:
    """List what is written, and refuse to replace what another made.

    Arguments
    ---------
    output_folder : Where the new ones go.

    Returns
    -------
    The manifests, then the items.

    Raises
    ------
    FileExistsError
        If one of them is not of an earlier speaker check; the manifests that
        are read, for example.
    """
    names = [*(f"{split}.parquet" for split in splits), "items.parquet"]
    tables = [Path(output_folder) / name for name in names]
    refuse_foreign(tables, MARK)
    return tables


def leave_out_voices(
    manifests: dict,
    items: str | Path | None,
    output_folder: str | Path,
    voices: list[dict],
    max_left_out: float = 1.0,
    stamps: list[str] | None = None,
) -> None:
    """Write manifests and items without the voices that were not kept.

    A story goes as a whole, in all languages, if any of its sentences is by
    someone else: what is left is what was aligned, without a gap. A manifest
    is read in batches; only the names of the stories that go are held.

    Arguments
    ---------
    items : The table of cloze items, if there is one.
    output_folder
        Gets ``<split>.parquet``, whose audio paths lead to the old files,
        ``items.parquet`` and ``left_out.jsonl``.
    voices : From :func:`speechbrain_slm.speech.voices.check.compare_voices`.
    max_left_out : Share of a split's rows that may be left out.
    stamps : ``file_stamp`` of the manifests as they were compared.

    Raises
    ------
    FileExistsError
        If a table is in the way that no speaker check made.
    ValueError
        If no voice was kept, or no story of a split, or a manifest has
        changed since it was compared; no manifest is there then, not even of
        an earlier run.
    TooManyLeftOut
        If more is left out than ``max_left_out``; likewise.
    """
    output_folder = Path(output_folder)
    tables = output_tables(manifests, output_folder)
    # Whenever this run ends, what is there is this run's.
    withdraw(tables, MARK)
    manifests = {split: Path(path) for split, path in manifests.items()}
    if stamps is None:
        stamps = [file_stamp(path) for path in manifests.values()]
    kept = {row["speaker"]: row["reason"] for row in voices}
    if all(kept.values()):
        reasons = "; ".join(f"{name}: {kept[name]}" for name in sorted(kept))
        raise ValueError(
            f"No voice is kept ({reasons}). Look at voices.md in "
            f"{output_folder}; lower the threshold, or take other voices. No "
            "manifest was written."
        )
    gone, path_out = {}, output_folder / LEDGER
    with open_ledger(path_out) as ledger:
        for split, path in manifests.items():
            gone[split] = _stories_of_others(split, path, kept, ledger)
        if items is not None:
            left = _left_items(items, gone.values(), ledger)
    _check_rows(manifests, gone, ledger.reasons, path_out, max_left_out, kept)
    for split, path in manifests.items():
        _write(path, output_folder / f"{split}.parquet", gone[split])
    if items is not None:
        write_table(tables[-1], left.replace_schema_metadata(mark_of(MARK)))
    if stamps != [file_stamp(path) for path in manifests.values()]:
        withdraw(tables, MARK)
        raise ValueError(
            f"A manifest of {', '.join(map(str, manifests.values()))} was "
            "changed while its voices were compared. Run the same command "
            "again; what was embedded is found."
        )


def _check_rows(manifests, gone, reasons, ledger, max_left_out, kept):
    """Refuse to leave out too much, before anything is written."""
    advice = (
        "Look at voices.md: lower the threshold if the voices are good, or "
        "speak the stories again with the speakers that are kept."
    )
    for split, path in manifests.items():
        lost, total = 0, 0
        for batch in pq.ParquetFile(path).iter_batches(
            _BATCH_ROWS, columns=["story_id"]
        ):
            found = pc.is_in(batch["story_id"], value_set=gone[split])
            lost += pc.sum(found).as_py() or 0
            total += len(batch)
        if lost == total:
            names = [name for name in kept if not kept[name]]
            raise ValueError(
                f"{path}: no story is left; each has a sentence by a voice "
                "that is not kept. Speak the stories again with the speakers "
                f"that are: {', '.join(names)}. No manifest was written."
            )
        check_share(
            f"rows of {split}",
            lost,
            total,
            max_left_out,
            reasons[split],
            ledger,
            advice,
        )


def _write(path, output, gone):
    source = pq.ParquetFile(path)
    beside = os.path.relpath(path.parent, output.parent)
    schema = source.schema_arrow.with_metadata(mark_of(MARK))
    with (
        atomic_path(output) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for batch in source.iter_batches(_BATCH_ROWS):
            table = pa.Table.from_batches([batch])
            stays = pc.invert(pc.is_in(table["story_id"], value_set=gone))
            table = table.filter(stays)
            if len(table):
                writer.write_table(_moved(table, beside))


def _stories_of_others(split, path, kept, ledger):
    """Return the stories that go; say of each whose voice it is."""
    speakers = pa.array([name for name in kept if not kept[name]], pa.string())
    gone, columns = {}, ["story_id", "speaker"]
    for batch in pq.ParquetFile(path).iter_batches(
        _BATCH_ROWS, columns=columns
    ):
        table = pa.Table.from_batches([batch])
        told = pc.is_in(table["speaker"], value_set=speakers)
        table = table.filter(pc.invert(told)).group_by(columns).aggregate([])
        for row in table.to_pylist():
            gone.setdefault(row["story_id"], set()).add(row["speaker"])
    for story_id, found in gone.items():
        reasons = [
            f"speaker '{name}': {kept.get(name, 'the check does not know it')}"
            for name in sorted(found)
        ]
        ledger.write(
            split=split,
            story_id=story_id,
            action="dropped",
            reason="; ".join(reasons),
        )
    return pa.array(list(gone), pa.string())


def _moved(table, beside):
    """Lead audio paths from another folder to the same files."""
    if beside == ".":
        return table
    absolute = pc.starts_with(table["audio"], "/")
    moved = pc.binary_join_element_wise(beside, table["audio"], "/")
    column = pc.if_else(absolute, table["audio"], moved)
    index = table.column_names.index("audio")
    return table.set_column(index, table.schema.field("audio"), column)


def _left_items(path, gone, ledger):
    """Return the items whose stories are all still there; list the others."""
    gone = pa.concat_arrays(list(gone))
    items = read_table(path, ITEMS, ITEMS_KEY, ITEMS_EMPTY)
    lost = pa.array([False] * len(items))
    for name in ("prompt", "right", "wrong"):
        lost = pc.or_(lost, pc.is_in(items[name], value_set=gone))
    for row in items.filter(lost).select(list(ITEMS_KEY)).to_pylist():
        ledger.write(
            item=row["item_id"],
            action="dropped",
            reason="a story of it is gone",
            detail=", ".join(row[name] for name in ITEMS_KEY[1:]),
        )
    return items.filter(pc.invert(lost))
