"""The unit store: a folder of memory-mapped stories in units.

A store holds ``units-*.arrow`` (Arrow IPC files; a row is one story in one
language) and ``store.json``, which says what they are: the identity of the
tokenizer that made the units, the vocabulary, the frame rate, the counts and
the SHA-256 of every file. ``store.json`` is written last; a folder without it
is not a store.

The format stands here because its writer (``units``) and its reader
(``dataio``) both need it.
"""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.utils.atomic import atomic_path, write_json
from speechbrain_slm.utils.hashing import difference, identity_of, sha256_file

FORMAT = "speechbrain_slm.unit_store"
VERSION = 1
STORE_JSON = "store.json"
PLAN_JSON = "plan.json"
SCHEMA = pa.schema(
    [
        ("story_id", pa.string()),
        ("language", pa.string()),
        ("speaker", pa.string()),
        ("units", pa.list_(pa.uint16())),
        ("sentence_ends", pa.list_(pa.int32())),
    ]
)
# What a tokenizer must say of itself for a store to be made with it.
TOKENIZER_FIELDS = (
    "identity",
    "vocabulary_size",
    "frame_rate",
    "deduplicated",
    "config",
)


def _shard_name(index):
    return f"units-{index:05d}.arrow"


def read_json(path):
    """Read a JSON file; one that is torn or damaged is named.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    object
        Its content.

    Raises
    ------
    ValueError
        If it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def pin_plan(folder, plan, shards):
    """Write down what a folder will hold, or refuse one begun otherwise.

    Arguments
    ---------
    folder : str or Path
        Made where it is missing; gets ``plan.json``.
    plan : dict
        All that decides the folder's content. JSON can hold it.
    shards : str
        Pattern of the files that need a plan to be understood.

    Raises
    ------
    ValueError
        If the folder has another plan (the message names the fields), or
        such files but no plan. Nothing is changed.
    """
    path = Path(folder) / PLAN_JSON
    if path.is_file():
        lines = difference(plan, read_json(path))
        if lines:
            raise ValueError(
                f"{folder} was begun with another configuration ("
                + "; ".join(lines)
                + "). Choose another folder, or remove this one to start over."
            )
        return
    stray = sorted(Path(folder).glob(shards))
    if stray:
        raise ValueError(
            f"{folder} holds {stray[0].name} but no {PLAN_JSON}, so nothing "
            "says what made it; choose another folder or remove this one"
        )
    write_json(path, plan)


class StoreWriter:
    """Write a store shard by shard; any process, any order, any restart.

    Arguments
    ---------
    folder : str or Path
        The store's folder.
    tokenizer : dict
        The tokenizer's own words: ``identity`` (str), ``vocabulary_size``
        (int, at most 65,536), ``frame_rate`` (Hz, before de-duplication),
        ``deduplicated`` (bool) and ``config`` (dict).
    source : str
        Identity of what is tokenized (the manifest).
    num_shards : int
        In how many files the store comes.

    Raises
    ------
    ValueError
        If the folder holds shards of another tokenizer, source or number of
        shards: the message names the field. Nothing is changed.

    Example
    -------
    >>> tokenizer = dict(identity="1a", vocabulary_size=5, frame_rate=25.0,
    ...                  deduplicated=True, config={})
    >>> folder = getfixture("tmp_path")
    >>> writer = StoreWriter(folder, tokenizer, source="2b", num_shards=1)
    >>> writer.write(0, [("s0", "en", "alto", [[1, 2], [4]])])
    >>> writer.finish()["counts"]
    {'en': {'stories': 1, 'sentences': 2, 'units': 3}}
    >>> writer.missing()
    []
    """

    def __init__(self, folder, tokenizer, source, num_shards):
        absent = [key for key in TOKENIZER_FIELDS if key not in tokenizer]
        if absent:
            raise ValueError(
                f"A tokenizer must state {', '.join(TOKENIZER_FIELDS)}; "
                f"missing: {', '.join(absent)}"
            )
        if not 0 < tokenizer["vocabulary_size"] <= 2**16:
            raise ValueError(
                f"vocabulary_size is {tokenizer['vocabulary_size']}; units are "
                "stored as uint16, so expected 1 to 65,536"
            )
        if num_shards < 1:
            raise ValueError(f"num_shards is {num_shards}; expected 1 or more")
        self.folder = Path(folder)
        self.num_shards = num_shards
        self.plan = {
            "format": FORMAT,
            "version": VERSION,
            "tokenizer": {key: tokenizer[key] for key in TOKENIZER_FIELDS},
            "source": source,
            "num_shards": num_shards,
        }
        pin_plan(self.folder, self.plan, "units-*.arrow")

    def missing(self):
        """Return the indexes of the shards that are not there yet.

        Returns
        -------
        list of int
            In rising order.
        """
        return [
            index
            for index in range(self.num_shards)
            if not (self.folder / _shard_name(index)).is_file()
        ]

    def write(self, index, rows):
        """Publish one shard, all of it or nothing.

        Arguments
        ---------
        index : int
            Which shard, 0 to ``num_shards - 1``.
        rows : iterable of tuple
            ``(story_id, language, speaker, sentences)``, where ``sentences``
            is a list of unit sequences.

        Raises
        ------
        ValueError
            If a unit is not an integer in ``[0, vocabulary_size)``: uint16
            would wrap it silently into another unit.
        """
        vocabulary_size = self.plan["tokenizer"]["vocabulary_size"]
        columns = {name: [] for name in SCHEMA.names}
        for story_id, language, speaker, sentences in rows:
            arrays = [np.asarray(sentence) for sentence in sentences]
            for number, array in enumerate(arrays):
                check_units(
                    array,
                    vocabulary_size,
                    f"{self.folder / _shard_name(index)}: story '{story_id}', "
                    f"language '{language}', sentence {number}",
                )
            columns["story_id"].append(story_id)
            columns["language"].append(language)
            columns["speaker"].append(speaker)
            columns["units"].append(np.concatenate(arrays).astype(np.uint16))
            ends = np.cumsum([len(array) for array in arrays])
            columns["sentence_ends"].append(ends.astype(np.int32))
        batch = pa.record_batch(columns, schema=SCHEMA)
        with (
            atomic_path(self.folder / _shard_name(index)) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, SCHEMA) as writer,
        ):
            writer.write_batch(batch)

    def finish(self):
        """Write ``store.json``, which makes the folder a store.

        Returns
        -------
        dict
            Its content.

        Raises
        ------
        ValueError
            If shards are missing, or a (story, language) stands twice.
        """
        missing = self.missing()
        if missing:
            raise ValueError(
                f"{self.folder}: {len(missing)} of {self.num_shards} shards "
                f"are missing, first {_shard_name(missing[0])}; run the "
                "extraction again, it does only what is missing"
            )
        names = [_shard_name(index) for index in range(self.num_shards)]
        tables = [_map_file(self.folder / name) for name in names]
        info = {
            **self.plan,
            "counts": _counts(pa.concat_tables(tables), self.folder),
            "files": {name: sha256_file(self.folder / name) for name in names},
        }
        info["identity"] = identity_of(info)
        write_json(self.folder / STORE_JSON, info)
        return info


def check_units(array, vocabulary_size, where):
    """Refuse units that the store's uint16 would turn into other units.

    Arguments
    ---------
    array : numpy.ndarray
        Units of one sentence.
    vocabulary_size : int
        They must be in ``[0, vocabulary_size)``.
    where : str
        Named in the error.

    Raises
    ------
    ValueError
        If there are none, or one is not such an integer.
    """
    if array.size == 0:
        raise ValueError(f"{where}: no units; an empty sentence has no place")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{where}: units are {array.dtype}, expected integers")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= vocabulary_size:
        raise ValueError(
            f"{where}: unit {low if low < 0 else high} is outside "
            f"[0, {vocabulary_size}), the tokenizer's vocabulary"
        )


def _counts(table, folder):
    twice = table.group_by(["story_id", "language"]).aggregate(
        [([], "count_all")]
    )
    if len(twice) != len(table):
        raise ValueError(
            f"{folder}: {len(table) - len(twice)} (story, language) pair(s) "
            "stand more than once; expected one row each"
        )
    counts = {}
    for language in sorted(set(table["language"].to_pylist())):
        rows = table.filter(pa.compute.equal(table["language"], language))
        lengths = pa.compute.list_value_length
        counts[language] = {
            "stories": len(rows),
            "sentences": pa.compute.sum(lengths(rows["sentence_ends"])).as_py(),
            "units": pa.compute.sum(lengths(rows["units"])).as_py(),
        }
    return counts


def _map_file(path):
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


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
        try:
            table = _map_file(path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if not table.schema.equals(SCHEMA):
            raise ValueError(
                f"{path}: its columns are {table.schema.names}, expected "
                f"{SCHEMA.names}"
            )
        tables.append(table)
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
        raise ValueError(f"{folder} is damaged: " + "; ".join(wrong))
    return info
