"""Units, with their context, to a log-mel spectrogram; Griffin-Lim to speech.

Small enough to train in a minute on a CPU. What the spectrogram lacks is the
phase, which Griffin-Lim finds again: plain, but easy to understand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from speechbrain_slm.models.vocoders.base import save_vocoder, vocoder_identity
from speechbrain_slm.models.vocoders.conditioning import (
    Conditioning,
    check_units,
    numbers_of,
    whole_durations,
)
from speechbrain_slm.models.vocoders.log_mel import LogMel

if TYPE_CHECKING:
    from typing_extensions import Self


class _Block(nn.Module):
    """A convolution over time, beside which its input passes unchanged."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(
            width, 2 * width, 5, padding=2 * dilation, dilation=dilation
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        # Padding is 0 before each convolution, as what is beyond the ends.
        found = (self.norm(hidden) * mask).transpose(1, 2)
        found = nn.functional.glu(self.conv(found), dim=1).transpose(1, 2)
        return hidden + self.dropout(found)


def _blocks(width, number, dropout):
    # Dilations 1, 2, 4, 1, 2, 4: half a second to either side by six layers.
    made = (_Block(width, 2 ** (i % 3), dropout) for i in range(number))
    return nn.ModuleList(made)


def _mask(lengths, size):
    places = torch.arange(size, device=lengths.device)
    return (places < lengths[:, None])[..., None].float()


