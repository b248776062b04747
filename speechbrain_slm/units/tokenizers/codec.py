"""Units of neural codecs: the first codebook, or more of them."""

from collections.abc import Sequence
from pathlib import Path

import torch

from speechbrain_slm.units.tokenizers import base as tokenizer
from speechbrain_slm.units.tokenizers.pretrained import (
    PretrainedModel,
    inference,
)
from speechbrain_slm.utils.hashing import identity_of


class Codec(PretrainedModel):
    """A tokenizer that needs no fit; subclasses know a codec's model.

    A subclass has ``sample_rate``, ``_frames_per_second`` and
    ``_codebook_size``, ``_codes(wavs, lengths)``, which yields the codes of
    each utterance, ``[Q, F]``, and ``_waveform(codes)``, which undoes that.

    Arguments
    ---------
    source : A hub name or a local folder.
    num_codebooks
        1: the semantic codebook alone. More: the acoustic ones as well, one
        stream of units frame by frame (see
        :func:`speechbrain_slm.units.tokenizers.base.interleave`).
    deduplicate : Write a unit that repeats itself once. For one codebook only.
    precision : ``fp32`` or ``bf16`` (see :class:`PretrainedModel`).
    """

    fitted = True
    equal_lengths = False

    def __init__(
        self,
        source: str,
        num_codebooks: int = 1,
        deduplicate: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__(source, precision)
        if deduplicate and num_codebooks != 1:
            raise ValueError(
                f"deduplicate is True for {num_codebooks} codebooks; expected "
                "False: in their stream of units none follows itself"
            )
        self.num_codebooks = num_codebooks
        self.deduplicated = deduplicate

    def _check_codebooks(self, there_are):
        if not 1 <= self.num_codebooks <= there_are:
            raise ValueError(
                f"num_codebooks is {self.num_codebooks}; {self.source} has "
                f"{there_are}"
            )

    def _choices(self):
        return {
            "num_codebooks": self.num_codebooks,
            "sample_rate": self.sample_rate,
        }

    @property
    def identity(self):
        """Hash of the configuration, weights included."""
        return identity_of(self.config)

    @property
    def frame_rate(self):
        """Units a second of speech, of all codebooks together."""
        return float(self._frames_per_second * self.num_codebooks)

    @property
    def vocabulary_size(self):
        """Units are in ``[0, vocabulary_size)``."""
        return self._codebook_size * self.num_codebooks

    def encode(self, wavs, lengths, languages=None):
        """Turn waveforms into units; see :meth:`Tokenizer.encode`."""
        encoded = [
            tokenizer.interleave(codes, self._codebook_size)
            for codes in self._codes(wavs, lengths)
        ]
        if self.deduplicated:
            encoded = [tokenizer.deduplicate(units) for units in encoded]
        return encoded

    def decode(self, units: Sequence[int]) -> torch.Tensor:
        """Turn units into a waveform.

        From the semantic codebook alone it says the words, in no good voice.

        Arguments
        ---------
        units : Of one utterance, not de-duplicated.

        Returns
        -------
        Waveform, ``[T]``, float32, of whole frames.

        Raises
        ------
        ValueError
            If the units are not a whole number of frames.
        """
        codes = tokenizer.separate(
            units, self.num_codebooks, self._codebook_size
        )
        with inference(self.device, "fp32"):
            wav = self._waveform(torch.from_numpy(codes).to(self.device))
        return wav.cpu()

    def save(self, folder: str | Path) -> None:
        """Write what the tokenizer is; the model stays where it is.

        Arguments
        ---------
        folder : Gets ``tokenizer.json``.
        """
        tokenizer.save_description(self, folder)
