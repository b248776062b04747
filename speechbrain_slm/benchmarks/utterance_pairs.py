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

from speechbrain_slm.benchmarks import spoken_items
from speechbrain_slm.benchmarks.spoken_items import Clip, Item
from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.tables import read_table

FOLDERS = {"right": "correct", "wrong": "wrong"}
COLUMNS = ("pair", *FOLDERS)
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
        pair, teller = row["pair"], row.get("speaker") or speaker
        names = [f"{benchmark}.{pair}.{side}" for side in FOLDERS]
        for name, side in zip(names, FOLDERS, strict=True):
            clips.append(Clip(name, language, teller, row[side]))
        kinds = (row.get(kind) or "" for kind in ("group", "subset"))
        ends = "", *names, *kinds
        items.append(Item(pair, benchmark, language, language, *ends))
    return clips, items


def _read_folders(source):
    expected = (
        f"{source} to hold {' and '.join(FOLDERS.values())}, or to be a table "
        f"({' or '.join(TABLES)})"
    )
    files = [
        (name, folder, path)
        for folder in FOLDERS.values()
        for name, path in spoken_items.audio_in(source / folder, expected)
    ]
    pairs = spoken_items.group_files(files, FOLDERS.values())
    for pair, found in pairs.items():
        sides = {side: found[folder] for side, folder in FOLDERS.items()}
        yield {"pair": pair, **sides}


def _read_table(source):
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    table = read_table(source, schema, ("pair",), optional=OPTIONAL, advice="")
    for row in table.to_pylist():
        # A path that is absolute stays as it is.
        paths = {side: as_stored(source.parent / row[side]) for side in FOLDERS}
        yield row | paths
