"""Units of the Mimi codec: its semantic codebook, or more of them.

By ``transformers``: SpeechBrain's wrapper asks the hub even for a model that is
there, passes lengths as rounded fractions, and returns tokens for padding; the
one of a last frame that is not full depends on what follows in the batch.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechbrain_slm.units.tokenizers.codebook import UNDECIDED, border_distance
from speechbrain_slm.units.tokenizers.codec import Codec
from speechbrain_slm.units.tokenizers.pretrained import (
    inference,
    load_config,
    load_model,
)


class Mimi(Codec):
    """Mimi codec: 12.5 frames a second, of which the first code is semantic.

    A waveform is filled up with zeros to whole frames, as in Mimi's own code.
    The model is causal, so nothing behind an utterance in a batch reaches it.
    Where the rounding in a batch could decide a code, it is encoded alone.

    Arguments are those of :class:`Codec`.
    """

    kind = "mimi"

    @functools.cached_property
    def _settings(self) -> Any:
        config = load_config(self.source, ("mimi",))
        self._check_number("num_codebooks", config.num_quantizers)
        return config

    def _load(self) -> torch.nn.Module:
        model = load_model(self.source, self._settings)
        quantizer = model.quantizer
        semantic = quantizer.semantic_residual_vector_quantizer.layers
        acoustic = quantizer.acoustic_residual_vector_quantizer.layers
        for layer in [*semantic, *acoustic][: self.num_codebooks]:
            self._watch(layer.codebook)
        return model

    def _watch(self, codebook):
        """Note how far what is quantized is from the next code."""
        quantize = codebook.quantize

        def watched(hidden):
            codes = quantize(hidden)
            points = hidden.float()
            border = border_distance(points, codebook.embed.float(), codes)
            self._borders.append((border, points.norm(dim=1)))
            return codes

        # The distances are at hand here, and nowhere else unless encoded twice.
        codebook.quantize = watched

    @property
    def _measures(self) -> tuple[int, float, int]:
        config = self._settings
        return config.sampling_rate, config.frame_rate, config.codebook_size

    def _codes(self, wavs: Tensor, lengths: Tensor) -> list[np.ndarray]:
        samples = round(self._measures[0] / self._measures[1])
        # Rounded up: 1,921 samples are two frames of 1,920.
        frames = [-(-int(length) // samples) for length in lengths]
        padded = torch.zeros(len(wavs), max(frames) * samples)
        for row, wav, length in zip(padded, wavs, lengths, strict=True):
            row[: int(length)] = wav[: int(length)]
        if not padded.numel():  # which the model does not take
            return [np.zeros((self.num_codebooks, 0), np.int64)] * len(frames)
        codes, undecided = self._forward(padded)
        encoded = []
        for i, count in enumerate(frames):
            row = codes[i, :, :count]
            # Alone there is nothing to differ from.
            if len(frames) > 1 and undecided[i, :count].any():
                row = self._forward(padded[i : i + 1, : count * samples])[0][0]
            encoded.append(row)
        return encoded

    def _forward(self, padded):
        """Return codes, ``[B, Q, F]``, and what rounding may decide, [B, F]."""
        # Of each codebook: distances to the border, and norms.
        self._borders = []
        wavs = padded[:, None].to(self.device)
        with inference(self.device, self.precision):
            found = self._model.encode(wavs, num_quantizers=self.num_codebooks)
        codes = found.audio_codes
        borders, norms = map(torch.stack, zip(*self._borders, strict=True))
        # Residuals are small, but what was rounded was not.
        undecided = borders.amin(dim=0) < UNDECIDED * norms.amax(dim=0)
        undecided &= torch.tensor(self.precision == "fp32")
        undecided = undecided.view(len(codes), -1)
        return codes.cpu().numpy(), undecided.cpu().numpy()

    def _waveform(self, codes: Tensor) -> Tensor:
        return self._model.decode(codes[None]).audio_values[0, 0]
