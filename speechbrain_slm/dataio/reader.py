"""Read a unit store: aligned stories over memory-mapped arrays."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.utils.distributed import is_main
from speechbrain_slm.utils.store_format import read_tables

_ROWS = 1 << 16


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenate integer ranges, ``[N]``, without a Python loop.

    Example
    -------
    >>> ranges(np.array([5, 1]), np.array([2, 3])).tolist()
    [5, 6, 1, 2, 3]
    """
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


class UnitStore:
    """The stories of a store, the same sentence found in every language.

    Sentence ``j`` of story ``s`` has number ``sentence_offsets[s] + j`` in
    every language. Resident memory is 4 bytes a sentence and language, and 8
    bytes a story and language; the units stay on the disk.

    Example
    -------
    >>> from speechbrain_slm.utils.store import StoreWriter
    >>> tokenizer = dict(identity="1a", vocabulary_size=9, frame_rate=25.0,
    ...                  deduplicated=True, config={})
    >>> folder = getfixture("tmp_path")
    >>> writer = StoreWriter(folder, tokenizer, source="2b", num_shards=1)
    >>> writer.write(0, [("s0", "en", "alto", [[1, 2], [4]]),
    ...                  ("s0", "fr", "alto", [[5], [6, 7]])])
    >>> _ = writer.finish()
    >>> store = UnitStore(folder)
    >>> store.languages, [s.tolist() for s in store.story("s0", "fr")]
    (['en', 'fr'], [[5], [6, 7]])
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = str(folder)
        # Once a run, and as fast as the disk: a flipped bit is a unit that
        # nobody said, or one that no embedding stands for.
        self.info, tables = read_tables(folder, check=is_main())
        self.languages = sorted(self.info["counts"])
        tokenizer = self.info["tokenizer"]  # that made the units
        self.identity: str = tokenizer["identity"]
        self.vocabulary_size: int = tokenizer["vocabulary_size"]
        batches = [b for t in tables for b in t.to_batches() if len(b)]
        # The names are hashed once: a lookup for each batch would do it again.
        self._names = pa.chunked_array(
            [batch["story_id"] for batch in batches], pa.string()
        )
        encoded = self._names.dictionary_encode()
        self.num_stories = len(encoded.chunk(len(batches) - 1).dictionary)
        self._batches = batches
        self._values = [batch["units"].values.to_numpy() for batch in batches]
        sizes = [len(values) for values in self._values]
        self._chunks = np.cumsum([0, *sizes], dtype=np.int64)
        names = pa.array(self.languages)
        numbers = [pc.index_in(batch["language"], names) for batch in batches]
        rows = [
            (chunk.indices.to_numpy(), number.to_numpy().astype(np.int8))
            for chunk, number in zip(encoded.chunks, numbers, strict=True)
        ]
        # Sentence j of story s is sentence_offsets[s] + j in every language.
        self.sentence_offsets = self._count_sentences(rows)
        # Address of the first unit of each story, [languages, stories]; -1
        # where a story is not there in a language.
        shape = len(self.languages), self.num_stories
        self.bases = np.full(shape, -1, dtype=np.int64)
        # Where each sentence ends, counted from its story's first unit,
        # [languages, sentences]; 0 where it is not there.
        shape = len(self.languages), self.sentence_offsets[-1]
        self.ends = np.zeros(shape, dtype=np.int32)
        for batch, base, place in zip(
            batches, self._chunks, rows, strict=False
        ):
            self._place(batch, base, *place)
        del encoded, rows
        # Arrow would keep what it needed for a while, several times as much
        # as what stays.
        pa.default_memory_pool().release_unused()

    @functools.cached_property
    def story_ids(self) -> pa.StringArray:
        """The stories, in the store's order."""
        return pc.unique(self._names)

    @functools.cached_property
    def _story_numbers(self) -> dict[str, int]:
        return {name: n for n, name in enumerate(self.story_ids.to_pylist())}

    def speakers(self) -> dict[tuple[str, str], str]:
        """Return who tells what: (story, language) -> speaker.

        Where several speakers tell a story the store has an empty name, which
        must not pass for one voice.
        """
        names, found = ("story_id", "language", "speaker"), {}
        for batch in self._batches:
            columns = (batch[name].to_pylist() for name in names)
            for story, language, speaker in zip(*columns, strict=True):
                found[story, language] = speaker
        return found

    def _count_sentences(
        self, rows: list[tuple[np.ndarray, np.ndarray]]
    ) -> np.ndarray:
        sentences = np.zeros(self.num_stories, dtype=np.int64)
        lists = [batch["sentence_ends"] for batch in self._batches]
        for ends, (stories, languages) in zip(lists, rows, strict=True):
            counts = np.diff(ends.offsets.to_numpy())
            for number, language in enumerate(self.languages):
                picked = np.flatnonzero(languages == number)
                known = sentences[stories[picked]]
                uneven = (known > 0) & (known != counts[picked])
                if uneven.any():
                    row = picked[uneven.argmax()]
                    story = int(stories[row])
                    raise ValueError(
                        f"{self.folder}: story '{self.story_ids[story]}' has "
                        f"{counts[row]} sentence(s) in '{language}' and "
                        f"{sentences[story]} in another language; aligned "
                        "languages need the same number. Align the manifest, "
                        "then extract the units again."
                    )
                sentences[stories[picked]] = counts[picked]
        return np.concatenate([[0], np.cumsum(sentences)])

    def _place(
        self,
        batch: pa.RecordBatch,
        base: int,
        stories: np.ndarray,
        languages: np.ndarray,
    ) -> None:
        """Note where the stories of a batch and their sentences stand."""
        first_unit = batch["units"].offsets.to_numpy().astype(np.int64)[:-1]
        self.bases[languages, stories] = base + first_unit
        offsets = batch["sentence_ends"].offsets.to_numpy().astype(np.int64)
        ends = batch["sentence_ends"].values.to_numpy()
        # A slice of the rows at a time: the indexes of all sentences of a
        # large store would weigh more than the store's own index.
        for begin in range(0, len(stories), _ROWS):
            part = slice(begin, begin + _ROWS)
            counts = np.diff(offsets[begin : begin + _ROWS + 1])
            owner = np.repeat(languages[part], counts)
            where = ranges(self.sentence_offsets[stories[part]], counts)
            self.ends[owner, where] = ends[ranges(offsets[:-1][part], counts)]

    def longest_sentence(self, languages: Sequence[str]) -> int:
        """Return the number of units of the longest sentence in some."""
        first, longest = self.sentence_offsets[:-1], 0
        for language in languages:
            ends = self.ends[self.languages.index(language)]
            lengths = np.diff(ends, prepend=np.int32(0))
            lengths[first] = ends[first]
            longest = max(longest, int(lengths.max()))
        return longest

    def gather(
        self,
        addresses: np.ndarray,
        lengths: np.ndarray,
        out: np.ndarray,
        places: np.ndarray,
    ) -> None:
        """Copy units from any places of the store to any places of an array.

        Arguments
        ---------
        addresses, lengths
            Where each piece begins, and its units, ``[N]``; none runs over the
            end of a story.
        out, places : Gets the units, from these places on.
        """
        if not len(addresses):
            return
        if len(self._values) == 1:
            values = self._values[0]
            out[ranges(places, lengths)] = values[ranges(addresses, lengths)]
            return
        chunks = np.searchsorted(self._chunks, addresses, side="right") - 1
        local = addresses - self._chunks[chunks]
        # Sorted by pieces, of which there are far fewer than units.
        order = np.argsort(chunks, kind="stable")
        edges = np.flatnonzero(np.diff(chunks[order])) + 1
        for pieces in np.split(order, edges):
            values = self._values[chunks[pieces[0]]]
            size = lengths[pieces]
            out[ranges(places[pieces], size)] = values[
                ranges(local[pieces], size)
            ]

    def story(self, story_id: str, language: str) -> list[np.ndarray]:
        """Return the units (uint16) of each sentence; KeyError without it."""
        story = self._story_numbers.get(story_id, -1)
        if language in self.languages and story >= 0:
            number = self.languages.index(language)
            base = self.bases[number, story]
            if base >= 0:
                begin, end = self.sentence_offsets[story : story + 2]
                ends = self.ends[number, begin:end].astype(np.int64)
                units = np.empty(ends[-1], dtype=np.uint16)
                self.gather(base[None], ends[-1:], units, np.zeros(1, int))
                return np.split(units, ends[:-1])
        raise KeyError(
            f"{self.folder} has no story '{story_id}' in '{language}'; it "
            f"holds {self.num_stories} in {', '.join(self.languages)}"
        )


def open_stores(
    sources: dict, units_folder: str | Path, split: str
) -> dict[str, UnitStore]:
    """Open the unit store of each of a recipe's sources, each folder once.

    Where a source's settings name no ``units_folder``, it is the recipe's own,
    which has a folder for every split.
    """
    folders = {
        name: f"{settings.get('units_folder', units_folder)}/{split}"
        for name, settings in sources.items()
    }
    stores = {folder: UnitStore(folder) for folder in {*folders.values()}}
    return {name: stores[folder] for name, folder in folders.items()}
