"""Leave out the stories of some speakers, and the items made of them."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.utils import ledger as ledgers
from speechbrain_slm.utils.hashing import file_stamp
from speechbrain_slm.utils.ownership import mark_of, refuse_foreign, withdraw
from speechbrain_slm.utils.pieces import join_tables
from speechbrain_slm.utils.tables import ITEMS_KEY, read_items, write_table

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

    FileExistsError if one is not of an earlier check, but read, for example.
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
    someone else. A manifest is read in batches; only the names of the stories
    that go are held. After an error no manifest is there, of an earlier run
    neither.

    Arguments
    ---------
    voices : From :func:`speechbrain_slm.speech.voices.check.compare_voices`.
    max_left_out : Share of a split's rows that may be left out.
    stamps : ``file_stamp`` of the manifests as they were compared.
    """
    folder = Path(output_folder)
    tables = output_tables(manifests, folder)
    # Whenever this run ends, what is there is this run's.
    withdraw(tables, MARK)
    paths = {split: Path(path) for split, path in manifests.items()}
    stamps = stamps or list(map(file_stamp, paths.values()))
    reasons = {row["speaker"]: row["reason"] for row in voices}
    good = [name for name in reasons if not reasons[name]]
    if not good:
        shown = "; ".join(": ".join(pair) for pair in sorted(reasons.items()))
        raise ValueError(
            f"No voice is kept ({shown}). Look at voices.md in {folder}; lower "
            "the threshold, or take other voices. No manifest was written."
        )
    told = folder / ledgers.LEDGER
    with ledgers.open_ledger(told) as ledger:
        gone = {
            split: _stories_of_others(split, path, reasons, ledger)
            for split, path in paths.items()
        }
        if items is not None:
            left = _left_items(items, set().union(*gone.values()), ledger)
    with contextlib.ExitStack() as written:
        for target, (split, path) in zip(tables, paths.items(), strict=False):
            # Under temporary names, until all of them have been judged.
            new = _written(path, target, gone[split], good)
            counts = *written.enter_context(new), max_left_out
            why = ledger.reasons[split]
            ledgers.check_share(f"rows of {split}", *counts, why, told, _ADVICE)
        if stamps != list(map(file_stamp, paths.values())):
            raise ValueError(
                f"A manifest of {', '.join(map(str, paths.values()))} was "
                "changed while its voices were compared. Run the same command "
                "again; what was embedded is found."
            )
    if items is not None:
        write_table(tables[-1], left.replace_schema_metadata(mark_of(MARK)))


def read_batches(
    path: Path, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """Read a manifest, or some columns of it, some thousand rows at a time."""
    file = pq.ParquetFile(path)
    for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
        yield pa.Table.from_batches([batch])


def _stories_of_others(
    split: str, path: Path, reasons: dict[str, str], ledger: ledgers.Ledger
) -> set[str]:
    """Return the stories that go; say of each whose voice it is."""
    good = pa.array([name for name in reasons if not reasons[name]])
    bad: dict[str, set[str]] = {}
    columns = ["story_id", "speaker"]
    for table in read_batches(path, columns):
        others = pc.invert(pc.is_in(table["speaker"], value_set=good))
        # Python sees each story and speaker once a batch.
        table = table.filter(others).group_by(columns).aggregate([])
        for row in table.to_pylist():
            bad.setdefault(row["story_id"], set()).add(row["speaker"])
    unknown = "the check does not know it"
    for story, found in bad.items():
        whys = ((k, reasons.get(k, unknown)) for k in sorted(found))
        reason = "; ".join(f"speaker '{name}': {why}" for name, why in whys)
        entry = {"split": split, "story_id": story, "reason": reason}
        ledger.write(**entry, action="dropped")
    return set(bad)


def _left_items(
    path: str | Path, gone: set[str], ledger: ledgers.Ledger
) -> pa.Table:
    """Return the items whose stories are all still there; list the others."""
    items, stories = read_items(path)
    kept = pa.array(map(gone.isdisjoint, stories), pa.bool_())
    for row in items.filter(pc.invert(kept)).to_pylist():
        where = ", ".join(row[name] for name in ITEMS_KEY[1:])
        entry = {"item": row["item_id"], "reason": "a story of it is gone"}
        ledger.write(**entry, action="dropped", detail=where)
    return items.filter(kept)


@contextlib.contextmanager
def _written(
    path: Path, target: Path, gone: set[str], good: list[str]
) -> Iterator[tuple[int, int]]:
    """Write the rows whose stories stay; yield how many go, of how many."""
    beside = os.path.relpath(path.parent, target.parent)
    names = pa.array(gone, pa.string())
    schema = pq.read_schema(path).with_metadata(mark_of(MARK))
    place = schema.get_field_index("audio")

    def left() -> Iterator[pa.Table]:
        for table in read_batches(path):
            stays = pc.invert(pc.is_in(table["story_id"], value_set=names))
            table = table.filter(stays)
            if beside != ".":
                audio = table["audio"]
                moved = pc.binary_join_element_wise(beside, audio, "/")
                audio = pc.if_else(pc.starts_with(audio, "/"), audio, moved)
                table = table.set_column(place, schema.field(place), audio)
            yield table

    with join_tables(target, schema, left()) as rows:
        if not rows:
            raise ValueError(
                f"{path}: no story is left; each has a sentence by a voice "
                "that is not kept. Speak the stories again with the speakers "
                f"that are: {', '.join(good)}. No manifest was written."
            )
        total = pq.read_metadata(path).num_rows
        yield total - rows, total
