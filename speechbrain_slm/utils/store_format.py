"""The unit store's format: what its files are, and how they are read.

A store holds ``units-*.arrow`` (Arrow IPC files; a row is one story in one
language) and ``store.json``, which says what they are: the identity of the
tokenizer that made the units, the vocabulary, the frame rate, the counts and
the SHA-256 of every file. ``store.json`` is written last; a folder without it
is not a store.

The format stands here because its writer (``units``) and its reader
(``dataio``) both need it; ``store.py`` writes it.
"""

import contextlib
import hashlib
import re
from pathlib import Path

import pyarrow as pa

from speechbrain_slm.utils import schema as shapes
from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.store_content import check_content

FORMAT = "speechbrain_slm.unit_store"
VERSION = 2
STORE_JSON = "store.json"
# The speaker of a story that several tell; the manifest says who says what.
SEVERAL = ""


def schema(longest: int) -> pa.Schema:
    """Return the columns of a file whose longest story has so many units."""
    # Where a sentence ends takes 2 bytes, or 4 if stories are so long.
    end = pa.uint16() if longest < 1 << 16 else pa.int32()
    names = ("story_id", "language", "speaker")
    lists = {"units": pa.list_(pa.uint16()), "sentence_ends": pa.list_(end)}
    return pa.schema({**dict.fromkeys(names, pa.string()), **lists})


SCHEMAS = schema(0), schema(1 << 16)
_SHAPE: dict = {
    "tokenizer": {
        "identity": shapes.TEXT,
        "vocabulary_size": shapes.whole(1, 1 << 16),
        "frame_rate": shapes.POSITIVE,
        "deduplicated": shapes.FLAG,
        "config": shapes.MAPPING,
    },
    "source": shapes.TEXT,
    "num_shards": shapes.whole(1),
    "counts": {
        str: dict.fromkeys(("stories", "sentences", "units"), shapes.whole(1))
    },
    "files": {str: shapes.matching("[0-9a-f]{64}", "a SHA-256")},
    "identity": shapes.TEXT,
}
# What a tokenizer must say of itself for a store to be made with it.
TOKENIZER_FIELDS = tuple(_SHAPE["tokenizer"])
_FILE = re.compile(r"units-\d+\.arrow")


def write_file(path: str | Path, batch: pa.RecordBatch) -> str:
    """Write one Arrow file, all of it or nothing; return its SHA-256."""
    with atomic_path(path) as temporary:
        with (
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        return sha256_file(temporary)


def map_file(path: str | Path, *schemas: pa.Schema) -> pa.Table:
    """Memory-map an Arrow file of one of the schemas, zero-copy."""
    with _undamaged(path):
        return _as_table(path, _map(path), schemas)


@contextlib.contextmanager
def _undamaged(path):
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Remove it and run the units recipe "
            "again; it writes what is missing."
        ) from error


def _map(path):
    with pa.memory_map(str(path)) as source:
        return source.read_buffer()


def _as_table(path, content, schemas):
    table = pa.ipc.open_file(content).read_all()
    if not any(table.schema.equals(schema) for schema in schemas):
        raise ValueError(
            f"{path}: its columns are {table.schema.names}, expected "
            f"{schemas[0].names}"
        )
    return table


def read_info(folder: str | Path) -> dict:
    """Read what a store says of itself: the content of ``store.json``.

    FileNotFoundError if the folder is not a complete store; ValueError if it is
    of another format or version, or was edited by hand.
    """
    path = Path(folder) / STORE_JSON
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not a complete unit store: it has no {STORE_JSON}. "
            "Run (or resume) the units recipe that writes it."
        )
    info = shapes.read_shaped(path, shapes.MAPPING)
    found = (info.get("format"), info.get("version"))
    if found != (FORMAT, VERSION):
        raise ValueError(
            f"{path}: format and version are {found}, expected "
            f"{(FORMAT, VERSION)}; extract the units again"
        )
    shapes.check_shape(info, _SHAPE, path)
    # A name with a slash would lead out of the folder.
    named = all(map(_FILE.fullmatch, info["files"]))
    whole = len(info["files"]) == info["num_shards"]
    if not (named and whole and info["counts"]):
        raise ValueError(
            f"{path}: it lists the files {', '.join(info['files']) or 'none'} "
            f"and counts {', '.join(info['counts']) or 'no languages'}; "
            f"expected {info['num_shards']} file(s) as units-00000.arrow, and "
            "one language or more"
        )
    content = {key: info[key] for key in info if key != "identity"}
    if identity_of(content) != info["identity"]:
        raise ValueError(
            f"{path}: its identity does not fit its content; the file was "
            "changed after it was written. Extract the units again."
        )
    return info


def read_tables(
    folder: str | Path, check: bool = True
) -> tuple[dict, list[pa.Table]]:
    """Memory-map the stories of a store, zero-copy: store.json and the tables.

    FileNotFoundError if it is not a complete store. ValueError names every file
    that is missing or differs, and any stray one; else the first that is no
    Arrow file of the schema, or holds what :func:`check_content` refuses.

    Arguments
    ---------
    check : False where another process of the run checks the same files.
    """
    folder = Path(folder)
    info = read_info(folder)
    paths = [folder / name for name in info["files"]]
    mapped = {}
    for path in filter(Path.is_file, paths):
        with _undamaged(path):
            mapped[path] = _map(path)
    wrong = [f"{path.name} is missing" for path in paths if path not in mapped]
    if check:
        # Of the very mapping that is returned: what takes the file's place
        # meanwhile is neither checked nor used.
        wrong += [
            f"{path.name} differs from its SHA-256"
            for path, content in mapped.items()
            if hashlib.sha256(content).hexdigest() != info["files"][path.name]
        ]
        wrong += [
            f"{path.name} is not listed in {STORE_JSON}"
            for path in sorted(folder.glob("units-*"))
            if _FILE.fullmatch(path.name) and path not in paths
        ]
    if wrong:
        raise ValueError(
            f"{folder} is damaged: {'; '.join(wrong)}. Remove the folder and "
            "run the units recipe again."
        )
    tables = []
    for path, content in mapped.items():
        with _undamaged(path):
            tables.append(_as_table(path, content, SCHEMAS))
    if check:
        check_content(paths, tables, info)
    return info, tables
