"""Sentences laid one after another, from which rows are cut."""

from typing import TYPE_CHECKING

import numpy as np

from speechbrain_slm.dataio.reader import ranges

if TYPE_CHECKING:
    from speechbrain_slm.dataio.source import Source


class Stream:
    """Stories as tokens: ``boundary, [tag,] units, [[tag,] units, ...]``.

    Nothing is copied until :meth:`write`: a stream knows where every sentence
    stands, in the store and among the tokens.

    Arguments
    ---------
    source : Whose symbols and store it uses.
    heads : Index of the first sentence of each story, shape ``[N]``.
    languages : Number of each sentence's language in the source, shape ``[S]``.
    addresses : Where its units begin in the store, shape ``[S]``.
    lengths : Its units, shape ``[S]``.
    changed
        Whether its language is another than the sentence's before it in the
        story, bool, shape ``[S]``.
    """

    def __init__(
        self,
        source: "Source",
        heads: np.ndarray,
        languages: np.ndarray,
        addresses: np.ndarray,
        lengths: np.ndarray,
        changed: np.ndarray,
    ) -> None:
        self.source = source
        self.heads = heads
        self.languages = languages
        self.addresses = addresses
        self.lengths = lengths
        self.changed = changed
        # Symbols before the units of each sentence.
        self.extra = np.zeros(len(lengths), dtype=np.int64)
        if source.tags is not None:
            self.extra += changed
            self.extra[heads] += 1
        self.extra[heads] += 1
        ends = np.cumsum(lengths + self.extra)
        self.size = int(ends[-1])  # Tokens in all.
        # Where the first unit of each sentence stands.
        self.starts = ends - lengths

    def story_ends(self) -> np.ndarray:
        """Return where each story ends, int64, shape ``[N]``."""
        following = np.append(self.heads[1:], len(self.lengths))
        return (self.starts + self.lengths)[following - 1]

    def write(
        self,
        out: np.ndarray,
        begins: np.ndarray,
        ends: np.ndarray,
        places: np.ndarray,
    ) -> None:
        """Copy pieces of the stream into an array.

        Arguments
        ---------
        out : Gets the tokens. Boundaries stand in it everywhere before.
        begins, ends
            First token of each piece and the one after its last, ``[P]``.
        places : Where in ``out`` each piece goes, ``[P]``.
        """
        first = np.searchsorted(self.starts + self.lengths, begins, "right")
        last = np.searchsorted(self.starts - self.extra, ends - 1, "right")
        counts = np.maximum(last - first, 0)
        chosen = ranges(first, counts)
        # A piece begins and ends within sentences: of each, take what lies
        # between low and high.
        low = np.repeat(begins, counts)
        high = np.repeat(ends, counts)
        shift = np.repeat(places - begins, counts)
        start = self.starts[chosen]
        begin = np.maximum(start, low)
        size = np.minimum(start + self.lengths[chosen], high) - begin
        kept = size > 0
        self.source.store.gather(
            (self.addresses[chosen] + begin - start)[kept],
            size[kept],
            out,
            (begin + shift)[kept],
        )
        if self.source.tags is not None:
            tag = start - 1
            kept = self.is_tagged()[chosen] & (tag >= low) & (tag < high)
            languages = self.languages[chosen][kept]
            out[(tag + shift)[kept]] = self.source.tags[languages]

    def is_tagged(self) -> np.ndarray:
        """Tell before which sentences a language tag stands, bool [S]."""
        if self.source.tags is None:
            return np.zeros(len(self.lengths), dtype=bool)
        tagged = self.changed.copy()
        tagged[self.heads] = True
        return tagged

    def totals(self, limit: int | None = None) -> np.ndarray:
        """Count what its first tokens hold, in the source's ``columns``.

        Arguments
        ---------
        limit : How many; all by default.
        """
        limit = self.size if limit is None else limit
        cut = np.searchsorted(self.starts - self.extra, limit, "left")
        units = np.clip(limit - self.starts[:cut], 0, self.lengths[:cut])
        many = len(self.source.languages)
        # Exact: float64 holds every integer below 2**53.
        by_language = np.bincount(self.languages[:cut], units, many)
        tags = self.is_tagged()[:cut] & (self.starts[:cut] <= limit)
        return np.array(
            [
                *by_language.astype(np.int64),
                np.searchsorted(self.heads, cut, "left"),
                tags.sum(),
                cut,
                self.changed[:cut].sum(),
            ],
            dtype=np.int64,
        )
