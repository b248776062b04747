"""Read a unit store: aligned stories over memory-mapped arrays."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.utils.distributed import is_main
from speechbrain_slm.utils.store_format import read_tables, verify


def ranges(starts, lengths):
    """Concatenate integer ranges without a Python loop.

    Arguments
    ---------
    starts : numpy.ndarray
        First value of each range, shape ``[N]``.
    lengths : numpy.ndarray
        How many values each has, shape ``[N]``.

    Returns
    -------
    numpy.ndarray
        int64, shape ``[sum(lengths)]``.

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

    Arguments
    ---------
    folder : str or Path
        A complete store (see ``speechbrain_slm.utils.store_format``).

    Attributes
    ----------
    info : dict
        The content of ``store.json``.
    languages : list of str
        In alphabetical order.
    story_ids : pyarrow.StringArray
        The stories, in the store's order.
    sentence_offsets : numpy.ndarray
        int64, shape ``[stories + 1]``.
    bases : numpy.ndarray
        Address of the first unit of each story, int64, shape ``[languages,
        stories]``; -1 where a story is not there in a language.
    ends : numpy.ndarray
        Where each sentence ends, counted from its story's first unit, int32,
        shape ``[languages, sentences]``; 0 where it is not there.

    Raises
    ------
    ValueError
        If a file is damaged, or a story's languages differ in their number of
        sentences.

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

    def __init__(self, folder):
        self.folder = str(folder)
        if is_main():
            # Once a run, and as fast as the disk: a flipped bit is a unit
            # that nobody said, or one that no embedding stands for.
            verify(folder)
        self.info, tables = read_tables(folder)
        self.languages = sorted(self.info["counts"])
        ids = pa.chunked_array([t["story_id"] for t in tables], pa.string())
        self.story_ids = pc.unique(ids)
        batches = [batch for table in tables for batch in table.to_batches()]
        self._values = [batch["units"].values.to_numpy() for batch in batches]
        sizes = [len(values) for values in self._values]
        self._chunks = np.cumsum([0, *sizes], dtype=np.int64)
        rows = [
            row
            for batch, base in zip(batches, self._chunks[:-1], strict=True)
            for row in self._rows_by_language(batch, base)
        ]
        self._count_sentences(rows)
        shape = (len(self.languages), len(self.story_ids))
        self.bases = np.full(shape, -1, dtype=np.int64)
        self.ends = np.zeros(
            (len(self.languages), self.sentence_offsets[-1]), dtype=np.int32
        )
        for language, stories, addresses, counts, ends in rows:
            self.bases[language, stories] = addresses
            where = ranges(self.sentence_offsets[stories], counts)
            self.ends[language, where] = ends

    def _rows_by_language(self, batch, base):
        """Yield (language, stories, addresses, counts, ends) of one batch."""
        stories = pc.index_in(batch["story_id"], self.story_ids).to_numpy()
        languages = pc.index_in(
            batch["language"], pa.array(self.languages)
        ).to_numpy()
        first_unit = batch["units"].offsets.to_numpy().astype(np.int64)
        offsets = batch["sentence_ends"].offsets.to_numpy().astype(np.int64)
        ends = batch["sentence_ends"].values.to_numpy()
        for language in range(len(self.languages)):
            picked = np.flatnonzero(languages == language)
            if len(picked):
                counts = np.diff(offsets)[picked]
                yield (
                    language,
                    stories[picked],
                    base + first_unit[picked],
                    counts,
                    ends[ranges(offsets[picked], counts)],
                )

    def _count_sentences(self, rows):
        sentences = np.zeros(len(self.story_ids), dtype=np.int64)
        for language, stories, _, counts, _ in rows:
            known = sentences[stories]
            uneven = np.flatnonzero((known > 0) & (known != counts))
            if len(uneven):
                row = uneven[0]
                raise ValueError(
                    f"{self.folder}: story "
                    f"'{self.story_ids[int(stories[row])]}' has {counts[row]} "
                    f"sentence(s) in '{self.languages[language]}' and "
                    f"{known[row]} in another language; aligned languages "
                    "need the same number. Align the manifest, then extract "
                    "the units again."
                )
            sentences[stories] = counts
        self.sentence_offsets = np.concatenate([[0], np.cumsum(sentences)])

    @property
    def identity(self):
        """Identity of the tokenizer that made the units (str)."""
        return self.info["tokenizer"]["identity"]

    @property
    def vocabulary_size(self):
        """Number of units that can occur (int)."""
        return self.info["tokenizer"]["vocabulary_size"]

    def lengths(self, language):
        """Return the number of units of every story in a language.

        Arguments
        ---------
        language : str
            One of ``languages``.

        Returns
        -------
        numpy.ndarray
            int64, shape ``[stories]``; 0 where a story is not there.
        """
        number = self.languages.index(language)
        return self.ends[number, self.sentence_offsets[1:] - 1].astype(np.int64)

    def gather(self, addresses, lengths):
        """Return units from any places of the store, in one array.

        Arguments
        ---------
        addresses : numpy.ndarray
            Where each piece begins, shape ``[N]``; no piece runs over the end
            of a story.
        lengths : numpy.ndarray
            Units in each piece, shape ``[N]``.

        Returns
        -------
        numpy.ndarray
            uint16, shape ``[sum(lengths)]``.
        """
        chunks = np.searchsorted(self._chunks, addresses, side="right") - 1
        local = ranges(addresses - self._chunks[chunks], lengths)
        present = np.unique(chunks)
        if len(present) == 1:
            return self._values[present[0]][local]
        owner = np.repeat(chunks, lengths)
        units = np.empty(len(local), dtype=np.uint16)
        for chunk in present:
            mask = owner == chunk
            units[mask] = self._values[chunk][local[mask]]
        return units

    def story(self, story_id, language):
        """Return one story in one language.

        Arguments
        ---------
        story_id : str
            The story.
        language : str
            The language.

        Returns
        -------
        list of numpy.ndarray
            The units of each sentence, uint16.

        Raises
        ------
        KeyError
            If the store does not hold it.
        """
        if not hasattr(self, "_numbers"):
            names = self.story_ids.to_pylist()
            self._numbers = {name: number for number, name in enumerate(names)}
        story = self._numbers.get(story_id, -1)
        if language in self.languages and story >= 0:
            number = self.languages.index(language)
            base = self.bases[number, story]
            if base >= 0:
                begin, end = self.sentence_offsets[story : story + 2]
                ends = self.ends[number, begin:end].astype(np.int64)
                units = self.gather(base[None], ends[-1:])
                return np.split(units, ends[:-1])
        raise KeyError(
            f"{self.folder} has no story '{story_id}' in '{language}'; it "
            f"holds {len(self.story_ids)} stories in "
            f"{', '.join(self.languages)}"
        )
