"""Leave out the stories of some speakers, and the items made of them."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.utils.hashing import file_stamp
from speechbrain_slm.utils.ledger import (
    LEDGER,
    Ledger,
    check_share,
    open_ledger,
)
from speechbrain_slm.utils.ownership import mark_of, refuse_foreign, withdraw
from speechbrain_slm.utils.pieces import join_tables
from speechbrain_slm.utils.tables import (
    ITEMS,
    ITEMS_EMPTY,
    ITEMS_KEY,
    read_table,
    write_table,
)

MARK = "speaker_check"
_BATCH_ROWS = 65536
_ADVICE = (
    "Look at voices.md: lower the threshold if the voices are good, or speak "
    "the stories again with the speakers that are kept."
)


def output_tables(
    splits: Iterable[str], output_folder: str | Path
) -> list[Path]:
    """List what is written: the manifests, then the items.

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
    manifests: dict[str, str | Path],
    items: str | Path | None,
    output_folder: str | Path,
    voices: list[dict],
    max_left_out: float = 1.0,
    stamps: list[str] | None = None,
) -> None:
    """Write manifests and items without the voices that were not kept.

    A story goes as a whole, in all languages, if any of its sentences is by
    someone else: what is left is what was matched, without a gap. A manifest
    is read in batches; only the names of the stories that go are held. The
    audio paths of the new manifests lead to the old files.

    Arguments
    ---------
    items : The table of cloze items, if there is one.
    voices : From :func:`speechbrain_slm.speech.voices.check.compare_voices`.
    max_left_out : Share of a split's rows that may be left out.
    stamps : ``file_stamp`` of the manifests as they were compared.

    Raises
    ------
    TooManyLeftOut
        If more is left out than ``max_left_out``. No manifest is there then,
        as after any other error, not even of an earlier run.
    """
    folder = Path(output_folder)
    tables = output_tables(manifests, folder)
    # Whenever this run ends, what is there is this run's.
    withdraw(tables, MARK)
    paths = {split: Path(path) for split, path in manifests.items()}
    if stamps is None:
        stamps = [file_stamp(path) for path in paths.values()]
    reasons = {row["speaker"]: row["reason"] for row in voices}
    _refuse_none(reasons, folder)
    with open_ledger(folder / LEDGER) as ledger:
        gone = {
            split: _stories_of_others(split, path, reasons, ledger)
            for split, path in paths.items()
        }
        if items is not None:
            left = _left_items(items, set().union(*gone.values()), ledger)
    told, most = folder / LEDGER, max_left_out
    for split, path in paths.items():
        lost, total = _count(path, gone[split], reasons)
        why, what = ledger.reasons[split], f"rows of {split}"
        check_share(what, lost, total, most, why, told, _ADVICE)
    for target, (split, path) in zip(tables, paths.items(), strict=False):
        _write(path, target, gone[split])
    if items is not None:
        write_table(tables[-1], left.replace_schema_metadata(mark_of(MARK)))
    if stamps != [file_stamp(path) for path in paths.values()]:
        withdraw(tables, MARK)
        raise ValueError(
            f"A manifest of {', '.join(map(str, paths.values()))} was "
            "changed while its voices were compared. Run the same command "
            "again; what was embedded is found."
        )


def _refuse_none(reasons: dict[str, str], folder: Path) -> None:
    if all(reasons.values()):
        told = "; ".join(f"{name}: {reasons[name]}" for name in sorted(reasons))
        raise ValueError(
            f"No voice is kept ({told}). Look at voices.md in {folder}; lower "
            "the threshold, or take other voices. No manifest was written."
        )


def _read(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    file = pq.ParquetFile(path)
    for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
        yield pa.Table.from_batches([batch])


def _stories_of_others(
    split: str, path: Path, reasons: dict[str, str], ledger: Ledger
) -> set[str]:
    """Return the stories that go; say of each whose voice it is."""
    good = pa.array([name for name in reasons if not reasons[name]])
    bad: dict[str, set[str]] = {}
    columns = ["story_id", "speaker"]
    for table in _read(path, columns):
        others = pc.invert(pc.is_in(table["speaker"], value_set=good))
        # Python sees each story and speaker once a batch.
        table = table.filter(others).group_by(columns).aggregate([])
        for row in table.to_pylist():
            bad.setdefault(row["story_id"], set()).add(row["speaker"])
    for story_id, found in bad.items():
        told = [
            f"speaker '{name}': "
            + reasons.get(name, "the check does not know it")
            for name in sorted(found)
        ]
        ledger.write(
            split=split,
            story_id=story_id,
            action="dropped",
            reason="; ".join(told),
        )
    return set(bad)


def _left_items(path: str | Path, gone: set[str], ledger: Ledger) -> pa.Table:
    """Return the items whose stories are all still there; list the others."""
    items = read_table(path, ITEMS, ITEMS_KEY, ITEMS_EMPTY)
    roles = items.select(["prompt", "right", "wrong"]).to_pydict().values()
    stays = [gone.isdisjoint(item) for item in zip(*roles, strict=True)]
    kept = pa.array(stays, pa.bool_())
    for row in items.filter(pc.invert(kept)).to_pylist():
        ledger.write(
            item=row["item_id"],
            action="dropped",
            reason="a story of it is gone",
            detail=", ".join(row[name] for name in ITEMS_KEY[1:]),
        )
    return items.filter(kept)


def _count(
    path: Path, gone: set[str], reasons: dict[str, str]
) -> tuple[int, int]:
    """Count the rows that go, and all; refuse to leave out every one."""
    lost, total, names = 0, 0, pa.array(gone, pa.string())
    for table in _read(path, ["story_id"]):
        found = pc.is_in(table["story_id"], value_set=names)
        lost += pc.sum(found).as_py() or 0
        total += len(table)
    if lost == total:
        good = [name for name in reasons if not reasons[name]]
        raise ValueError(
            f"{path}: no story is left; each has a sentence by a voice "
            "that is not kept. Speak the stories again with the speakers "
            f"that are: {', '.join(good)}. No manifest was written."
        )
    return lost, total


def _write(path: Path, target: Path, gone: set[str]) -> None:
    beside = os.path.relpath(path.parent, target.parent)
    names = pa.array(gone, pa.string())
    schema = pq.read_schema(path).with_metadata(mark_of(MARK))
    place = schema.get_field_index("audio")

    def left() -> Iterator[pa.Table]:
        for table in _read(path):
            stays = pc.invert(pc.is_in(table["story_id"], value_set=names))
            table = table.filter(stays)
            if beside != ".":
                audio = table["audio"]
                moved = pc.binary_join_element_wise(beside, audio, "/")
                absolute = pc.starts_with(audio, "/")
                audio = pc.if_else(absolute, audio, moved)
                table = table.set_column(place, schema.field(place), audio)
            yield table

    with join_tables(target, schema, left()):
        pass
