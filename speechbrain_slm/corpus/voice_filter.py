"""Leave out the stories of some speakers, and the items made of them."""

import json
import logging
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.tables import (
    ITEMS,
    ITEMS_EMPTY,
    ITEMS_KEY,
    read_table,
    write_table,
)

logger = logging.getLogger(__name__)
_BATCH_ROWS = 65536


def filter_manifest(path, output, kept, ledger):
    """Write the part of a manifest that some speakers tell.

    A story goes as a whole, in all languages, if any of its sentences is by
    someone else: what is left is what was aligned, without a gap. It is read
    twice, in batches; only the names of the stories that go are held.

    Arguments
    ---------
    path : str or Path
        A manifest (Parquet).
    output : str or Path
        The new one. Its audio paths lead to the old files.
    kept : dict
        Speaker -> reason to leave it out, empty to keep it.
    ledger : file
        Gets a JSON line for each story left out.

    Returns
    -------
    pyarrow.Array
        The stories left out.

    Raises
    ------
    ValueError
        If no story is left; the new manifest is not written then.
    """
    path, output = Path(path), Path(output)
    gone = _stories_of_others(path, kept, ledger)
    source = pq.ParquetFile(path)
    beside = os.path.relpath(path.parent, output.parent)
    rows = 0
    with (
        atomic_path(output) as temporary,
        pq.ParquetWriter(
            temporary, source.schema_arrow, compression="zstd"
        ) as writer,
    ):
        for batch in source.iter_batches(_BATCH_ROWS):
            table = pa.Table.from_batches([batch])
            stays = pc.invert(pc.is_in(table["story_id"], value_set=gone))
            table = table.filter(stays)
            if len(table):
                writer.write_table(_moved(table, beside))
            rows += len(table)
        if not rows:
            voices = [name for name in kept if not kept[name]]
            raise ValueError(
                f"{path}: no story is left; each has a sentence by a voice "
                "that is not kept. Speak the stories again with the speakers "
                f"that are: {', '.join(voices)}. No manifest was written."
            )
    return gone


def _stories_of_others(path, kept, ledger):
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
        entry = {
            "split": path.stem,
            "story_id": story_id,
            "action": "dropped",
            "reason": "; ".join(reasons),
        }
        ledger.write(json.dumps(entry, ensure_ascii=False) + "\n")
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


def filter_items(path, output, gone, ledger):
    """Write the items whose stories are all still there.

    Arguments
    ---------
    path : str or Path
        A table of items.
    output : str or Path
        The new one.
    gone : pyarrow.Array
        The stories left out.
    ledger : file
        Gets a JSON line for each item left out.
    """
    items = read_table(path, ITEMS, ITEMS_KEY, ITEMS_EMPTY)
    lost = pa.array([False] * len(items))
    for name in ("prompt", "right", "wrong"):
        lost = pc.or_(lost, pc.is_in(items[name], value_set=gone))
    for row in items.filter(lost).select(list(ITEMS_KEY)).to_pylist():
        entry = {**row, "action": "dropped", "reason": "a story of it is gone"}
        ledger.write(json.dumps(entry, ensure_ascii=False) + "\n")
    write_table(output, items.filter(pc.invert(lost)))


def _remove(paths):
    for path in paths:
        path.unlink(missing_ok=True)


def leave_out_voices(manifests, items, output_folder, voices):
    """Write manifests and items without the voices that were not kept.

    Arguments
    ---------
    manifests : dict
        Split -> manifest.
    items : str or Path or None
        The table of cloze items, if there is one.
    output_folder : str or Path
        Gets ``<split>.parquet``, ``items.parquet`` and ``left_out.jsonl``.
    voices : list of dict
        From :func:`speechbrain_slm.corpus.speaker_check.compare_voices`.

    Raises
    ------
    ValueError
        If no voice was kept, or no story of a split; no manifest is there
        then, not even of an earlier run.
    """
    output_folder = Path(output_folder)
    tables = [output_folder / f"{name}.parquet" for name in manifests]
    tables.append(output_folder / "items.parquet")
    # Whenever this run ends, what is there is this run's.
    _remove(tables)
    kept = {row["speaker"]: row["reason"] for row in voices}
    if all(kept.values()):
        reasons = "; ".join(f"{name}: {kept[name]}" for name in sorted(kept))
        raise ValueError(
            f"No voice is kept ({reasons}). Look at voices.md in "
            f"{output_folder}; lower the threshold, or take other voices. No "
            "manifest was written."
        )
    counts, gone = Counter(), pa.array([], pa.string())
    with (
        atomic_path(output_folder / "left_out.jsonl") as temporary,
        open(temporary, "w", encoding="utf-8") as ledger,
    ):
        for split, path in manifests.items():
            output = output_folder / f"{split}.parquet"
            try:
                here = filter_manifest(path, output, kept, ledger)
            except ValueError:
                _remove(tables)
                raise
            counts[split] = len(here)
            gone = pa.concat_arrays([gone, here])
        if items is not None:
            filter_items(items, output_folder / "items.parquet", gone, ledger)
    logger.info(
        "Stories left out: %s",
        ", ".join(f"{split} {count}" for split, count in counts.items()),
    )
