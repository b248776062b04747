"""Rows of tokens cut from a source: the two ways of packing.

Both number the rows of a source from 0, epoch after epoch without an end, and
build any of them at once. What they remember grows with the epochs that were
touched, by a few integers a block of stories, never with the sentences.
"""

import functools

import numpy as np

from speechbrain_slm.dataio.best_fit import best_fit
from speechbrain_slm.dataio.reader import ranges
from speechbrain_slm.dataio.source import Source
from speechbrain_slm.dataio.stream import Stream

# Stories that are laid out at once: large enough that NumPy's calls do not
# count, small enough that their sentences stay in the processor's cache.
BLOCK = 2048
_SHUFFLE = 0xB0C5


class Concatenated:
    """Stories one after another, cut into rows without a gap.

    Row ``i`` holds the tokens from ``i * row_length`` on of an endless
    stream: stories run over the ends of rows, no unit is lost or doubled.
    ``boundary`` is the symbol before each story.
    """

    def __init__(self, source: Source, row_length: int, boundary: int) -> None:
        self.source, self.row_length = source, row_length
        self.boundary = boundary
        self.num_blocks = -(-source.num_stories // BLOCK)
        # Where each block begins in the stream, and what it holds. They grow as
        # far as the run has asked; sentences are laid out anew when needed.
        self._edges = np.zeros(1, dtype=np.int64)
        self._totals: list[np.ndarray] = []
        self._block = functools.lru_cache(maxsize=4)(self._make_block)

    def _make_block(self, number: int) -> Stream:
        epoch, block = divmod(number, self.num_blocks)
        return self.source.tell(epoch, _block(self.source, block))

    def _extend(self, position: int = 0, blocks: int = 0) -> None:
        """Lay out a number of blocks, and until a position is reached."""
        end, edges = int(self._edges[-1]), []
        while end < position or len(self._totals) < blocks:
            stream = self._block(len(self._totals))
            self._totals.append(stream.totals())
            end += stream.size
            edges.append(end)
        if edges:
            self._edges = np.append(self._edges, edges)

    def rows_before(self, epoch: int) -> int:
        """Return how many rows end before an epoch begins."""
        self._extend(blocks=epoch * self.num_blocks)
        return int(self._edges[epoch * self.num_blocks]) // self.row_length

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Build the rows of some numbers, int64 ``[N, row_length]``."""
        out = np.full(len(indices) * self.row_length, self.boundary, np.int64)
        begins = indices * self.row_length
        ends = begins + self.row_length
        self._extend(int(ends.max(initial=0)))
        edges = self._edges
        # A row lies in one block or runs over several; each of its parts goes
        # to its place, whichever block is laid out first.
        first = np.searchsorted(edges, begins, "right") - 1
        last = np.searchsorted(edges, ends, "left") - 1
        blocks = ranges(first, last - first + 1)
        rows = np.repeat(np.arange(len(indices)), last - first + 1)
        low = np.maximum(begins[rows], edges[blocks])
        high = np.minimum(ends[rows], edges[blocks + 1])
        places = rows * self.row_length + low - begins[rows]
        for block in np.unique(blocks).tolist():
            mine = blocks == block
            base = edges[block]
            self._block(block).write(
                out, low[mine] - base, high[mine] - base, places[mine]
            )
        return out.reshape(len(indices), self.row_length)

    def count(self, num_rows: int) -> np.ndarray:
        """Count what the first rows hold, in the source's ``columns``."""
        position, block = self._reach(num_rows)
        whole = np.zeros(len(self.source.columns), dtype=np.int64)
        whole += sum(self._totals[:block])
        rest = position - self._edges[block]
        return whole + self._block(block).totals(rest) if rest else whole

    def _reach(self, num_rows: int) -> tuple[int, int]:
        """Return where the first rows end, and in which block."""
        position = num_rows * self.row_length
        self._extend(position)
        block = int(np.searchsorted(self._edges, position, "right")) - 1
        return position, block

    def passes(self, num_rows: int) -> float:
        """Return how often the first rows pass over the stories, in tokens."""
        # The rest of the epoch is laid out for that, once.
        position, block = self._reach(num_rows)
        epoch = block // self.num_blocks
        first, last = epoch * self.num_blocks, (epoch + 1) * self.num_blocks
        self._extend(blocks=last)
        begin, end = int(self._edges[first]), int(self._edges[last])
        return epoch + (position - begin) / (end - begin)


class BestFit:
    """Whole stories packed into rows, each row by itself.

    A story longer than a row is cut between sentences, and each part is then
    a story of its own, with a boundary before it. What stays empty at the end
    of a row is filled with boundaries. An epoch's rows are packed anew, since
    the lengths of interleaved stories are, and stand in an order drawn for it.
    """

    def __init__(self, source: Source, row_length: int, boundary: int) -> None:
        self.source, self.row_length = source, row_length
        self.boundary = boundary
        extra = 1 + (source.tags is not None)
        longest = source.store.longest_sentence(source.languages) + extra
        if longest > row_length:
            raise ValueError(
                f"row_length is {row_length}; the longest sentence of "
                f"{source.store.folder} takes {longest} tokens with its "
                f"boundary. Set row_length to {longest} or more, or packing to "
                "concatenate."
            )
        self._first_rows = [0]  # Of every epoch.
        self._epoch = functools.lru_cache(maxsize=1)(self._pack)
        self._counted: tuple[int, np.ndarray] = (0, self._nothing())

    def _nothing(self) -> np.ndarray:
        return np.zeros(len(self.source.columns), dtype=np.int64)

    def _pieces(self, epoch: int) -> list[np.ndarray]:
        """Return (positions, first, number, lengths) of an epoch's pieces."""
        found = []
        for number in range(-(-self.source.num_stories // BLOCK)):
            positions = _block(self.source, number)
            stream = self.source.tell(epoch, positions)
            found += _cut(stream, positions, self.row_length)
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _pack(self, epoch: int) -> tuple[np.ndarray, ...]:
        """Return (positions, first, number) by row, and where rows begin."""
        positions, first, number, lengths = self._pieces(epoch)
        rows = best_fit(lengths, self.row_length)
        bits = np.random.Philox([self.source.seed, epoch, _SHUFFLE])
        places = np.random.Generator(bits).permutation(int(rows.max()) + 1)
        rows = places[rows]
        order = np.argsort(rows, kind="stable")
        edges = np.concatenate([[0], np.cumsum(np.bincount(rows))])
        # Kept for the whole epoch: 12 bytes a story and not 24.
        pieces = (positions, first, number)
        return (*(array[order].astype(np.int32) for array in pieces), edges)

    def rows_before(self, epoch: int) -> int:
        """Return how many rows the epochs before one have."""
        while len(self._first_rows) <= epoch:
            edges = self._epoch(len(self._first_rows) - 1)[-1]
            self._first_rows.append(self._first_rows[-1] + len(edges) - 1)
        return self._first_rows[epoch]

    def _epoch_at(self, row: int) -> int:
        while self._first_rows[-1] <= row:
            self.rows_before(len(self._first_rows))
        return int(np.searchsorted(self._first_rows, row, "right")) - 1

    def _stream(
        self, epoch: int, rows: np.ndarray
    ) -> tuple[Stream, np.ndarray]:
        """Lay out rows of an epoch; return it and where each row begins."""
        positions, first, number, edges = self._epoch(epoch)
        counts = edges[rows + 1] - edges[rows]
        pieces = ranges(edges[rows], counts)
        stream = self.source.tell(
            epoch,
            *(a[pieces].astype(np.int64) for a in (positions, first, number)),
        )
        ends = stream.story_ends()[np.cumsum(counts) - 1]
        return stream, np.concatenate([[0], ends])

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Build the rows of some numbers, int64 ``[N, row_length]``."""
        out = np.full(len(indices) * self.row_length, self.boundary, np.int64)
        epochs = np.array([self._epoch_at(row) for row in indices.tolist()])
        for epoch in np.unique(epochs).tolist():
            mine = np.flatnonzero(epochs == epoch)
            local = indices[mine] - self._first_rows[epoch]
            stream, edges = self._stream(epoch, local)
            places = mine * self.row_length
            stream.write(out, edges[:-1], edges[1:], places)
        return out.reshape(len(indices), self.row_length)

    def count(self, num_rows: int) -> np.ndarray:
        """Count what the first rows hold, in the source's ``columns``."""
        # A run counts again and again, further and further: it goes on from
        # where it was.
        row, totals = self._counted
        if row > num_rows:
            row, totals = 0, self._nothing()
        while row < num_rows:
            epoch = self._epoch_at(row)
            begin = self._first_rows[epoch]
            end = min(row + BLOCK, num_rows, self.rows_before(epoch + 1))
            stream, _ = self._stream(epoch, np.arange(row, end) - begin)
            totals = totals + stream.totals()
            row = end
        self._counted = (row, totals)
        return totals

    def passes(self, num_rows: int) -> float:
        """Return how often the first rows pass over the stories."""
        if not num_rows:
            return 0.0
        epoch = self._epoch_at(num_rows - 1)
        begin, end = self.rows_before(epoch), self.rows_before(epoch + 1)
        return epoch + (num_rows - begin) / (end - begin)


def _block(source: Source, number: int) -> np.ndarray:
    """Return the places of a block of stories in an epoch's order."""
    begin = number * BLOCK
    return np.arange(begin, min(begin + BLOCK, source.num_stories))


def _cut(
    stream: Stream, positions: np.ndarray, row_length: int
) -> list[tuple[np.ndarray, ...]]:
    """Cut stories that are longer than a row, between sentences.

    Returns position, first sentence, number of sentences and tokens of pieces.
    """
    heads, ends = stream.heads, stream.story_ends()
    counts = np.diff(heads, append=len(stream.lengths))
    lengths = np.diff(ends, prepend=0)
    short = lengths <= row_length
    whole = positions, np.zeros_like(heads), counts, lengths
    found = [tuple(array[short] for array in whole)]
    # All long stories at once, each as far as a row reaches.
    story = np.flatnonzero(~short)
    first = heads[story]
    while len(story):
        # A piece has its own boundary, and tag, before its first sentence.
        base = stream.starts[first] - 1 - (stream.source.tags is not None)
        last = heads[story] + counts[story]
        after = np.searchsorted(stream.ends, base + row_length, "right")
        after = np.minimum(after, last)
        tokens = stream.ends[after - 1] - base
        begun = first - heads[story]
        found.append((positions[story], begun, after - first, tokens))
        story, first = story[after < last], after[after < last]
    return found


PACKINGS: dict[str, type] = {"concatenate": Concatenated, "best_fit": BestFit}
