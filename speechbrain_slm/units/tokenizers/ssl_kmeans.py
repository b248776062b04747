"""Units of self-supervised encoders: a layer of HuBERT or WavLM, and k-means.

Batches do not change units: the layers see a mask, and the base models' group
normalization, which averages over time, sees each utterance without padding.
"""

import functools
import math
from typing import Any

import torch
from torch import nn

from speechbrain_slm.units.tokenizers.convolutions import use_products
from speechbrain_slm.units.tokenizers.pretrained import (
    LayerKMeans,
    inference,
    load_config,
    load_model,
)

MODEL_TYPES = ("hubert", "wavlm", "wav2vec2")
EPSILON = 1e-7  # of the models' own waveform normalization


class _UnpaddedGroupNorm(nn.GroupNorm):
    """Group normalization over the frames that are not padding."""

    frames: list[int] = []  # noqa: RUF012, of each utterance of the batch to come

    def forward(self, hidden):
        # Utterance by utterance: the same operation as without a batch.
        for i, frames in enumerate(self.frames):
            speech = hidden[i : i + 1, :, :frames]
            hidden[i : i + 1, :, :frames] = super().forward(speech)
        return hidden


class SSLKMeans(LayerKMeans):
    """Features of a self-supervised encoder's layer, then k-means.

    Arguments are those of :class:`LayerKMeans`; ``source`` is a HuBERT, WavLM
    or wav2vec 2.0 model.
    """

    kind = "ssl_kmeans"
    choices = (*LayerKMeans.choices, "model", "normalize", "sample_rate")

    @functools.cached_property
    def _settings(self) -> Any:
        config = load_config(self.source, MODEL_TYPES)
        self._check_number("layer", config.num_hidden_layers)
        config.num_hidden_layers = self.layer
        return config

    @functools.cached_property
    def _preprocessor(self) -> dict[str, Any]:
        from transformers import FeatureExtractionMixin as Mixin

        try:
            return Mixin.get_feature_extractor_dict(self.source)[0]
        except OSError:  # the model has no preprocessor_config.json
            return {}

    def _load(self) -> nn.Module:
        model = load_model(self.source, self._settings)
        if self._settings.do_stable_layer_norm:
            # It belongs behind the last layer of the whole model.
            model.encoder.layer_norm = nn.Identity()
        if self._settings.feat_extract_norm == "group":
            # The weights stay where they are: only what is done changes.
            first = model.feature_extractor.conv_layers[0]
            first.layer_norm.__class__ = _UnpaddedGroupNorm
        use_products(model)
        return model

    @property
    def model(self) -> str:
        """Which of ``MODEL_TYPES`` it is."""
        return self._settings.model_type

    @property
    def normalize(self) -> bool:
        """Whether waveforms are scaled to mean 0 and variance 1."""
        # Where the model does not say, as its authors' code (fairseq) does:
        # with layer normalization of the convolutions, and then only.
        default = self._settings.feat_extract_norm == "layer"
        return bool(self._preprocessor.get("do_normalize", default))

    @property
    def sample_rate(self) -> int:
        """Of the waveforms that the model expects, in Hz."""
        return self._preprocessor.get("sampling_rate", 16000)

    @property
    def frame_rate(self) -> float:
        """Units a second of speech, before de-duplication."""
        return self.sample_rate / math.prod(self._settings.conv_stride)

    @property
    def feature_size(self) -> int:
        """Size of the vectors that are clustered."""
        return self._settings.hidden_size

    # transformers counts them for all convolutions, and not for the first.
    def _frames(self, samples, convolutions=None):
        """Count the frames of a waveform, behind the first convolutions."""
        shapes = (self._settings.conv_kernel, self._settings.conv_stride)
        for kernel, stride in list(zip(*shapes, strict=True))[:convolutions]:
            samples = max(0, (samples - kernel) // stride + 1)
        return samples

    # A waveform that is shorter than the receptive field gives no frame.
    def _features(self, wavs, lengths, precision):
        counts = lengths.tolist()
        frames = [self._frames(count) for count in counts]
        none = torch.zeros(0, self.feature_size, device=self.device)
        features = [none.double() if precision == "fp64" else none] * len(
            counts
        )
        long = [i for i, number in enumerate(frames) if number]
        if not long:
            return features
        # Behind a batch normalization, an option of HuBERT, padding is no
        # longer 0, and the positional convolution would mix it in.
        single = getattr(self._settings, "conv_pos_batch_norm", False)
        for batch in [[i] for i in long] if single else [long]:
            samples = [counts[i] for i in batch]
            there = wavs.to(self.device, non_blocking=True)
            # All of them as they are, where none is left out: no copy.
            if batch != list(range(len(counts))):
                there = there[batch]
            with inference(self.device, precision):
                there = there[:, : max(samples)]
                output = self._forward(there, samples, precision)
            # In float32 from here on: distances in bfloat16 decide nothing.
            if precision == "bf16":
                output = output.float()
            for row, i in zip(output, batch, strict=True):
                features[i] = row[: frames[i]]
        return features

    def _forward(self, wavs, samples, precision):
        model = self._model_in(precision)
        if precision == "fp64":
            wavs = wavs.double()
        ends = torch.tensor(samples).to(self.device, non_blocking=True)
        places = torch.arange(wavs.shape[1], device=self.device)
        mask = places < ends[:, None]
        padded = torch.where(mask, wavs, 0)
        if self.normalize:  # over the speech, and not its padding
            for i, count in enumerate(samples):
                wav = padded[i, :count]
                variance = wav.var(correction=0)
                wav -= wav.mean()
                wav /= (variance + EPSILON).sqrt()
        first = model.feature_extractor.conv_layers[0]
        if self._settings.feat_extract_norm == "group":
            first.layer_norm.frames = [self._frames(n, 1) for n in samples]
        found = model(padded, attention_mask=mask.long())
        return found.last_hidden_state
