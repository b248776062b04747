"""Sequences that share nothing, as the rows of a padded batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence


class PaddedBatch:
    """Sequences as a model reads them, one a row, and what it predicts.

    Arguments
    ---------
    indexes : Which of the caller's sequences it holds.
    sequences : Symbols of all of these, int64.
    lengths : How many of them are the prompt.
    scored : Which of them are scored, bool.

    Attributes
    ----------
    input_ids, attention_mask : torch.Tensor
        Int64 [B, T]. A row's last symbol predicts nothing and is not read.
    sources, targets, owners : np.ndarray
        At which position, counted over all rows, which symbol is predicted,
        and for which of ``members``, int64 [N].
    members : list of tuple
        A prompt or an ending, as the sequences it stands for, and 0 or 1.

    Example
    -------
    >>> ids = [np.array([9, 1, 5]), np.array([9, 7])]
    >>> scored = [np.arange(3) > 0, np.arange(2) > 0]
    >>> batch = PaddedBatch([0, 1], ids, [2, 1], scored)
    >>> batch.input_ids.tolist(), batch.attention_mask.tolist()
    ([[9, 1], [9, 0]], [[1, 1], [1, 0]])
    >>> batch.sources.tolist(), batch.targets.tolist(), batch.owners.tolist()
    ([0, 1, 2], [1, 5, 7], [0, 1, 3])
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
        widths = torch.tensor([len(ids) for ids in inputs])
        real = torch.arange(self.input_ids.shape[1]) < widths[:, None]
        self.attention_mask = real.long()
        self.members = [([i], side) for i in indexes for side in (0, 1)]
        rows = np.repeat(
            np.arange(len(indexes)), [scored[i][1:].sum() for i in indexes]
        )
        columns = np.concatenate([scored[i][1:].nonzero()[0] for i in indexes])
        self.sources = rows * self.input_ids.shape[1] + columns
        self.targets = np.concatenate(
            [sequences[i][scored[i]] for i in indexes]
        )
        # A prompt of P symbols is predicted up to column P - 2.
        ends = np.array([lengths[i] for i in indexes])[rows] - 1
        self.owners = 2 * rows + (columns >= ends)


def make_padded_batches(
    indexes: Sequence[int],
    sequences: Sequence[np.ndarray],
    lengths: Sequence[int],
    scored: Sequence[np.ndarray],
    batch_tokens: int,
) -> Iterator[PaddedBatch]:
    """Batch sequences by length, so that little is padded.

    Equal lengths are ordered by content: the same set of sequences makes the
    same batches in whatever order it comes.

    Arguments
    ---------
    indexes : Which of the sequences; for the others see :class:`PaddedBatch`.
    batch_tokens
        Positions a batch, padding included; a longer sequence goes alone.

    Yields
    ------
    A batch.
    """
    order = sorted(
        indexes, key=lambda i: (len(sequences[i]), sequences[i].tobytes())
    )
    batch = []
    for index in order:
        width = len(sequences[index]) - 1
        if batch and (len(batch) + 1) * width > batch_tokens:
            yield PaddedBatch(batch, sequences, lengths, scored)
            batch = []
        batch.append(index)
    if batch:
        yield PaddedBatch(batch, sequences, lengths, scored)
