"""Batches of sequences, of which a prompt is computed once for its endings.

A row holds a prompt and its endings side by side:

    row         | b  p1 p2 | x1 x2 | y1 y2 y3
    position    | 0  1  2  | 3  4  | 3  4  5
    attends to  | prompt   | prompt, x | prompt, y

So x and y are what they would be directly behind the prompt, and their first
units are both predicted at p2. The rows of a batch stand one behind the other
in one sequence of the model, without padding. What shares no prompt goes into
ordinary batches, padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence


@dataclass
class Row:
    """A prompt and some of the endings that follow it, int64 symbols."""

    prompt: np.ndarray
    endings: list[np.ndarray] = field(default_factory=list)
    # Which of the caller's sequences each ending stands for.
    members: list[list[int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Positions that a model computes; it reads no ending's last symbol."""
        return len(self.prompt) + sum(len(ids) - 1 for ids in self.endings)


def make_rows(
    sequences: Sequence[np.ndarray], lengths: Sequence[int], batch_tokens: int
) -> tuple[list[Row], list[int]]:
    """Put the sequences that begin with one prompt into rows.

    Returns the rows, in an order that does not depend on that of the
    sequences, and which sequences are alone with their prompt.

    Arguments
    ---------
    lengths : How many symbols are the prompt; 0: none is to be shared.
    batch_tokens : Of a row, at most; a prompt with more endings is repeated.

    Example
    -------
    >>> ids = [np.array(ids) for ids in ([9, 1, 5], [9, 1, 6, 7], [9, 2, 3])]
    >>> rows, alone = make_rows(ids, [2, 2, 2], batch_tokens=100)
    >>> [row.prompt.tolist() for row in rows], rows[0].members, alone
    ([[9, 1]], [[0], [1]], [2])
    """
    # By their bytes, which tell equal arrays and sort without the caller's
    # order: the rows, and so the last bits of scores, follow from the set.
    prompts: dict[bytes, dict[bytes, list[int]]] = {}
    for index, (ids, length) in enumerate(zip(sequences, lengths, strict=True)):
        endings = prompts.setdefault(ids[:length].tobytes(), {})
        endings.setdefault(ids[length:].tobytes(), []).append(index)
    rows, alone = [], []
    for prompt, endings in prompts.items():
        if not prompt or len(endings) == 1:
            alone += [index for same in endings.values() for index in same]
            continue
        row = None
        for ending in sorted(endings, key=lambda ending: (len(ending), ending)):
            ids = np.frombuffer(ending, np.int64)
            # Another row computes the prompt again: at 4096 positions, one
            # of 300 symbols after every 38 endings of 100.
            if row is None or row.size + len(ids) - 1 > batch_tokens:
                row = Row(np.frombuffer(prompt, np.int64))
                rows.append(row)
            row.endings.append(ids)
            row.members.append(endings[ending])
    rows.sort(
        key=lambda r: (r.size, r.prompt.tobytes(), r.endings[0].tobytes())
    )
    return rows, alone


