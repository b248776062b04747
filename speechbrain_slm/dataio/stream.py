"""Sentences laid one after another, from which rows are cut."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from speechbrain_slm.dataio.reader import ranges

if TYPE_CHECKING:
    from speechbrain_slm.dataio.source import Source


@dataclass
class Stream:
    """Stories as tokens: ``boundary, [tag,] units, [[tag,] units, ...]``.

    Nothing is copied until :meth:`write`: a stream knows where every sentence
    stands, in the store and among the tokens.
    """

    source: "Source"  # whose symbols and store it uses
    heads: np.ndarray  # index of the first sentence of each story, [N]
    languages: np.ndarray  # number in the source of each sentence's, [S]
    addresses: np.ndarray  # where its units begin in the store, [S]
    lengths: np.ndarray  # its units, [S]
    # Whether its language is not that of the sentence before, in a story, [S].
    changed: np.ndarray

    def __post_init__(self) -> None:
        # Before which sentences a language tag stands, [S].
        self.tagged = np.zeros(len(self.lengths), dtype=bool)
        if self.source.tags is not None:
            self.tagged |= self.changed
            self.tagged[self.heads] = True
        # Symbols before the units of each sentence.
        self.extra = self.tagged.astype(np.int64)
        self.extra[self.heads] += 1
        # Where the units of each sentence end, and where they begin.
        self.ends = np.cumsum(self.lengths + self.extra)
        self.starts = self.ends - self.lengths
        self.size = int(self.ends[-1])  # tokens in all

    def story_ends(self) -> np.ndarray:
        """Return where each story ends, int64 ``[N]``."""
        return self.ends[np.append(self.heads[1:], len(self.lengths)) - 1]

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
        first = np.searchsorted(self.ends, begins, "right")
        last = np.searchsorted(self.starts - self.extra, ends - 1, "right")
        counts = np.maximum(last - first, 0)
        chosen = ranges(first, counts)
        # A piece begins and ends within sentences: of each, take what lies
        # between low and high.
        low, high = np.repeat(begins, counts), np.repeat(ends, counts)
        shift = np.repeat(places - begins, counts)
        start = self.starts[chosen]
        begin = np.maximum(start, low)
        size = np.minimum(self.ends[chosen], high) - begin
        kept = size > 0
        self.source.store.gather(
            (self.addresses[chosen] + begin - start)[kept],
            size[kept],
            out,
            (begin + shift)[kept],
        )
        if self.source.tags is not None:
            tag = start - 1
            kept = self.tagged[chosen] & (tag >= low) & (tag < high)
            languages = self.languages[chosen][kept]
            out[(tag + shift)[kept]] = self.source.tags[languages]

    def totals(self, limit: int | None = None) -> np.ndarray:
        """Count what its first tokens hold, in the source's ``columns``.

        ``limit`` says how many tokens; all by default.
        """
        limit = self.size if limit is None else limit
        cut = np.searchsorted(self.starts - self.extra, limit, "left")
        units = np.clip(limit - self.starts[:cut], 0, self.lengths[:cut])
        # Exact: float64 holds every integer below 2**53.
        by_language = np.bincount(
            self.languages[:cut], units, len(self.source.languages)
        )
        stories = np.searchsorted(self.heads, cut, "left")
        tags = (self.tagged[:cut] & (self.starts[:cut] <= limit)).sum()
        rest = [stories, tags, cut, self.changed[:cut].sum()]
        return np.concatenate([by_language, rest]).astype(np.int64)
