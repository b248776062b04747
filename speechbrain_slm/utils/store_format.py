"""The unit store's format: what its files are, and how they are read.

A store holds ``units-*.arrow`` (Arrow IPC files; a row is one story in one
language) and ``store.json``, which says what they are: the identity of the
tokenizer that made the units, the vocabulary, the frame rate, the counts and
the SHA-256 of every file. ``store.json`` is written last; a folder without it
is not a store.

The format stands here because its writer (``units``) and its reader
(``dataio``) both need it; ``store.py`` writes it.
"""

import re
from pathlib import Path

import pyarrow as pa

from speechbrain_slm.utils.atomic import atomic_path, read_json
from speechbrain_slm.utils.hashing import identity_of, sha256_file

FORMAT = "speechbrain_slm.unit_store"
VERSION = 2
STORE_JSON = "store.json"
# Beside the stores of all splits: what was left out of them, and why.
LEDGER = "rejects.jsonl"
# The speaker of a story that several tell; the manifest says who says what.
SEVERAL = ""


def schema(longest):
    """Return the columns of a file of a store.

    Arguments
    ---------
    longest : int
        Units of its longest story.

    Returns
    -------
    pyarrow.Schema
        Where a sentence ends takes 2 bytes, or 4 if stories are so long.

    Example
    -------
    >>> schema(65536).field("sentence_ends").type
    ListType(list<item: int32>)
    """
    end = pa.uint16() if longest < 1 << 16 else pa.int32()
    return pa.schema(
        [
            ("story_id", pa.string()),
            ("language", pa.string()),
            ("speaker", pa.string()),
            ("units", pa.list_(pa.uint16())),
            ("sentence_ends", pa.list_(end)),
        ]
    )


SCHEMAS = schema(0), schema(1 << 16)
# What a tokenizer must say of itself for a store to be made with it.
TOKENIZER_FIELDS = (
    "identity",
    "vocabulary_size",
    "frame_rate",
    "deduplicated",
    "config",
)


def write_file(path, batch):
    """Write one Arrow file, all of it or nothing.

    Arguments
    ---------
    path : str or Path
        The file.
    batch : pyarrow.RecordBatch
        What it shall hold.
    """
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, batch.schema) as writer,
    ):
        writer.write_batch(batch)


def map_file(path, *schemas):
    """Memory-map one Arrow file.

    Arguments
    ---------
    path : str or Path
        The file.
    *schemas : pyarrow.Schema
        The columns that it should have, of one of these types.

    Returns
    -------
    pyarrow.Table
        Zero-copy: the arrays are views of the mapped file.

    Raises
    ------
    ValueError
        If it is not readable as an Arrow file of these columns.
    """
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Remove it and run the units recipe "
            "again; it writes what is missing."
        ) from error
    if not any(table.schema.equals(schema) for schema in schemas):
        raise ValueError(
            f"{path}: its columns are {table.schema.names}, expected "
            f"{schemas[0].names}"
        )
    return table


def read_info(folder):
    """Read what a store says of itself.

    Arguments
    ---------
    folder : str or Path
        The store.

    Returns
    -------
    dict
        The content of ``store.json``.

    Raises
    ------
    FileNotFoundError
        If the folder is not a complete store.
    ValueError
        If it is of another format or version, or was edited by hand.
    """
    path = Path(folder) / STORE_JSON
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not a complete unit store: it has no {STORE_JSON}. "
            "Run (or resume) the units recipe that writes it."
        )
    info = read_json(path)
    found = (info.get("format"), info.get("version"))
    if found != (FORMAT, VERSION):
        raise ValueError(
            f"{path}: format and version are {found}, expected "
            f"{(FORMAT, VERSION)}; extract the units again"
        )
    content = {key: info[key] for key in info if key != "identity"}
    if identity_of(content) != info.get("identity"):
        raise ValueError(
            f"{path}: its identity does not fit its content; the file was "
            "changed after it was written. Extract the units again."
        )
    return info


def read_tables(folder):
    """Memory-map the stories of a store.

    Arguments
    ---------
    folder : str or Path
        The store.

    Returns
    -------
    dict
        The content of ``store.json``.
    list of pyarrow.Table
        One a file, in the order of their names; zero-copy.

    Raises
    ------
    FileNotFoundError
        If ``store.json`` names a file that is not there.
    ValueError
        If a file is not readable as an Arrow file of the store's schema.
    """
    info = read_info(folder)
    tables = []
    for name in info["files"]:
        path = Path(folder) / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing, though {STORE_JSON} lists it"
            )
        tables.append(map_file(path, *SCHEMAS))
    return info, tables


def verify(folder):
    """Compare every file of a store with the SHA-256 that it should have.

    Arguments
    ---------
    folder : str or Path
        The store.

    Returns
    -------
    dict
        The content of ``store.json``.

    Raises
    ------
    ValueError
        Names every file that is missing or differs, and any stray one.
    """
    info = read_info(folder)
    wrong = []
    for name, expected in info["files"].items():
        path = Path(folder) / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif sha256_file(path) != expected:
            wrong.append(f"{name} differs from its SHA-256")
    pattern = re.compile(r"units-\d+\.arrow")
    wrong += [
        f"{path.name} is not listed in {STORE_JSON}"
        for path in sorted(Path(folder).glob("units-*"))
        if pattern.fullmatch(path.name) and path.name not in info["files"]
    ]
    if wrong:
        raise ValueError(
            f"{folder} is damaged: {'; '.join(wrong)}. Remove the folder and "
            "run the units recipe again."
        )
    return info
