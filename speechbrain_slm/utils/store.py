"""Write a unit store; ``store_format.py`` says what it is."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.utils.atomic import write_atomic, write_json
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.jobs import pin
from speechbrain_slm.utils.scratch import DIGEST, changes, digests, scratch
from speechbrain_slm.utils.store_content import counts_of
from speechbrain_slm.utils.store_format import (
    FORMAT,
    SCHEMAS,
    STORE_JSON,
    TOKENIZER_FIELDS,
    VERSION,
    map_file,
    schema,
    verify,
    write_file,
)


def _shard_name(index):
    return f"units-{index:05d}.arrow"


class StoreWriter:
    """Write a store shard by shard; any process, any order, any restart.

    Arguments
    ---------
    tokenizer
        The tokenizer's own words: ``identity`` (str), ``vocabulary_size``
        (int, at most 65,536), ``frame_rate`` (Hz, before de-duplication),
        ``deduplicated`` (bool) and ``config`` (dict).
    source : Identity of what is tokenized (the manifest).
    num_shards : In how many files the store comes.
    stories_per_shard
        What decides which story goes to which file. Pinned with the rest:
        files of another cut would leave stories out, or hold them twice.

    Raises
    ------
    ValueError
        If the folder holds shards of another tokenizer, source or cut: the
        message names the field. Nothing is changed.

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

    def __init__(
        self,
        folder: str | Path,
        tokenizer: dict,
        source: str,
        num_shards: int,
        stories_per_shard: int | None = None,
    ) -> None:
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
            "stories_per_shard": stories_per_shard,
        }
        pin(self.folder, self.plan, "units-*.arrow")

    def _sum(self, index):
        # Beside the shard until store.json tells it.
        return self.folder / f"{_shard_name(index)}.sha256"

    def _is_whole(self, index):
        path, told = self.folder / _shard_name(index), self._sum(index)
        if (self.folder / STORE_JSON).is_file():
            return path.is_file()
        return (
            path.is_file()
            and told.is_file()
            and told.read_text("utf-8", "replace") == sha256_file(path)
        )

    def missing(self) -> list[int]:
        """Return the indexes of the shards that are not there yet.

        A shard that is not what was written counts as missing.

        Returns
        -------
        In rising order.
        """
        return [
            index
            for index in range(self.num_shards)
            if not self._is_whole(index)
        ]

    def write(self, index: int, rows: Iterable[tuple]) -> None:
        """Publish one shard, all of it or nothing.

        Arguments
        ---------
        index : Which shard, 0 to ``num_shards - 1``.
        rows
            ``(story_id, language, speaker, sentences)``, where ``sentences``
            is a list of unit sequences.

        Raises
        ------
        ValueError
            If a unit is not an integer in ``[0, vocabulary_size)``: uint16
            would wrap it silently into another unit.
        """
        vocabulary_size = self.plan["tokenizer"]["vocabulary_size"]
        columns = {name: [] for name in SCHEMAS[0].names}
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
            columns["sentence_ends"].append(ends)
        longest = max(
            (ends[-1] for ends in columns["sentence_ends"]), default=0
        )
        self.publish(index, pa.record_batch(columns, schema=schema(longest)))

    def publish(self, index: int, batch: pa.RecordBatch) -> None:
        """Publish the rows of a shard, which nobody looks at, and their sum."""
        digest = write_file(self.folder / _shard_name(index), batch)
        write_atomic(self._sum(index), digest)

    def finish(self, num_rows: int | None = None) -> dict:
        """Write ``store.json``, which makes the folder a store.

        Where there is one already, the store is checked and nothing written.

        Arguments
        ---------
        num_rows : How many rows, each a story in a language, must be there.

        Returns
        -------
        Its content.

        Raises
        ------
        ValueError
            If shards are missing, a (story, language) stands twice, or the
            number of rows is another.
        """
        if (self.folder / STORE_JSON).is_file():
            return verify(self.folder)
        missing = self.missing()
        if missing:
            raise ValueError(
                f"{self.folder}: {len(missing)} of {self.num_shards} shards "
                f"are missing or damaged, first {_shard_name(missing[0])}; run "
                "the extraction again, it does only what is missing"
            )
        names = [_shard_name(index) for index in range(self.num_shards)]
        tables = [map_file(self.folder / name, *SCHEMAS) for name in names]
        found = sum(map(len, tables))
        if num_rows not in (None, found):
            raise ValueError(
                f"{self.folder}: its shards hold {found} rows, each a "
                f"story in a language; expected {num_rows}. Remove the folder "
                "and run the units recipe again."
            )
        _refuse_twice(tables, self.folder)
        info = {
            **self.plan,
            "counts": counts_of(tables),
            # Of what was written, not of what became of it.
            "files": {
                name: self._sum(index).read_text("utf-8")
                for index, name in enumerate(names)
            },
        }
        info["identity"] = identity_of(info)
        write_json(self.folder / STORE_JSON, info)
        for index in range(self.num_shards):
            self._sum(index).unlink()
        return info


def check_units(array: np.ndarray, vocabulary_size: int, where: str) -> None:
    """Refuse units that the store's uint16 would turn into other units.

    Arguments
    ---------
    vocabulary_size : They must be in ``[0, vocabulary_size)``.

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


def _refuse_twice(tables, folder):
    """Refuse a (story, language) that stands twice, in flat memory."""
    pairs, start = scratch(sum(map(len, tables)), DIGEST), 0
    for batch in (batch for table in tables for batch in table.to_batches()):
        names = batch["story_id"], batch["language"]
        pair = pc.binary_join_element_wise(*names, "\0")
        pairs[start : start + len(batch)] = digests(pair)
        start += len(batch)
    pairs.sort()
    twice = len(pairs) - np.count_nonzero(changes(pairs))
    if twice:
        raise ValueError(
            f"{folder}: {twice} (story, language) pair(s) stand more than "
            "once; expected one row each"
        )
