"""Unit HiFi-GAN: SpeechBrain's generator, told who speaks which language.

The parts are those of ``speechbrain.lobes.models.HifiGAN``; the sizes that
stand as defaults are of the published unit vocoders (Polyak et al., 2021).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.lobes.models.HifiGAN import (
    DiscriminatorP,
    HifiganDiscriminator,
    UnitHifiganGenerator,
)
from torch import Tensor
from torch.nn.utils import parametrize

from speechbrain_slm.models.vocoders import base
from speechbrain_slm.models.vocoders.conditioning import (
    Conditioning,
    Durations,
    check_units,
    numbers_of,
    pad_units,
    whole_durations,
)

BATCH_SECONDS = 60  # of speech that is made at once, with padding
_NO_SIZES = ("self", "__class__")


class UnitHifigan(torch.nn.Module):
    """Units, a speaker and a language in, a waveform out.

    Arguments
    ---------
    embedding_dim, conditioning_dim : Of a unit; of speaker and language.
    upsample_factors : Their product is the samples of a frame.
    resblock_dilation_sizes : One list for each of ``resblock_kernel_sizes``.
    deduplicated : Predict how many frames each unit lasts.

    Example
    -------
    >>> model = UnitHifigan(100, 2, 2, upsample_initial_channel=32)
    >>> units = torch.randint(100, (1, 30))
    >>> wavs, _ = model(units, *torch.tensor([[0], [1]]))
    >>> wavs.shape
    torch.Size([1, 9600])
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_speakers: int,
        num_languages: int,
        embedding_dim: int = 128,
        conditioning_dim: int = 128,
        upsample_factors: Sequence[int] = (5, 4, 4, 2, 2),
        upsample_kernel_sizes: Sequence[int] = (11, 8, 8, 4, 4),
        upsample_initial_channel: int = 512,
        resblock_kernel_sizes: Sequence[int] = (3, 7, 11),
        resblock_dilation_sizes: Sequence[Sequence[int]] = ((1, 3, 5),) * 3,
        deduplicated: bool = False,
        duration_hidden_size: int = 128,
        duration_dropout: float = 0.5,
    ) -> None:
        # What makes another one of these sizes; JSON holds it.
        here = {k: v for k, v in locals().items() if k not in _NO_SIZES}
        super().__init__()
        self.sizes: dict[str, Any] = json.loads(json.dumps(here))
        dim = embedding_dim + conditioning_dim
        self.conditioning = Conditioning(
            num_speakers, num_languages, conditioning_dim
        )
        self.generator = UnitHifiganGenerator(
            in_channels=dim,
            out_channels=1,
            resblock_type="1",
            resblock_dilation_sizes=resblock_dilation_sizes,
            resblock_kernel_sizes=resblock_kernel_sizes,
            upsample_kernel_sizes=upsample_kernel_sizes,
            upsample_initial_channel=upsample_initial_channel,
            upsample_factors=upsample_factors,
            vocab_size=vocabulary_size,
            embedding_dim=embedding_dim,
            multi_speaker=True,
            pooling_type="none",
        )
        self.durations = (
            Durations(dim, duration_hidden_size, duration_dropout)
            if deduplicated
            else None
        )
        self.samples_per_frame = math.prod(upsample_factors)
        # How many frames to either side a sample depends on.
        reach, rate = 3.0, 1  # of the first convolution
        widest = zip(
            resblock_kernel_sizes, resblock_dilation_sizes, strict=True
        )
        block = max((k // 2) * (sum(d) + len(d)) for k, d in widest)
        ups = zip(upsample_factors, upsample_kernel_sizes, strict=True)
        for factor, kernel in ups:
            reach += (kernel / factor + 1) / rate
            rate *= factor
            reach += block / rate
        self.reach = math.ceil(reach + 3 / rate)

    def forward(
        self,
        units: Tensor,
        speakers: Tensor,
        languages: Tensor,
        runs: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return waveforms, ``[B, T]``, and what ``durations`` says.

        Arguments
        ---------
        units : Of each frame, ``[B, F]``.
        speakers, languages : Numbers for ``conditioning``.
        runs : De-duplicated units of the same speakers, ``[B, U]``.
        """
        conditions = self.conditioning(speakers, languages)
        wavs = self.generate(units, conditions)
        if runs is None or self.durations is None:
            return wavs, None
        return wavs, self.durations(self.features(runs, conditions))

    def generate(self, units: Tensor, conditions: Tensor) -> Tensor:
        """Return waveforms of frames ``[B, F]`` and conditions ``[B, C]``."""
        return self.generator(units[..., None], spk=conditions)[0][:, 0]

    def features(self, units: Tensor, conditions: Tensor) -> Tensor:
        """Return what :class:`Durations` takes, ``[B, U, E + C]``."""
        embedded = self.generator.unit_embedding(units)
        told = conditions[:, None].expand(-1, units.shape[1], -1)
        return torch.cat([embedded, told], dim=-1)

    def without_weight_norm(self) -> UnitHifigan:
        """Return a copy for inference, whose weights are plain."""
        # Not a deepcopy: it shares with its origin the class that weight norm
        # gives a layer, and which is taken apart here.
        model = UnitHifigan(**self.sizes).eval()
        if not parametrize.is_parametrized(self.generator.conv_pre.conv):
            _plain(model)
        model.load_state_dict(self.state_dict())
        return _plain(model).requires_grad_(False)


def _plain(model: UnitHifigan) -> UnitHifigan:
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return model


class Discriminator(HifiganDiscriminator):
    """SpeechBrain's discriminators, or some of them.

    Arguments
    ---------
    periods : One discriminator each, of every n-th sample.
    scales : How many look at the waveform, at half the rate each; at most 3.
    """

    def __init__(
        self, periods: Sequence[int] = (2, 3, 5, 7, 11), scales: int = 3
    ) -> None:
        super().__init__()
        parts = [DiscriminatorP(period) for period in periods]
        self.mpd.discriminators = torch.nn.ModuleList(parts)
        self.msd.discriminators = self.msd.discriminators[:scales]


class HifiganVocoder:
    """A :class:`UnitHifigan` that speaks; see ``base.Vocoder``.

    Arguments
    ---------
    tokenizer_identity, speakers, languages, deduplicated
        See ``base.Vocoder``.
    sample_rate, frame_rate, vocabulary_size : Those of the tokenizer.
    **sizes : More arguments of :class:`UnitHifigan`.
    """

    def __init__(
        self,
        tokenizer_identity: str,
        speakers: Sequence[str],
        languages: Sequence[str],
        deduplicated: bool,
        sample_rate: int,
        frame_rate: float,
        vocabulary_size: int,
        **sizes: Any,
    ) -> None:
        self.tokenizer_identity = tokenizer_identity
        self.speakers, self.languages = list(speakers), list(languages)
        self.deduplicated, self.sample_rate = deduplicated, sample_rate
        self.vocabulary_size = vocabulary_size
        self.network = UnitHifigan(
            vocabulary_size,
            len(self.speakers),
            len(self.languages),
            deduplicated=deduplicated,
            **sizes,
        )
        expected = sample_rate / frame_rate
        if not math.isclose(self.network.samples_per_frame, expected):
            raise ValueError(
                f"upsample_factors make {self.network.samples_per_frame} "
                f"samples of a frame; expected a product of {expected:g}: "
                f"{sample_rate} Hz, {frame_rate:g} units a second"
            )
        self.config = {
            "deduplicated": deduplicated,
            "sample_rate": sample_rate,
            "frame_rate": frame_rate,
            "vocabulary_size": vocabulary_size,
            **sizes,
        }
        self.device = torch.device("cpu")

    def _weights(self) -> dict[str, Tensor]:
        return self.network.without_weight_norm().state_dict()

    @property
    def identity(self) -> str:
        """Hash of the configuration, the names and the weights."""
        return base.vocoder_identity(self, self._weights())

    def to(self, device: str) -> HifiganVocoder:
        """Compute on another device from now on."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    def save(self, folder: str | Path) -> None:
        """Write what ``load_vocoder`` reads."""
        base.save_vocoder(folder, "hifigan", self, self._weights())

    @classmethod
    def from_saved(
        cls, told: dict[str, Any], tensors: dict[str, Tensor], tokenizer: Any
    ) -> HifiganVocoder:
        """Make it of its description and weights; for ``load_vocoder``."""
        facts = ("tokenizer_identity", "speakers", "languages")
        found = cls(**{name: told[name] for name in facts}, **told["config"])
        _plain(found.network).load_state_dict(tensors)
        return found

    @torch.no_grad()
    def speak(
        self,
        units: Sequence[np.ndarray],
        speakers: list[str] | None = None,
        languages: list[str] | None = None,
    ) -> list[Tensor]:
        """Turn units into waveforms; see ``base.Vocoder``."""
        self.network.eval()
        units, count = [np.asarray(one) for one in units], len(units)
        known = self.languages
        who = numbers_of(speakers, self.speakers, "speaker", count, 0)
        what = numbers_of(languages, known, "language", count, len(known))
        told = torch.tensor([who, what]).to(self.device)
        wavs = [torch.zeros(0)] * count
        # One by one: where a duration is rounded, an error of the last digit
        # would be a frame.
        frames = {
            i: self._frames(one, told[:, i, None])
            for i, one in enumerate(units)
            if len(one)
        }
        most = BATCH_SECONDS * self.sample_rate / self.network.samples_per_frame
        batch: list[int] = []
        # The shortest first: each one that comes is the longest of its batch.
        for i in sorted(frames, key=lambda i: len(frames[i])):
            length = len(frames[i]) + self.network.reach
            if batch and length * (len(batch) + 1) > most:
                self._speak(batch, frames, told, wavs)
                batch = []
            batch.append(i)
        if batch:
            self._speak(batch, frames, told, wavs)
        return wavs

    def _frames(self, units: np.ndarray, told: Tensor) -> np.ndarray:
        """Write each unit as often as it has frames."""
        check_units(units, self.vocabulary_size)
        if self.network.durations is None:
            return units
        padded = pad_units([units]).to(self.device)
        conditions = self.network.conditioning(*told)
        features = self.network.features(padded, conditions)
        logarithms = self.network.durations(features)[0, : len(units)]
        return np.repeat(units, whole_durations(logarithms).cpu().numpy())

    def _speak(self, batch, frames, told, wavs):
        """Fill in the waveforms of a batch."""
        # Behind each utterance its last unit goes on as far as a sample sees.
        chosen = [frames[i] for i in batch]
        padded = pad_units(chosen, self.network.reach).to(self.device)
        conditions = self.network.conditioning(*told[:, batch])
        made = self.network.generate(padded, conditions).cpu()
        for i, one, wav in zip(batch, chosen, made, strict=True):
            # Not a view, which would keep the whole batch.
            length = len(one) * self.network.samples_per_frame
            wavs[i] = wav[:length].clone()
