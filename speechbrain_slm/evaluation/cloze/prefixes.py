"""Prompts that are computed once for all the endings that follow them.

A row holds a prompt and its endings side by side:

    row         | b  p1 p2 | x1 x2 | y1 y2 y3
    position    | 0  1  2  | 3  4  | 3  4  5
    attends to  | prompt   | prompt, x | prompt, y

So x and y are what they would be directly behind the prompt, and their first
units are both predicted at p2. The rows of a batch stand one behind the other
in one sequence of the model, without padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass
class Row:
    """A prompt and some of the endings that follow it.

    Arguments
    ---------
    prompt : np.ndarray
        Symbols from the first one on, int64 [P].
    endings : list of np.ndarray
        Symbols of each ending, int64.
    members : list of list of int
        Which sequences of the caller's each ending stands for.
    """

    prompt: np.ndarray
    endings: list = field(default_factory=list)
    members: list = field(default_factory=list)

    @property
    def size(self):
        """Positions that a model computes; it reads no ending's last symbol."""
        return len(self.prompt) + sum(len(ids) - 1 for ids in self.endings)


def make_rows(
    sequences: Sequence[np.ndarray], lengths: Sequence[int], batch_tokens: int
) -> tuple[list[Row], list[int]]:
    """Put the sequences that begin with one prompt into rows.

    Arguments
    ---------
    sequences : Symbols, int64.
    lengths : How many of them are the prompt; 0 for a sequence without one.
    batch_tokens
        Positions a row may have; a prompt with more endings is repeated.

    Returns
    -------
    list of Row
        In an order that does not depend on that of the sequences.
    list of int
        Which sequences are in no row, because no other ending has their
        prompt.

    Example
    -------
    >>> ids = [np.array(ids) for ids in ([9, 1, 5], [9, 1, 6, 7], [9, 2, 3])]
    >>> rows, alone = make_rows(ids, [2, 2, 2], batch_tokens=100)
    >>> [row.prompt.tolist() for row in rows], rows[0].members, alone
    ([[9, 1]], [[0], [1]], [2])
    """
    prompts = {}
    for index, (ids, length) in enumerate(zip(sequences, lengths, strict=True)):
        endings = prompts.setdefault(ids[:length].tobytes(), {})
        endings.setdefault(ids[length:].tobytes(), []).append(index)
    rows, alone = [], []
    for prompt, endings in prompts.items():
        if not prompt or len(endings) == 1:
            alone += [index for same in endings.values() for index in same]
            continue
        row = None
        for ending, same in sorted(
            endings.items(), key=lambda item: (len(item[0]), item[0])
        ):
            ids = np.frombuffer(ending, np.int64)
            if row is None or row.size + len(ids) - 1 > batch_tokens:
                row = Row(np.frombuffer(prompt, np.int64))
                rows.append(row)
            row.endings.append(ids)
            row.members.append(same)
    rows.sort(
        key=lambda row: (
            row.size,
            row.prompt.tobytes(),
            row.endings[0].tobytes(),
        )
    )
    return rows, alone


def make_batches(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[Row]]:
    """Group rows, in their order, up to a number of positions.

    Arguments
    ---------
    rows : See :func:`make_rows`.
    batch_tokens : Positions a batch; a longer row goes alone.

    Yields
    ------
    A batch.
    """
    batch, size = [], 0
    for row in rows:
        if batch and size + row.size > batch_tokens:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row.size
    if batch:
        yield batch


class Batch:
    """Rows one behind the other, as a model reads them, and what it predicts.

    Arguments
    ---------
    scored : Which symbols of each of the caller's sequences are scored, bool.

    Attributes
    ----------
    input_ids, position_ids : torch.Tensor
        Int64 [1, T].
    blocks : list of tuple
        A prompt's columns and those of each of its endings, as
        ``((begin, end), [(begin, end), ...])``.
    longest : int
        Positions from a prompt's first symbol to an ending's last.
    sources, targets, owners : np.ndarray
        At which column which symbol is predicted, and for which of
        ``members``, int64 [N].
    members : list of tuple
        A prompt or an ending, as the sequences it stands for, and 0 or 1.

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
    >>> batch.owners.tolist(), batch.members
    ([0, 1, 1, 2], [([0, 1, 2], 0), ([0], 1), ([1, 2], 1)])
    """

    def __init__(
        self, rows: Sequence[Row], scored: Sequence[np.ndarray]
    ) -> None:
        ids, positions, predictions = [], [], []
        self.blocks, self.members = [], []
        begin = 0
        for row in rows:
            length = len(row.prompt)
            end = begin + length
            ids.append(row.prompt)
            positions.append(np.arange(length))
            mask = scored[row.members[0][0]][1:length]
            columns = np.arange(begin, end)
            predictions.append((columns[:-1], row.prompt[1:], mask))
            everyone = [index for same in row.members for index in same]
            self.members.append((everyone, 0))
            last, endings = end - 1, []
            for symbols, members in zip(row.endings, row.members, strict=True):
                read = len(symbols) - 1
                ids.append(symbols[:-1])
                positions.append(np.arange(length, length + read))
                mask = scored[members[0]][length:]
                columns = np.concatenate([[last], np.arange(end, end + read)])
                predictions.append((columns, symbols, mask))
                self.members.append((members, 1))
                endings.append((end, end + read))
                end += read
            self.blocks.append(((begin, last + 1), endings))
            begin = end
        self.input_ids = torch.from_numpy(np.concatenate(ids))[None]
        self.position_ids = torch.from_numpy(np.concatenate(positions))[None]
        self.longest = int(self.position_ids.max()) + 1
        self.sources, self.targets = (
            np.concatenate([part[side][part[2]] for part in predictions])
            for side in (0, 1)
        )
        self.owners = np.repeat(
            np.arange(len(predictions)),
            [part[2].sum() for part in predictions],
        )
        self._masks = {}

    def mask(
        self, prompt: int, ending: int, like: torch.Tensor
    ) -> torch.Tensor:
        """Return what an ending attends to, to be added, [E, P + E].

        Arguments
        ---------
        prompt : Symbols of the prompt, P.
        ending : Symbols of the ending that are read, E.
        like : Of the dtype and on the device that the mask shall have.

        Returns
        -------
        0, and minus infinity behind each symbol of the ending.
        """
        # Every layer asks for the same ones.
        key = prompt, ending, like.dtype, like.device
        if key not in self._masks:
            mask = like.new_full((ending, prompt + ending), -torch.inf)
            self._masks[key] = mask.triu_(diagonal=prompt + 1)
        return self._masks[key]
