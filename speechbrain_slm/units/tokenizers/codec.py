"""Units of neural codecs: the first codebook, or more of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from speechbrain_slm.units.tokenizers import base
from speechbrain_slm.units.tokenizers.pretrained import (
    PretrainedModel,
    inference,
)
from speechbrain_slm.utils.hashing import difference, identity_of
from speechbrain_slm.utils.store_format import TOKENIZER_FIELDS, read_info

if TYPE_CHECKING:
    from typing_extensions import Self


def interleave(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """Write codes, ``[Q, F]``, of Q codebooks as one stream of units.

    Frame by frame, the first codebook first, each with a range of units of
    its own (the *flattened* pattern of MusicGen and AudioLM).

    Example
    -------
    >>> interleave(np.array([[1, 2], [3, 0]]), codebook_size=10).tolist()
    [1, 13, 2, 10]
    """
    # A unit says of which codebook it is: a model need not count places.
    offsets = np.arange(len(codes))[:, None] * codebook_size
    return (codes + offsets).T.reshape(-1)


def separate(
    units: Sequence[int], num_codebooks: int, codebook_size: int
) -> np.ndarray:
    """Undo :func:`interleave`, where each unit is of its codebook's range."""
    if len(units) % num_codebooks:
        raise ValueError(
            f"{len(units)} units are no whole number of frames of "
            f"{num_codebooks} codebooks"
        )
    codes = np.asarray(units, dtype=np.int64).reshape(-1, num_codebooks).T
    codes = codes - np.arange(num_codebooks)[:, None] * codebook_size
    if ((codes < 0) | (codes >= codebook_size)).any():
        raise ValueError(
            f"units out of place: expected those of {num_codebooks} codebooks "
            f"of {codebook_size} in turn, frame by frame"
        )
    return codes


class Codec(PretrainedModel):
    """A tokenizer that needs no fit; subclasses know a codec's model.

    Arguments
    ---------
    source, precision : See :class:`PretrainedModel`.
    num_codebooks
        1: the semantic codebook alone. More: the acoustic ones as well, one
        stream of units (see :func:`interleave`).
    deduplicate : Write a unit that repeats itself once. For one codebook only.
    """

    fitted = True
    equal_lengths = False
    choices = ("num_codebooks", "sample_rate")
    # Of the model: sample rate (Hz), frames a second, and codebook size.
    _measures: Any
    _codes: Any  # of wavs and lengths the codes, [Q, F] each
    _waveform: Any  # undoes that for the codes of one utterance

    def __init__(
        self,
        source: str | Path,
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
        self.num_codebooks, self.deduplicated = num_codebooks, deduplicate

    @property
    def identity(self) -> str:
        """Hash of the configuration, weights included."""
        return identity_of(self.config)

    @property
    def sample_rate(self) -> int:
        """Of the waveforms that the model expects, in Hz."""
        return self._measures[0]

    @property
    def frame_rate(self) -> float:
        """Units a second of speech, of all codebooks together."""
        return float(self._measures[1] * self.num_codebooks)

    @property
    def vocabulary_size(self) -> int:
        """Units are in ``[0, vocabulary_size)``."""
        return self._measures[2] * self.num_codebooks

    def encode(
        self, wavs: Tensor, lengths: Tensor, languages: list[str] | None = None
    ) -> list[np.ndarray | None]:
        """Turn waveforms into units; see :meth:`Tokenizer.encode`."""
        codes = self._codes(wavs, lengths)
        return [self._finish(one.T, None) for one in codes]

    def _finish(self, codes: np.ndarray, language: str | None) -> np.ndarray:
        """Write an utterance's codes, ``[F, Q]``, as units."""
        units = interleave(codes.T, self._measures[2])
        return base.deduplicate(units) if self.deduplicated else units

    def decode(self, units: Sequence[int]) -> Tensor:
        """Turn an utterance's units, each frame's, into a waveform, ``[T]``.

        From the semantic codebook alone it says the words, in no good voice.
        """
        return self.waveform(self.codes(units))

    def codes(self, units: Sequence[int]) -> np.ndarray:
        """Return the codes, ``[Q, F]``, that units of each frame stand for."""
        return separate(units, self.num_codebooks, self._measures[2])

    def waveform(self, codes: np.ndarray) -> Tensor:
        """Turn codes, ``[Q, F]``, of the first Q codebooks into a waveform."""
        with inference(self.device, "fp32"):
            wav = self._waveform(torch.from_numpy(codes).to(self.device))
        # A copy, which may be changed, as a tensor of inference mode may not.
        return wav.cpu().clone()

    def with_codebooks(self, num_codebooks: int) -> Self:
        """Return the same codec for other codebooks, not de-duplicated."""
        other = type(self)(self.source, num_codebooks, False, self.precision)
        if "_model" in vars(self):  # which is loaded once
            vars(other)["_model"] = self._model
        return other.to(self.device)

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.json``; the model stays where it is."""
        base.save_description(folder, self.config, self.identity, self.source)


def describe_codec(
    codec: Codec, like: str | Path | None = None
) -> dict[str, Any]:
    """Return what a unit store says of a codec (see :func:`base.describe`).

    ValueError if ``like`` holds other units.

    Arguments
    ---------
    like : A store that was made with the codec; its weights are not needed.
    """
    if like is None:
        try:
            return {name: getattr(codec, name) for name in TOKENIZER_FIELDS}
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error} Or name as 'like' a unit store that was made with "
                "this codec: it says the codec's identity, for which its "
                "weights would be read."
            ) from error
    told = read_info(like)["tokenizer"]
    expected: dict[str, Any] = {"type": codec.kind}
    expected["num_codebooks"] = codec.num_codebooks
    expected["deduplicate"] = codec.deduplicated
    found = {name: told["config"].get(name) for name in expected}
    if wrong := difference(expected, found):
        raise ValueError(
            f"{like} holds other units than 'units' says ({'; '.join(wrong)}); "
            "name a store of this codec, or change 'units'"
        )
    return told
