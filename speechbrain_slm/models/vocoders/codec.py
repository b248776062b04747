"""A codec's own decoder as the vocoder of its units.

What it can give depends on the codebooks. The semantic one alone holds what
was said, and next to nothing of who said it and how: it was trained to. The
acoustic ones are in the units (``num_codebooks`` of the tokenizer), or an
:class:`AcousticModel` predicts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechbrain_slm.models.vocoders import base
from speechbrain_slm.models.vocoders.acoustic import AcousticModel
from speechbrain_slm.models.vocoders.conditioning import (
    check_units,
    numbers_of,
    pad_units,
    whole_durations,
)


class CodecVocoder:
    """Speak the units of a codec; see ``base.Vocoder``.

    Arguments
    ---------
    tokenizer : The codec, whose decoder it is.
    speakers, languages : Those of the acoustic model; without one, none.
    acoustic
        The arguments of an :class:`AcousticModel`, which gives the codebooks
        that the units lack. None: the decoder gets what the units hold.
    """

    def __init__(
        self,
        tokenizer: Any,
        speakers: Sequence[str] = (),
        languages: Sequence[str] = (),
        acoustic: dict[str, Any] | None = None,
    ) -> None:
        if acoustic is None and tokenizer.deduplicated:
            raise ValueError(
                "These units are de-duplicated, and a codec's decoder needs "
                "each frame's: train an acoustic model, which says how long "
                "each lasts, or set deduplicate to False"
            )
        if acoustic is not None and tokenizer.num_codebooks > 1:
            raise ValueError(
                f"These units hold {tokenizer.num_codebooks} codebooks; an "
                "acoustic model takes those of the semantic one alone"
            )
        self.tokenizer, self.config = tokenizer, {"acoustic": acoustic}
        self.speakers, self.languages = list(speakers), list(languages)
        self.sample_rate: int = tokenizer.sample_rate
        self.deduplicated: bool = tokenizer.deduplicated
        self.tokenizer_identity: str = tokenizer.identity
        self.network = None
        if acoustic is not None:
            self.network = AcousticModel(
                tokenizer.vocabulary_size,
                num_speakers=len(self.speakers),
                num_languages=len(self.languages),
                deduplicated=self.deduplicated,
                **acoustic,
            )
        self.device = torch.device("cpu")

    def _weights(self) -> dict[str, Tensor]:
        return {} if self.network is None else self.network.state_dict()

    @property
    def identity(self) -> str:
        """Hash of the configuration, the names and the weights."""
        return base.vocoder_identity(self, self._weights())

    def to(self, device: str) -> CodecVocoder:
        """Compute on another device from now on, the tokenizer too."""
        self.device = torch.device(device)
        self.tokenizer.to(device)
        if self.network is not None:
            self.network.to(self.device)
        return self

    def save(self, folder: str | Path) -> None:
        """Write what ``load_vocoder`` reads; the codec stays where it is."""
        base.save_vocoder(folder, "codec", self, self._weights())

    @classmethod
    def from_saved(
        cls, told: dict[str, Any], tensors: dict[str, Tensor], tokenizer: Any
    ) -> CodecVocoder:
        """Make it of its description and weights; for ``load_vocoder``."""
        if tokenizer is None:
            raise ValueError(
                "A codec's decoder is in its tokenizer: give load_vocoder the "
                "tokenizer of these units"
            )
        names = told["speakers"], told["languages"]
        found = cls(tokenizer, *names, **told["config"])
        if found.network is not None:
            found.network.load_state_dict(tensors)
        return found

    def speak(
        self,
        units: Sequence[np.ndarray],
        speakers: list[str] | None = None,
        languages: list[str] | None = None,
    ) -> list[Tensor]:
        """Turn units into waveforms; see ``base.Vocoder``."""
        count, known = len(units), self.languages
        who = numbers_of(speakers, self.speakers, "speaker", count, 0)
        if self.network is None:  # no language is known, nor needed
            languages = None
        else:
            self.network.eval()
        what = numbers_of(languages, known, "language", count, len(known))
        # One by one: convolutions round otherwise in a batch, and the
        # likeliest code may be another then.
        return [
            self._speak(np.asarray(one), [[speaker], [language]])
            for one, speaker, language in zip(units, who, what, strict=True)
        ]

    @torch.no_grad()
    def _speak(self, units: np.ndarray, told: list) -> Tensor:
        check_units(units, self.tokenizer.vocabulary_size)
        network = self.network
        if not len(units):
            return torch.zeros(0)
        if network is None:
            return self.tokenizer.decode(units)
        numbers = torch.tensor(told, device=self.device)
        conditions = network.conditioning(*numbers)
        if network.durations is not None:
            padded = pad_units([units]).to(self.device)
            features = network.features(padded, conditions)
            lengths = network.durations(features)[0, : len(units)]
            units = np.repeat(units, whole_durations(lengths).cpu().numpy())
        semantic = torch.from_numpy(units.astype(np.int64))[None]
        codes = network.predict(semantic.to(self.device), conditions)
        return self.tokenizer.waveform(codes[0].cpu().numpy())


def decoder_of(codec: Any) -> Any:
    """Return a codec's decoder as a vocoder, if it can do without training."""
    return None if codec.deduplicated else CodecVocoder(codec)
