"""The unit store's format: what its files are, and how they are read.

A store holds ``units-*.arrow`` (Arrow IPC files; a row is one story in one
language) and ``store.json``, written last, which says what they are.
"""

import contextlib
import hashlib
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.utils import schema as shapes
from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.hashing import identity_of, sha256_file

FORMAT = "speechbrain_slm.unit_store"
VERSION = 2
STORE_JSON = "store.json"
# The speaker of a story that several tell; the manifest says who says what.
SEVERAL = ""
_ROWS = 1 << 16  # at a time: sentences of so many rows are copied
_ENDS = (
    "has sentences that do not end one after the other, the last with the story"
)


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
    with _undamaged(path), pa.memory_map(str(path)) as source:
        return source.read_buffer()


def _as_table(path, content, schemas):
    with _undamaged(path):
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
    that is missing, differs or is stray, or holds what nobody writes.

    Arguments
    ---------
    check : False where another process of the run checks the same files.
    """
    folder = Path(folder)
    info = read_info(folder)
    paths = [folder / name for name in info["files"]]
    mapped = {path: _map(path) for path in paths if path.is_file()}
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
    tables = [_as_table(*one, SCHEMAS) for one in mapped.items()]
    if check:
        check_content(paths, tables, info)
    return info, tables


def check_content(
    paths: list[Path], tables: list[pa.Table], info: dict
) -> None:
    """Refuse tables that no writer of unit stores has made (ValueError).

    A store that somebody sends may agree with its own sums and still hold
    units beyond the vocabulary, or sentences that end in the next story.
    """
    # On whole arrays, none of which copies the units.
    languages = pa.array(sorted(info["counts"]), pa.string())
    for path, table in zip(paths, tables, strict=True):
        for batch in table.to_batches():
            _check_arrays(path, batch)
            found = pc.index_in(batch["language"], languages)
            if found.null_count:
                row = pc.index(pc.is_null(found), True).as_py()
                raise ValueError(
                    f"{path}: {_name(batch, row)} is in no language that "
                    f"store.json counts ({', '.join(info['counts'])})"
                )
            _check_lists(path, batch, info["tokenizer"]["vocabulary_size"])
    if (found := counts_of(tables)) != info["counts"]:
        raise ValueError(
            f"{paths[0].parent}: its files hold {found}, but store.json counts "
            f"{info['counts']}. Extract the units again."
        )
    _refuse_twice(paths[0].parent, tables, languages)


def counts_of(tables: list[pa.Table]) -> dict[str, dict[str, int]]:
    """Count the stories, sentences and units of each language."""
    # Lengths alone: the units stay on the disk.
    lengths = pa.concat_tables(
        pa.table(
            {
                "language": table["language"],
                "sentences": pc.list_value_length(table["sentence_ends"]),
                "units": pc.list_value_length(table["units"]),
            }
        )
        for table in tables
    )
    sums = lengths.group_by("language").aggregate(
        [([], "count_all"), ("sentences", "sum"), ("units", "sum")]
    )
    sums = sums.rename_columns(["language", "stories", "sentences", "units"])
    rows = sums.sort_by("language").to_pylist()
    return {row.pop("language"): row for row in rows}


def _check_arrays(path, batch):
    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise ValueError(
            f"{path}: its arrays are broken ({error}). Extract the units again."
        ) from error
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        inner = column.values if pa.types.is_list(column.type) else column
        if column.null_count or inner.null_count:
            raise ValueError(
                f"{path}: column '{name}' has {column.null_count} empty rows "
                f"and {inner.null_count} missing values; expected none"
            )


def _check_lists(path, batch, size):
    offsets = batch["units"].offsets.to_numpy()
    values = batch["units"].values.to_numpy()
    # The largest of uint16: nothing is copied.
    if len(values) and values.max() >= size:
        place = int(np.argmax(values >= size))
        row = int(np.searchsorted(offsets, place, "right")) - 1
        raise ValueError(
            f"{path}: {_name(batch, row)} has the unit {values[place]}; "
            f"expected units in [0, {size}), the tokenizer's vocabulary"
        )
    lengths = np.diff(offsets)
    bounds = batch["sentence_ends"].offsets.to_numpy()
    counts = np.diff(bounds)
    _refuse(path, batch, (lengths < 1) | (counts < 1), "has no units")
    ends = batch["sentence_ends"].values.to_numpy()
    for begin in range(0, len(batch), _ROWS):
        rows = slice(begin, min(begin + _ROWS, len(batch)))
        # Ends 3 5 | 2 4 are the lengths 3 2 | 2 2: what a first sentence
        # has before it is of another story.
        first = bounds[rows] - bounds[begin]
        last = first + counts[rows] - 1
        part = ends[bounds[begin] : bounds[begin] + last[-1] + 1]
        part = part.astype(np.int64)
        steps = np.diff(part, prepend=0)
        steps[first] = part[first]
        wrong = np.minimum.reduceat(steps, first) < 1
        wrong |= part[last] != lengths[rows]
        _refuse(path, batch, wrong, _ENDS, begin)


def _refuse(path, batch, wrong, what, begin=0):
    if wrong.any():
        name = _name(batch, begin + int(wrong.argmax()))
        raise ValueError(f"{path}: {name} {what}. Extract the units again.")


def _name(batch, row):
    return f"story '{batch['story_id'][row]}' in '{batch['language'][row]}'"


def _refuse_twice(folder, tables, languages):
    names, spoken = (
        pa.chunked_array([c for t in tables for c in t[name].chunks])
        for name in ("story_id", "language")
    )
    # A number for each name, in all files: no string is compared twice.
    encoded = names.dictionary_encode().chunks
    story = np.concatenate([chunk.indices.to_numpy() for chunk in encoded])
    code = pc.index_in(spoken, languages).to_numpy()
    key = story.astype(np.int64) * len(languages) + code
    twice = np.bincount(key) > 1
    if twice.any():
        row = int(np.argmax(key == int(twice.argmax())))
        raise ValueError(
            f"{folder}: {np.count_nonzero(twice)} (story, language) pair(s) "
            f"stand more than once, first '{names[row]}' in '{spoken[row]}'; "
            "expected one row each"
        )