class Batch:
    """Rows one behind the other, as a model reads them, and what it predicts.

    Arguments
    ---------
    scored : Which symbols of each of the caller's sequences are scored, bool.

    Attributes
    ----------
    input_ids, position_ids : Int64 [1, T].
    blocks
        A prompt's columns and those of each of its endings, as
        ``((begin, end), [(begin, end), ...])``.
    longest : Positions from a prompt's first symbol to an ending's last.
    sources, targets : At which column which symbol is predicted, int64 [N].
    members
        Whose these are, in their order: a prompt's (side 0) or an ending's
        (side 1), as ``(the caller's sequences, side, how many)``.

    Example
    -------
    >>> row = Row(np.array([9, 1]), [np.array([5, 6]), np.array([7])])
    >>> row.members += [[0], [1, 2]]
    >>> scored = [np.arange(length) > 0 for length in (4, 3, 3)]
    >>> batch = Batch([row], scored)
    >>> batch.input_ids.tolist(), batch.position_ids.tolist(), batch.blocks
    ([[9, 1, 5]], [[0, 1, 2]], [((0, 2), [(2, 3), (3, 3)])])
    >>> batch.sources.tolist(), batch.targets.tolist()
    ([0, 1, 2, 1], [1, 5, 6, 7])
    >>> batch.members
    [([0, 1, 2], 0, 1), ([0], 1, 2), ([1, 2], 1, 1)]
    """

    def __init__(
        self, rows: Sequence[Row], scored: Sequence[np.ndarray]
    ) -> None:
        ids, positions, sources, targets = [], [], [], []
        self.blocks: list[tuple] = []
        self.members: list[tuple[list[int], int, int]] = []

        def predict(members, side, columns, symbols, mask):
            sources.append(columns[mask])
            targets.append(symbols[mask])
            self.members.append((members, side, int(mask.sum())))

        end = 0
        for row in rows:
            begin, length = end, len(row.prompt)
            end += length
            last = end - 1  # where every ending's first symbol is predicted
            ids.append(row.prompt)
            positions.append(np.arange(length))
            everyone = [index for same in row.members for index in same]
            # The same for all of them: marks follow from the symbols.
            mask = scored[everyone[0]][1:length]
            predict(everyone, 0, np.arange(begin, last), row.prompt[1:], mask)
            endings: list[tuple[int, int]] = []
            self.blocks.append(((begin, end), endings))
            for symbols, members in zip(row.endings, row.members, strict=True):
                read = np.arange(len(symbols) - 1)
                ids.append(symbols[:-1])
                positions.append(length + read)
                columns = np.append(last, end + read)
                mask = scored[members[0]][length:]
                predict(members, 1, columns, symbols, mask)
                endings.append((end, end + len(read)))
                end += len(read)
        self.input_ids = torch.from_numpy(np.concatenate(ids))[None]
        self.position_ids = torch.from_numpy(np.concatenate(positions))[None]
        self.longest = int(self.position_ids.max()) + 1
        self.sources = np.concatenate(sources)
        self.targets = np.concatenate(targets)
        self._masks: dict[tuple, torch.Tensor] = {}

    def mask(
        self, prompt: int, ending: int, like: torch.Tensor
    ) -> torch.Tensor:
        """Return what E symbols of an ending attend to, added, [E, P + E]."""
        # Every layer asks for the same ones.
        key = prompt, ending, like.dtype, like.device
        if key not in self._masks:
            mask = like.new_full((ending, prompt + ending), -torch.inf)
            self._masks[key] = mask.triu_(diagonal=prompt + 1)
        return self._masks[key]


class PaddedBatch:
    """Sequences that share nothing, one a row; see :class:`Batch`.

    ``input_ids`` and ``attention_mask`` are int64 [B, T]: a row's last symbol
    predicts nothing and is not read. ``sources`` count over all rows.
    """

    def __init__(
        self,
        indexes: Sequence[int],
        sequences: Sequence[np.ndarray],
        lengths: Sequence[int],
        scored: Sequence[np.ndarray],
    ) -> None:
        inputs = [torch.from_numpy(sequences[i][:-1]) for i in indexes]
        self.input_ids = pad_sequence(inputs, batch_first=True)
        width = self.input_ids.shape[1]
        widths = torch.tensor([len(ids) for ids in inputs])
        self.attention_mask = (torch.arange(width) < widths[:, None]).long()
        # The symbol in column c is predicted in column c - 1.
        columns = (scored[i][1:].nonzero()[0] for i in indexes)
        places = [row * width + own for row, own in enumerate(columns)]
        self.sources = np.concatenate(places)
        targets = [sequences[i][scored[i]] for i in indexes]
        self.targets = np.concatenate(targets)
        self.members = [
            ([i], side, int(mask.sum()))
            for i in indexes
            for side, mask in enumerate(np.split(scored[i], [lengths[i]]))
        ]