class UnitsToMel(nn.Module):
    """Convolutions over units, over their frames, and over spectral frames.

    Arguments
    ---------
    frames_per_unit : Spectral frames of a unit that is not de-duplicated.
    num_mels : Of each frame.
    width, fine_width : Channels of the first two, and of the last.
    unit_layers, frame_layers, fine_layers : Of the three.
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_speakers: int,
        num_languages: int,
        frames_per_unit: int,
        num_mels: int = 80,
        width: int = 128,
        fine_width: int = 64,
        unit_layers: int = 3,
        frame_layers: int = 3,
        fine_layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.units = nn.Embedding(vocabulary_size, width)
        self.conditioning = Conditioning(num_speakers, num_languages, width)
        self.encoder = _blocks(width, unit_layers, dropout)
        self.duration = nn.Linear(width, 1)
        self.place = nn.Linear(2, width)
        self.decoder = _blocks(width, frame_layers, dropout)
        self.frames_per_unit = frames_per_unit
        self.expand = nn.Linear(width, frames_per_unit * fine_width)
        self.refiner = _blocks(fine_width, fine_layers, dropout)
        self.norm = nn.LayerNorm(fine_width)
        self.out = nn.Linear(fine_width, num_mels)
        # Of the spectra that it learns from; the Brain measures them.
        self.register_buffer("mean", torch.zeros(num_mels))
        self.register_buffer("std", torch.ones(num_mels))

    def forward(
        self,
        units: Tensor,
        lengths: Tensor,
        speakers: Tensor,
        languages: Tensor,
        durations: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return log-mel frames and log durations; see the methods below."""
        hidden, log_durations = self.encode(units, lengths, speakers, languages)
        return self.decode(hidden, durations), log_durations

    def encode(
        self,
        units: Tensor,
        lengths: Tensor,
        speakers: Tensor,
        languages: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return units in context, ``[B, U, W]``, and their log durations.

        ``units`` are ``[B, U]``, the other arguments ``[B]``.
        """
        known = self.conditioning(speakers, languages)
        hidden = self.units(units) + known[:, None]
        mask = _mask(lengths, units.shape[1])
        for block in self.encoder:
            hidden = block(hidden, mask)
        return hidden, self.duration(hidden)[..., 0]

    def decode(self, hidden: Tensor, durations: Tensor) -> Tensor:
        """Return log-mel frames, ``[B, F, M]``, of units in context.

        ``durations``, ``[B, U]``, are in frames of the tokenizer; 0 at
        padding. ``F`` is ``frames_per_unit`` times the longest of their sums.
        """
        lengths, size = durations.sum(dim=1), int(durations.sum(dim=1).max())
        ends = durations.cumsum(dim=1)
        places = torch.arange(size, device=ends.device).expand(len(ends), -1)
        # Of durations 2, 3: frames 0, 1 are of unit 0, frames 2 to 4 of 1.
        owner = torch.searchsorted(ends, places.contiguous(), right=True)
        owner = owner.clamp(max=durations.shape[1] - 1)
        since = places - (ends - durations).gather(1, owner)
        until = ends.gather(1, owner) - places
        place = torch.stack([since, until], dim=2).clamp(min=0) + 1.0
        wide = owner[..., None].expand(-1, -1, hidden.shape[2])
        hidden = hidden.gather(1, wide) + self.place(place.log())
        mask = _mask(lengths, size)
        for block in self.decoder:
            hidden = block(hidden, mask)
        fine = self.expand(hidden).unflatten(2, (self.frames_per_unit, -1))
        fine = fine.flatten(1, 2)
        mask = mask.repeat_interleave(self.frames_per_unit, dim=1)
        for block in self.refiner:
            fine = block(fine, mask)
        return self.out(self.norm(fine)) * self.std + self.mean


class MelVocoder:
    """Units to log-mel frames by :class:`UnitsToMel`, and Griffin-Lim.

    Arguments
    ---------
    tokenizer_identity, speakers, languages, deduplicated
        See :class:`speechbrain_slm.models.vocoders.base.Vocoder`.
    sample_rate, frame_rate, vocabulary_size : Those of the tokenizer.
    hop, window : Of the spectrogram, in samples; units are whole hops long.
    num_mels : Of the spectrogram.
    **network : More arguments of :class:`UnitsToMel`.

    Example
    -------
    >>> vocoder = MelVocoder(
    ...     "1a", ["anna"], ["en", "fr"], True, 16000, 25.0, 30, width=8
    ... )
    >>> long, none = vocoder.speak([np.array([3, 1, 4]), np.array([])])
    >>> len(long) % 640, len(none)
    (0, 0)
    """

    def __init__(
        self,
        tokenizer_identity: str,
        speakers: list[str],
        languages: list[str],
        deduplicated: bool,
        sample_rate: int,
        frame_rate: float,
        vocabulary_size: int,
        hop: int = 160,
        window: int = 512,
        num_mels: int = 80,
        **network: Any,
    ) -> None:
        samples = sample_rate / frame_rate
        frames, rest = divmod(round(samples), hop)
        # 480 samples are 479.99... by 16,000 / 33.3.
        if rest or not frames or not math.isclose(samples, round(samples)):
            raise ValueError(
                f"hop is {hop} samples, and a unit {samples:g}"
                "; expected a hop that divides a unit"
            )
        self.tokenizer_identity, self.sample_rate = (
            tokenizer_identity,
            sample_rate,
        )
        self.speakers, self.languages = list(speakers), list(languages)
        self.deduplicated, self.vocabulary_size = deduplicated, vocabulary_size
        self.config = {
            "deduplicated": deduplicated,
            "sample_rate": sample_rate,
            "frame_rate": frame_rate,
            "vocabulary_size": vocabulary_size,
            "hop": hop,
            "window": window,
            "num_mels": num_mels,
            **network,
        }
        self.log_mel = LogMel(sample_rate, hop, window, num_mels)
        sizes = vocabulary_size, len(self.speakers), len(self.languages)
        self.network = UnitsToMel(*sizes, frames, num_mels, **network)
        self.device = torch.device("cpu")

    @property
    def identity(self) -> str:
        """Hash of the configuration, the names and the weights."""
        return vocoder_identity(self, self.network.state_dict())

    @torch.no_grad()
    def speak(
        self,
        units: Sequence[np.ndarray],
        speakers: list[str] | None = None,
        languages: list[str] | None = None,
    ) -> list[Tensor]:
        """Turn units into waveforms; see :meth:`Vocoder.speak`."""
        count, known = len(units), self.languages
        who = numbers_of(speakers, self.speakers, "speaker", count, 0)
        what = numbers_of(languages, known, "language", count, len(known))
        self.network.eval()
        # One by one: what is spoken beside an utterance changes no sample.
        return [
            self._one(np.asarray(one), speaker, language)
            for one, speaker, language in zip(units, who, what, strict=True)
        ]

    def _one(self, units, speaker, language):
        check_units(units, self.vocabulary_size)
        if not len(units):
            return torch.zeros(0)
        there = torch.from_numpy(units.astype(np.int64))[None].to(self.device)
        facts = ([len(units)], [speaker], [language])
        known = (torch.tensor(one, device=self.device) for one in facts)
        hidden, log_durations = self.network.encode(there, *known)
        durations = torch.ones_like(there)
        if self.deduplicated:
            durations = whole_durations(log_durations[0])[None]
        frames = self.network.decode(hidden, durations)[0]
        return self.log_mel.speech(frames).float().cpu()

    def to(self, device: str | torch.device) -> Self:
        """Compute on another device; see :meth:`Vocoder.to`."""
        self.device = torch.device(device)
        self.network.to(self.device)
        self.log_mel.to(self.device)
        return self

    def save(self, folder: str | Path) -> None:
        """Write ``vocoder.safetensors`` and ``vocoder.json``."""
        save_vocoder(folder, "mel", self, self.network.state_dict())

    @classmethod
    def from_saved(
        cls, told: dict[str, Any], tensors: dict[str, Tensor], tokenizer: Any
    ) -> Self:
        """Make it of its description and weights."""
        names = ("tokenizer_identity", "speakers", "languages")
        found = cls(**{name: told[name] for name in names}, **told["config"])
        found.network.load_state_dict(tensors)
        return found
