"""The acoustic codes of a codec, predicted from its semantic ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu, pad

from speechbrain_slm.models.vocoders.conditioning import (
    Conditioning,
    Durations,
)


class _Block(torch.nn.Module):
    """A convolution over time and a projection, beside a shortcut."""

    def __init__(
        self, size: int, kernel_size: int, dilation: int, causal: bool
    ) -> None:
        super().__init__()
        reach = (kernel_size - 1) * dilation
        self.sides = (reach, 0) if causal else (reach // 2, reach - reach // 2)
        self.norm = torch.nn.LayerNorm(size)
        self.conv = torch.nn.Conv1d(size, size, kernel_size, dilation=dilation)
        self.project = torch.nn.Linear(size, size)

    def forward(self, states: Tensor, there: Tensor) -> Tensor:
        # Zeros behind an utterance, as before it, whatever the batch has there.
        seen = (self.norm(states) * there).transpose(1, 2)
        found = self.conv(pad(seen, self.sides)).transpose(1, 2)
        return states + self.project(gelu(found))


class AcousticModel(torch.nn.Module):
    """Predict a frame's acoustic codes, one codebook after the other.

    Convolutions over the semantic codes; then a head a codebook, which also
    sees the codes that the heads before it gave to the same frame.

    Arguments
    ---------
    codebook_size : The same for all codebooks.
    num_codebooks : The semantic one included: one head less.
    dilations : A layer each.
    causal : A frame sees none that comes after it, so speech can be streamed.
    deduplicated : Predict how many frames each semantic code lasts.

    Example
    -------
    >>> model = AcousticModel(64, 4, 2, 2, hidden_size=16)
    >>> told = model.conditioning(*torch.tensor([[0], [1]]))
    >>> model.predict(torch.randint(64, (1, 25)), told).shape
    torch.Size([1, 4, 25])
    """

    def __init__(
        self,
        codebook_size: int,
        num_codebooks: int,
        num_speakers: int,
        num_languages: int,
        hidden_size: int = 512,
        kernel_size: int = 5,
        dilations: Sequence[int] = (1, 2, 4, 1, 2, 4),
        dropout: float = 0.1,
        causal: bool = False,
        deduplicated: bool = False,
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.num_codebooks = num_codebooks
        heads, size = num_codebooks - 1, hidden_size
        self.conditioning = Conditioning(num_speakers, num_languages, size)
        # Of each codebook but the last, whose codes nobody sees.
        self.embeddings = torch.nn.ModuleList(
            torch.nn.Embedding(codebook_size, size) for _ in range(heads)
        )
        self.dropout = torch.nn.Dropout(dropout)
        self.blocks = torch.nn.ModuleList(
            _Block(size, kernel_size, dilation, causal)
            for dilation in dilations
        )
        self.heads = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.LayerNorm(size),
                torch.nn.Linear(size, size),
                torch.nn.GELU(),
                torch.nn.Linear(size, codebook_size),
            )
            for _ in range(heads)
        )
        self.durations = (
            Durations(size, size, dropout) if deduplicated else None
        )

    def features(self, units: Tensor, conditions: Tensor) -> Tensor:
        """Return what the layers take, and :class:`Durations`."""
        return self.embeddings[0](units) + conditions[:, None]

    def forward(
        self,
        codes: Tensor,
        lengths: Tensor,
        speakers: Tensor,
        languages: Tensor,
        runs: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits, ``[B, Q - 1, F, size]``, and what ``durations`` says.

        Arguments
        ---------
        codes : Of all codebooks, ``[B, Q, F]``; those of the last are not seen.
        lengths : Frames that are no padding, ``[B]``.
        speakers, languages : Numbers for ``conditioning``.
        runs : De-duplicated semantic codes of the same speakers, ``[B, U]``.
        """
        conditions = self.conditioning(speakers, languages)
        found, states = [], self._states(codes[:, 0], conditions, lengths)
        for number, head in enumerate(self.heads):
            if number:
                states = states + self.embeddings[number](codes[:, number])
            found.append(head(states))
        logits = torch.stack(found, dim=1)
        if runs is None or self.durations is None:
            return logits, None
        return logits, self.durations(self.features(runs, conditions))

    def predict(
        self,
        semantic: Tensor,
        conditions: Tensor,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Return the codes of all codebooks, ``[B, Q, F]``, the likeliest."""
        found, states = [semantic], self._states(semantic, conditions, lengths)
        for number, head in enumerate(self.heads):
            if number:
                states = states + self.embeddings[number](found[-1])
            found.append(head(states).argmax(dim=-1))
        return torch.stack(found, dim=1)

    def _states(self, semantic, conditions, lengths):
        batch, frames = semantic.shape
        if lengths is None:
            lengths = torch.full((batch,), frames, device=semantic.device)
        places = torch.arange(frames, device=semantic.device)
        there = (places < lengths[:, None])[..., None]
        states = self.dropout(self.features(semantic, conditions))
        for block in self.blocks:
            states = block(states, there)
        return states


def code_loss(logits: Tensor, codes: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean cross-entropy of the acoustic codes, in nats."""
    places = torch.arange(codes.shape[2], device=codes.device)
    there = (places < lengths[:, None])[:, None].expand_as(codes[:, 1:])
    return cross_entropy(logits[there], codes[:, 1:][there])
