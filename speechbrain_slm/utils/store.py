"""Write a unit store; ``store_format.py`` says what it is."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.utils import store_format
from speechbrain_slm.utils.atomic import write_atomic, write_json
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.jobs import pin
from speechbrain_slm.utils.scratch import DIGEST, changes, digests, scratch
from speechbrain_slm.utils.store_format import SCHEMAS, STORE_JSON, counts_of


class StoreWriter:
    """Write a store shard by shard; any process, any order, any restart.

    ValueError, which names the field, if the folder was begun otherwise.

    Arguments
    ---------
    tokenizer : Its own words, all of ``TOKENIZER_FIELDS``.
    source : Identity of what is tokenized (the manifest).
    stories_per_shard
        What decides which story goes to which file: files of another cut
        would leave stories out, or hold them twice.

    Example
    -------
    >>> tokenizer = dict(identity="1a", vocabulary_size=5, frame_rate=25.0,
    ...                  deduplicated=True, config={})
    >>> folder = getfixture("tmp_path")
    >>> writer = StoreWriter(folder, tokenizer, source="2b", num_shards=1)
    >>> writer.write(0, [("s0", "en", "alto", [[1, 2], [4]])])
    >>> writer.finish()["counts"]
    {'en': {'stories': 1, 'sentences': 2, 'units': 3}}
    """

    def __init__(
        self,
        folder: str | Path,
        tokenizer: dict,
        source: str,
        num_shards: int,
        stories_per_shard: int | None = None,
    ) -> None:
        self.vocabulary_size = tokenizer["vocabulary_size"]
        if not 0 < self.vocabulary_size <= 2**16:
            raise ValueError(
                f"vocabulary_size is {self.vocabulary_size}; units are "
                "stored as uint16, so expected 1 to 65,536"
            )
        self.folder = Path(folder)
        self.names = [f"units-{n:05d}.arrow" for n in range(num_shards)]
        fields = store_format.TOKENIZER_FIELDS
        self.pinned = {
            "format": store_format.FORMAT,
            "version": store_format.VERSION,
            "tokenizer": {name: tokenizer[name] for name in fields},
            "source": source,
            "num_shards": num_shards,
            "stories_per_shard": stories_per_shard,
        }
        pin(self.folder, self.pinned, "units-*.arrow")

    def _sum(self, name):
        # Beside a shard, until store.json tells it. It is of what was written,
        # not of what became of it: so damage before the end is found, too.
        return self.folder / f"{name}.sha256"

    def _told(self, name):
        path = self._sum(name)
        return path.read_text("utf-8", "replace") if path.is_file() else ""

    def missing(self) -> list[int]:
        """Return the indexes of the shards that are not there as written."""
        finished = (self.folder / STORE_JSON).is_file()

        def is_whole(name):
            path = self.folder / name
            return path.is_file() and (
                finished or self._told(name) == sha256_file(path)
            )

        return [n for n, name in enumerate(self.names) if not is_whole(name)]

    def write(self, index: int, rows: Iterable[tuple]) -> None:
        """Publish one shard, all of it or nothing.

        Rows are ``(story_id, language, speaker, sentences)``, with a list of
        unit sequences; ValueError for what :func:`check_units` refuses.
        """
        path = self.folder / self.names[index]
        found = []
        for story_id, language, speaker, sentences in rows:
            arrays = list(map(np.asarray, sentences))
            story = f"{path}: story '{story_id}', language '{language}'"
            for n, array in enumerate(arrays):
                size, where = self.vocabulary_size, f"{story}, sentence {n}"
                check_units(array, size, where)
            ends = np.cumsum(list(map(len, arrays)))
            units = np.concatenate(arrays).astype(np.uint16)
            found.append((story_id, language, speaker, units, ends))
        longest = max((len(row[3]) for row in found), default=0)
        schema = store_format.schema(longest)
        columns = [[row[n] for row in found] for n in range(len(schema))]
        self.publish(index, pa.record_batch(columns, schema=schema))

    def publish(self, index: int, batch: pa.RecordBatch) -> None:
        """Publish the rows of a shard, which nobody looks at, and their sum."""
        name = self.names[index]
        digest = store_format.write_file(self.folder / name, batch)
        write_atomic(self._sum(name), digest)

    def finish(self, num_rows: int | None = None) -> dict:
        """Write ``store.json``, which makes the folder a store; return it.

        Where there is one already, the store is checked and nothing written.
        ValueError if shards are missing, a (story, language) stands twice, or
        the number of rows, each a story in a language, is not ``num_rows``.
        """
        if (self.folder / STORE_JSON).is_file():
            info, _ = store_format.read_tables(self.folder)
            self._forget_sums()  # A kill may have come between.
            return info
        if missing := self.missing():
            raise ValueError(
                f"{self.folder}: {len(missing)} of {len(self.names)} shards "
                f"are missing or damaged, first {self.names[missing[0]]}; run "
                "the extraction again, it does only what is missing"
            )
        paths = [self.folder / name for name in self.names]
        tables = [store_format.map_file(path, *SCHEMAS) for path in paths]
        found = sum(map(len, tables))
        if num_rows not in (None, found):
            raise ValueError(
                f"{self.folder}: its shards hold {found} rows, each a story in "
                f"a language; expected {num_rows}. Remove it and extract again."
            )
        _refuse_twice(tables, self.folder)
        info = {
            **self.pinned,
            "counts": counts_of(tables),
            "files": {name: self._told(name) for name in self.names},
        }
        info["identity"] = identity_of(info)
        write_json(self.folder / STORE_JSON, info)
        self._forget_sums()
        return info

    def _forget_sums(self):
        for name in self.names:
            self._sum(name).unlink(missing_ok=True)


def check_units(array: np.ndarray, vocabulary_size: int, where: str) -> None:
    """Refuse units that the store's uint16 would turn into others, or none."""
    if array.size == 0:
        raise ValueError(f"{where}: no units; an empty sentence has no place")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: units are {array.dtype} {[*array.shape]}, expected "
            "integers [U]"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= vocabulary_size:
        raise ValueError(
            f"{where}: unit {low if low < 0 else high} is outside "
            f"[0, {vocabulary_size}), the tokenizer's vocabulary"
        )


def _refuse_twice(tables, folder):
    # Twelve bytes a row, sorted in a file: memory does not grow with the store.
    pairs, end = scratch(sum(map(len, tables)), DIGEST), 0
    for batch in (batch for table in tables for batch in table.to_batches()):
        names = batch["story_id"], batch["language"]
        start, end = end, end + len(batch)
        pairs[start:end] = digests(pc.binary_join_element_wise(*names, "\0"))
    pairs.sort()
    twice = len(pairs) - np.count_nonzero(changes(pairs))
    if twice:
        raise ValueError(
            f"{folder}: {twice} (story, language) pair(s) stand more than "
            "once; expected one row each"
        )
