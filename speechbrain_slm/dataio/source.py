"""A source of training tokens: stories of a store, in some languages."""

import functools

import numpy as np

from speechbrain_slm.dataio.interleaving import language_paths
from speechbrain_slm.dataio.reader import ranges

# A key beside (seed, epoch), so that the order of the stories and their
# language paths are drawn from different streams.
_ORDER = 0x0DE2


class Source:
    """An endless stream of tokens, addressed by position.

    Epoch after epoch, the stories stand in an order drawn for the epoch, each
    as ``boundary, sentence, sentence, ...`` with every sentence in the
    language of its path. Position ``i`` always holds the same token, and rows
    are cut from the stream without a gap: no unit is lost or doubled.

    Arguments
    ---------
    store : speechbrain_slm.dataio.reader.UnitStore
        The stories.
    boundary : int
        Id of the symbol before each story.
    languages : sequence of str
        One language: whole stories. Several: stories that are there in all
        of them, interleaved.
    switch_probability : float
        See :func:`speechbrain_slm.dataio.interleaving.language_paths`.
    span : int
        Sentences that a language keeps at least.
    seed : int
        Seed of the run.

    Raises
    ------
    ValueError
        If the store lacks a language, holds no story in all of them, or a
        value is out of range.
    """

    def __init__(
        self,
        store,
        boundary,
        languages,
        switch_probability=0.5,
        span=1,
        seed=0,
    ):
        absent = [name for name in languages if name not in store.languages]
        if absent or not languages:
            raise ValueError(
                f"A source asks for language(s) {absent or list(languages)}; "
                f"{store.folder} holds {', '.join(store.languages)}"
            )
        if len(set(languages)) != len(languages):
            raise ValueError(f"A source names a language twice: {languages}")
        if not 0.0 <= switch_probability <= 1.0:
            raise ValueError(
                f"switch_probability is {switch_probability}; expected 0 to 1"
            )
        if span < 1:
            raise ValueError(f"span is {span}; expected 1 or more sentences")
        self.store = store
        self.boundary = boundary
        self.languages = list(languages)
        self.switch_probability = switch_probability
        self.span = span
        self.seed = seed
        self._numbers = np.array([store.languages.index(n) for n in languages])
        present = (store.bases[self._numbers] >= 0).all(axis=0)
        self.stories = np.flatnonzero(present)
        if not len(self.stories):
            raise ValueError(
                f"{store.folder} holds no story in all of "
                f"{', '.join(languages)}"
            )
        self._epoch_starts = [0]
        # Two epochs: a row may stand across the end of one.
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)

    def _sentences(self, stories, epoch):
        """Return (counts, numbers, languages, lengths) of the sentences."""
        begin = self.store.sentence_offsets[stories]
        counts = self.store.sentence_offsets[stories + 1] - begin
        numbers = ranges(begin, counts)
        paths = language_paths(
            stories,
            counts,
            len(self.languages),
            self.switch_probability,
            self.span,
            self.seed,
            epoch,
        )
        languages = self._numbers[paths]
        ends = self.store.ends[languages, numbers]
        first = np.zeros(len(numbers), dtype=bool)
        first[np.cumsum(counts) - counts] = True
        previous = self.store.ends[languages, numbers - 1]
        begins = np.where(first, 0, previous)
        return counts, languages, begins.astype(np.int64), ends - begins

    def _story_lengths(self, stories, epoch):
        """Tokens of each story and language, int64 [languages, N]."""
        if len(self.languages) == 1:
            return self.store.lengths(self.languages[0])[stories][None]
        counts, languages, _, lengths = self._sentences(stories, epoch)
        first = np.cumsum(counts) - counts
        return np.stack(
            [
                np.add.reduceat(
                    np.where(languages == number, lengths, 0), first
                )
                for number in self._numbers
            ]
        ).astype(np.int64)

    def _make_epoch(self, epoch):
        """Return the stories of an epoch and where each ends, [N] and [N]."""
        generator = np.random.Generator(
            np.random.Philox(np.random.SeedSequence([self.seed, epoch, _ORDER]))
        )
        stories = generator.permutation(self.stories)
        lengths = self._story_lengths(stories, epoch).sum(axis=0)
        return stories, np.cumsum(lengths + 1)

    def epoch_start(self, epoch):
        """Return the position of an epoch's first token.

        Arguments
        ---------
        epoch : int
            Which pass over the stories.

        Returns
        -------
        int
        """
        while len(self._epoch_starts) <= epoch:
            last = len(self._epoch_starts) - 1
            _, ends = self._epoch(last)
            self._epoch_starts.append(self._epoch_starts[-1] + int(ends[-1]))
        return self._epoch_starts[epoch]

    def _epoch_at(self, position):
        epoch = 0
        while self.epoch_start(epoch + 1) <= position:
            epoch += 1
        return epoch

    def tokens(self, begins, length):
        """Return pieces of the stream.

        Arguments
        ---------
        begins : numpy.ndarray
            Position of each piece's first token, shape ``[N]``.
        length : int
            Tokens in each piece.

        Returns
        -------
        numpy.ndarray
            int64, shape ``[N, length]``.
        """
        out = np.full(len(begins) * length, self.boundary, dtype=np.int64)
        pieces = []
        for number, begin in enumerate(np.asarray(begins).tolist()):
            position, epoch = begin, self._epoch_at(begin)
            while position < begin + length:
                end = min(begin + length, self.epoch_start(epoch + 1))
                pieces.append(
                    (epoch, position, end, number * length + position - begin)
                )
                position, epoch = end, epoch + 1
        pieces = np.array(pieces, dtype=np.int64).reshape(-1, 4)
        for epoch in np.unique(pieces[:, 0]).tolist():
            self._fill(out, epoch, pieces[pieces[:, 0] == epoch, 1:])
        return out.reshape(len(begins), length)

    def _fill(self, out, epoch, pieces):
        """Write the sentences of one epoch's pieces (begin, end, place)."""
        base = self.epoch_start(epoch)
        stories, ends = self._epoch(epoch)
        begin, end = pieces[:, 0] - base, pieces[:, 1] - base
        first = np.searchsorted(ends, begin, side="right")
        last = np.searchsorted(ends, end - 1, side="right")
        positions = ranges(first, last - first + 1)
        piece = np.repeat(np.arange(len(pieces)), last - first + 1)
        picked = stories[positions]
        counts, languages, inside, lengths = self._sentences(picked, epoch)
        story_begin = np.where(positions > 0, ends[positions - 1], 0)
        # Where each sentence stands in the epoch's stream: after its story's
        # boundary and the sentences before it in the story's own path.
        running = np.cumsum(lengths) - lengths
        head = np.cumsum(counts) - counts
        start = np.repeat(story_begin + 1 - running[head], counts) + running
        owner = np.repeat(piece, counts)
        low = np.maximum(start, begin[owner])
        size = np.minimum(start + lengths, end[owner]) - low
        kept = size > 0
        owner, low, size = owner[kept], low[kept], size[kept]
        story = np.repeat(picked, counts)[kept]
        address = self.store.bases[languages[kept], story] + inside[kept]
        place = pieces[owner, 2] + low - begin[owner]
        out[ranges(place, size)] = self.store.gather(
            address + low - start[kept], size
        )

    def count(self, position):
        """Count the tokens before a position, a language.

        Arguments
        ---------
        position : int
            A position of the stream.

        Returns
        -------
        dict
            Language -> units, and ``"boundary"`` -> boundaries.
        """
        counts = dict.fromkeys([*self.languages, "boundary"], 0)
        if position == 0:
            return counts
        last = self._epoch_at(position - 1)
        for epoch in range(last + 1):
            stories, ends = self._epoch(epoch)
            limit = min(position - self.epoch_start(epoch), int(ends[-1]))
            whole = int(np.searchsorted(ends, limit, side="right"))
            counts["boundary"] += whole
            if whole:
                totals = self._story_lengths(stories[:whole], epoch)
                for name, total in zip(
                    self.languages, totals.sum(axis=1), strict=True
                ):
                    counts[name] += int(total)
            rest = limit - (int(ends[whole - 1]) if whole else 0)
            if rest > 0:
                counts["boundary"] += 1
                self._count_partial(counts, stories[whole], epoch, rest - 1)
        return counts

    def _count_partial(self, counts, story, epoch, rest):
        _, languages, _, lengths = self._sentences(np.array([story]), epoch)
        before = np.cumsum(lengths) - lengths
        seen = np.clip(rest - before, 0, lengths)
        for name, number in zip(self.languages, self._numbers, strict=True):
            counts[name] += int(seen[languages == number].sum())
