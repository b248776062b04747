"""Pairs of a right and a wrong utterance: code-switched speech, or your own.

The zero-resource code-switched benchmark (Huang et al., ICASSP 2024,
https://arxiv.org/abs/2310.03018) has, for each pair of languages and split, a
folder ``correct`` and a folder ``wrong``; files of one name are a pair. That
is how ``scripts/evaluate.py`` in
https://github.com/nobel861017/cs_zerospeech_baseline tells them: from
``fr_en/test/correct/ID.wav`` it reads the language pair, the split, the side
and the pair.

Pairs that lie elsewhere are told by a CSV or Parquet file with the columns
``pair, right, wrong`` (files relative to the table's folder, or absolute) and
optionally ``speaker``, ``group`` and ``subset``.
"""

from pathlib import Path

import pyarrow as pa

from speechbrain_slm.benchmarks.spoken_items import Clip, Item, audio_in
from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.tables import read_table

FOLDERS = {"right": "correct", "wrong": "wrong"}
COLUMNS = ("pair", "right", "wrong")
OPTIONAL = ("speaker", "group", "subset")
TABLES = (".csv", ".parquet")


def read_utterance_pairs(
    source: str | Path, benchmark: str, language: str, speaker: str = "unknown"
) -> tuple[list[Clip], list[Item]]:
    """Read pairs of utterances, which have no prompt.

    Arguments
    ---------
    source
        A folder with ``correct/`` and ``wrong/``, or a ``.csv`` or
        ``.parquet`` file.
    benchmark : What the items are called.
    language
        What the utterances are called in the store, such as ``fr-en``. A
        model with language tags needs one of its own languages here.
    speaker : Who speaks, where no table says it.
    """
    source = Path(source)
    read = _read_table if source.suffix in TABLES else _read_folders
    clips, items = [], []
    for row in read(source):
        names = {side: f"{benchmark}.{row['pair']}.{side}" for side in FOLDERS}
        teller = row.get("speaker") or speaker
        clips += [Clip(names[s], language, teller, row[s]) for s in FOLDERS]
        items.append(
            Item(
                row["pair"],
                benchmark,
                *(language, language),
                prompt="",
                **names,
                group=row.get("group") or "",
                subset=row.get("subset") or "",
            )
        )
    return clips, items


def _read_folders(source):
    expected = (
        f"{source} to hold {' and '.join(FOLDERS.values())}, or to be a table "
        f"({' or '.join(TABLES)})"
    )
    sides = {side: {} for side in FOLDERS}
    for side, folder in FOLDERS.items():
        for name, path in audio_in(source / folder, expected):
            other = sides[side].setdefault(name, path)
            if other != path:
                raise ValueError(
                    f"{source / folder}: '{name}' stands twice: {other.name} "
                    f"and {path.name}. Remove one of them."
                )
    # Half an unpacked benchmark would be scored without a word.
    if alone := sorted(sides["right"].keys() ^ sides["wrong"].keys()):
        here, there = sorted(FOLDERS, key=lambda s: alone[0] not in sides[s])
        raise ValueError(
            f"{sides[here][alone[0]]} has no partner in "
            f"{source / FOLDERS[there]} ({len(alone)} such file(s)). Unpack it "
            "again, or remove what is alone."
        )
    return [
        {"pair": name, "right": path, "wrong": sides["wrong"][name]}
        for name, path in sides["right"].items()
    ]


def _read_table(source):
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    table = read_table(source, schema, ("pair",), optional=OPTIONAL, advice="")
    # A path that is absolute stays as it is.
    return [
        row | {side: as_stored(source.parent / row[side]) for side in FOLDERS}
        for row in table.to_pylist()
    ]
