"""A source of training tokens: stories of a store, in some languages."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from speechbrain_slm.dataio.interleaving import (
    as_uniform,
    hash_integers,
    language_paths,
)
from speechbrain_slm.dataio.reader import UnitStore, ranges
from speechbrain_slm.dataio.stream import Stream
from speechbrain_slm.utils.numbers import check_number

# Keys beside (seed, epoch), so that the order of the stories, their language
# paths and their partners are drawn from different streams; beside the seed,
# which stories are aligned, and the language of the others.
_ORDER = 0x0DE2
_PARTNERS = 0x5A1F
_ALIGNED = 0xA115


class Source:
    """Stories, and how they are told in every epoch.

    An epoch is one pass over the stories, in an order drawn for it; a story
    is told sentence by sentence, each in the language of its path. All of it
    is a function of (store, settings, seed, epoch), never of what was asked
    for before.

    Arguments
    ---------
    languages
        One language: whole stories. Several: interleaved stories; one that
        is there in some of them only is told in those.
    switch_probability
        See :func:`speechbrain_slm.dataio.interleaving.language_paths`. A
        dictionary is a curriculum: tokens of this source -> probability,
        linear in between.
    span : Sentences that a language keeps at least.
    shuffle_alignment
        For controls: each language tells another story of the same number of
        sentences, drawn for every epoch.
    aligned_share
        For controls: the share of stories that are there in all of the
        languages. Each other one is told in a single one of those that it
        has, drawn by (seed, story) for good.
    tags
        Id of each language's tag, put before a story's first sentence and
        wherever the language changes.
    """

    def __init__(
        self,
        store: UnitStore,
        languages: Sequence[str],
        switch_probability: float | dict = 0.5,
        span: int = 1,
        shuffle_alignment: bool = False,
        aligned_share: float = 1.0,
        seed: int = 0,
        tags: Sequence[int] | None = None,
    ) -> None:
        absent = [name for name in languages if name not in store.languages]
        if absent or not languages:
            raise ValueError(
                f"A source asks for language(s) {absent or list(languages)}; "
                f"{store.folder} holds {', '.join(store.languages)}"
            )
        if len(set(languages)) != len(languages):
            raise ValueError(f"A source names a language twice: {languages}")
        check_number("span", span, at_least=1, whole=True)
        check_number("aligned_share", aligned_share, at_least=0, at_most=1)
        self.store, self.languages = store, list(languages)
        self.span, self.seed = span, seed
        self.tags = None if tags is None else np.asarray(tags)
        # What is counted: units of each language, and the rest.
        self.columns = [*languages, "boundary", "tag", "sentences", "switches"]
        self._numbers = np.array([store.languages.index(n) for n in languages])
        held = present = store.bases[self._numbers] >= 0
        if aligned_share < 1 and len(languages) > 1:
            present = held & self._kept(held, aligned_share)
        self._stories = np.flatnonzero(present.any(axis=0)).astype(np.int32)
        self.num_stories = len(self._stories)
        self.num_partial = self.num_stories - int(present.all(axis=0).sum())
        self._available = None
        if self.num_partial:
            # The languages that a story has, before those that it lacks.
            self._available = np.argsort(~present.T, axis=1, kind="stable")
            self._available = self._available.astype(np.int8)
            self._num_available = present.sum(axis=0)
        self._knots = self._curriculum(switch_probability, int(held.sum()))
        shuffled = shuffle_alignment and len(languages) > 1
        self._classes = self._partner_classes(present) if shuffled else None
        self.order = functools.lru_cache(maxsize=1)(self._make_order)

    def _kept(self, held: np.ndarray, aligned_share: float) -> np.ndarray:
        """Draw in which languages a story may be told, bool ``[L, N]``."""
        stories = np.arange(held.shape[1])
        keys = self.seed, _ALIGNED, stories
        aligned = as_uniform(hash_integers(*keys, 0)) < aligned_share
        # Of the languages that a story has, the one with the highest draw.
        numbers = np.arange(len(held))[:, None]
        draws = as_uniform(hash_integers(*keys, 1 + numbers)) + held
        return aligned | (draws.argmax(axis=0) == numbers)

    def _curriculum(
        self, probability: float | dict, told: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return stories told, and the probability at each; linear between."""
        is_dict = isinstance(probability, dict)
        knots: Any = probability if is_dict else {0: probability}
        for tokens, value in knots.items():
            check_number("switch_probability", value, at_least=0, at_most=1)
            check_number("switch_probability's token", tokens, at_least=0)
        if not knots:
            raise ValueError("switch_probability is an empty curriculum")
        # A curriculum is given in tokens; a path is drawn a story. A story has
        # its units, on average, and a boundary.
        counts = self.store.info["counts"]
        units = sum(counts[name]["units"] for name in self.languages)
        positions, values = np.array(sorted(knots.items()), dtype=float).T
        return positions / (units / told + 1), values

    def _partner_classes(self, present: np.ndarray) -> tuple[np.ndarray, ...]:
        """Group the stories that can stand for each other."""
        stories = self._stories
        sizes = np.diff(self.store.sentence_offsets)[stories]
        masks = (1 << np.arange(len(present))) @ present[:, stories]
        # A class: as many sentences, in the same languages.
        _, group, counts = np.unique(
            (sizes << len(present)) + masks,
            return_inverse=True,
            return_counts=True,
        )
        members = stories[np.argsort(group, kind="stable")]
        place = np.empty(self.store.num_stories, dtype=np.int64)
        place[members] = np.arange(len(members))
        return (
            members,
            place,
            np.sort(group),
            np.cumsum(counts) - counts,
            counts,
        )

    def _partners(
        self, stories: np.ndarray, languages: np.ndarray, epoch: int
    ) -> np.ndarray:
        """Return which story each sentence is taken from.

        Language ``l`` takes the story ``l * k`` places on in its class, with
        ``k`` drawn for the class and epoch: no two languages tell the same
        one, wherever the class has as many stories as there are languages.
        """
        assert self._classes is not None
        members, place, group, firsts, counts = self._classes
        mine = group[place[stories]]
        size = counts[mine]
        most = (size - 1) // (len(self.languages) - 1)
        draws = hash_integers(self.seed, epoch, _PARTNERS, mine)
        drawn = 1 + (draws >> np.uint64(1)).astype(int) % np.maximum(most, 1)
        steps = np.where(most > 0, drawn, 0)
        inside = place[stories] - firsts[mine] + languages * steps
        return members[firsts[mine] + inside % size]

    def _make_order(self, epoch: int) -> np.ndarray:
        bits = np.random.Philox([self.seed, epoch, _ORDER])
        return np.random.Generator(bits).permutation(self._stories)

    def _paths(
        self,
        epoch: int,
        positions: np.ndarray,
        stories: np.ndarray,
        counts: np.ndarray,
    ) -> np.ndarray:
        """Draw the language of every sentence, as a number in the source."""
        knots, values = self._knots
        probability = values[0]
        if len(knots) > 1:
            told = epoch * self.num_stories + positions
            probability = np.interp(told, knots, values)
        how = (probability, self.span, self.seed, epoch)
        if self._available is None:
            many = len(self.languages)
            return language_paths(stories, counts, many, *how)
        among = self._num_available[stories]
        paths = language_paths(stories, counts, among, *how)
        return self._available[np.repeat(stories, counts), paths].astype(int)

    def tell(
        self,
        epoch: int,
        positions: np.ndarray,
        first: np.ndarray | None = None,
        number: np.ndarray | None = None,
    ) -> Stream:
        """Lay out the stories at some places, ``[N]``, of an epoch's order.

        Of each, that is ``number`` sentences from ``first`` on; all by default.
        """
        store = self.store
        stories = self.order(epoch)[positions]
        begin = store.sentence_offsets[stories]
        counts = store.sentence_offsets[stories + 1] - begin
        heads = np.cumsum(counts) - counts
        sentences = ranges(begin, counts)
        owners = np.repeat(stories, counts)
        if len(self.languages) == 1:
            paths = np.zeros(len(sentences), dtype=np.int64)
            changed = np.zeros(len(sentences), dtype=bool)
        else:
            paths = self._paths(epoch, positions, stories, counts)
            changed = np.diff(paths, prepend=paths[:1]) != 0
            changed[heads] = False
        if self._classes is not None:
            inside = sentences - np.repeat(begin, counts)
            owners = self._partners(owners, paths, epoch)
            sentences = store.sentence_offsets[owners] + inside
        numbers = self._numbers[paths]
        # By flat numbers: NumPy finds them faster than pairs of indexes.
        where = numbers * store.ends.shape[1] + sentences
        ends = store.ends.ravel()
        # A sentence begins where the one before it in its language ends; of a
        # story's first one that is another story's.
        begins = ends[where - 1].astype(np.int64)
        begins[heads] = 0
        lengths = ends[where] - begins
        where = numbers * store.bases.shape[1] + owners
        addresses = store.bases.ravel()[where] + begins
        if first is not None and number is not None:
            kept = ranges(heads + first, number)
            heads = np.cumsum(number) - number
            changed = changed[kept]
            changed[heads] = False
            paths, addresses = paths[kept], addresses[kept]
            lengths = lengths[kept]
        return Stream(self, heads, paths, addresses, lengths, changed)
