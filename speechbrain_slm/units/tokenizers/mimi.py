"""Units of the Mimi codec: its semantic codebook, or more of them.

By ``transformers``: SpeechBrain's wrapper asks the hub even for a model that is
there, passes lengths as rounded fractions, and returns tokens for padding; the
one of a last frame that is not full depends on what follows in the batch.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.models.mimi import modeling_mimi

from speechbrain_slm.units.tokenizers.batches import (
    BROKEN,
    ROUNDED,
    Found,
    InBatches,
)
from speechbrain_slm.units.tokenizers.codebook import UNDECIDED, Codebook
from speechbrain_slm.units.tokenizers.codec import Codec
from speechbrain_slm.units.tokenizers.convolutions import (
    applies,
    pad_frames,
    use_products,
)
from speechbrain_slm.units.tokenizers.pretrained import (
    inference,
    load_config,
    load_model,
)


class _Convolution(modeling_mimi.MimiConv1d):
    """A convolution that pads without asking the device for lengths."""

    def forward(self, hidden_states, padding_cache=None):
        if padding_cache is not None or not applies(hidden_states):
            return super().forward(hidden_states, padding_cache)
        (kernel,), (stride,) = self.conv.kernel_size, self.conv.stride
        total = (kernel - 1) * self.conv.dilation[0] + 1 - stride
        right = 0 if self.causal else total // 2
        # Filled up to whole strides.
        sides = total - right, right + -hidden_states.shape[2] % stride
        return self.conv(pad_frames(hidden_states, *sides, self.pad_mode))


class _Codebook(modeling_mimi.MimiEuclideanCodebook):
    """A codebook that notes how far what it quantizes is from the next code."""

    @property
    def embed(self):
        # Anew each time: the model may have moved to another device.
        return (
            self.embed_sum / self.cluster_usage.clamp(min=self.epsilon)[:, None]
        )

    def quantize(self, hidden_states):
        # The distances are at hand here, and nowhere else unless made twice.
        book, embed = self.__dict__.get("book"), self.embed_sum
        where = embed.device, embed.dtype
        if (
            book is None
            or (book.centroids.device, book.centroids.dtype) != where
        ):
            self.book = book = Codebook(self.embed)
        # Distances in bfloat16 decide nothing.
        with inference(embed.device, "fp32"):
            codes, *self.told = book.nearest(hidden_states.to(embed.dtype))
        return codes


class Mimi(InBatches, Codec):
    """Mimi codec: 12.5 frames a second, of which the first code is semantic.

    A waveform is filled up with zeros to whole frames, as in Mimi's own code.
    The model is causal, so nothing behind an utterance in a batch reaches it.

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
        use_products(model)
        for module in model.modules():
            # The weights stay where they are: only what is done changes.
            if type(module) is modeling_mimi.MimiConv1d:
                module.__class__ = _Convolution
            elif type(module) is modeling_mimi.MimiEuclideanCodebook:
                module.__class__ = _Codebook
        return model

    @property
    def _measures(self) -> tuple[int, float, int]:
        config = self._settings
        return config.sampling_rate, config.frame_rate, config.codebook_size

    def _compute(
        self,
        wavs: Tensor,
        lengths: Tensor,
        languages: list[str] | None,
        precision: str,
    ) -> Found:
        model = self._model_in(precision)
        samples = round(self._measures[0] / self._measures[1])
        # Rounded up: 1,921 samples are two frames of 1,920.
        counts = [-(-length // samples) for length in lengths.tolist()]
        frames, books = max(counts), self.num_codebooks
        if not frames:  # which the model does not take
            none = torch.zeros(0, books, dtype=torch.int64)
            return Found(
                none, none[:, 0].to(torch.int8), [slice(0)] * len(counts)
            )
        with inference(self.device, precision):
            wavs = wavs.to(self.device, non_blocking=True)
            wavs = pad(wavs, (0, frames * samples - wavs.shape[1]))
            ends = lengths.to(self.device, non_blocking=True)[:, None]
            places = torch.arange(wavs.shape[1], device=self.device)
            wavs = torch.where(places < ends, wavs, 0)[:, None]
            if precision == "fp64":
                wavs = wavs.double()
            codes = model.encode(wavs, num_quantizers=books).audio_codes
            states = self._states(model.quantizer)
        # Frame by frame, [B * F, Q].
        codes = codes.transpose(1, 2).reshape(-1, books)
        starts = range(0, len(codes), frames)
        spans = zip(starts, counts, strict=True)
        return Found(codes, states, [slice(i, i + n) for i, n in spans])

    def _states(self, quantizer):
        """Tell of each frame, ``[B * F]``, whether rounding may decide it."""
        semantic = quantizer.semantic_residual_vector_quantizer.layers
        acoustic = quantizer.acoustic_residual_vector_quantizer.layers
        used = [*semantic, *acoustic][: self.num_codebooks]
        told = [layer.codebook.told for layer in used]
        borders, norms = map(torch.stack, zip(*told, strict=True))
        # Residuals are small, but what was rounded was not.
        norms = norms.amax(dim=0)
        near = borders.amin(dim=0) <= UNDECIDED * norms
        # All comparisons with NaN are false: it would be the first code.
        return torch.where(norms.isfinite(), near * ROUNDED, BROKEN).to(
            torch.int8
        )

    def _waveform(self, codes: Tensor) -> Tensor:
        return self._model.decode(codes[None]).audio_values[0, 0]
