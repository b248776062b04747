"""Units of Whisper's encoder: one of its layers, and k-means.

Whisper was trained on transcribed speech, so these units are not textless.
In exchange they say much about the phones and little about the speaker, and
small models are easily had.

The encoder was trained on windows of 30 s, filled up with silence. Here it
sees the speech and ``silence`` seconds behind it. With 1 s instead of all 30,
a sentence of 2 s takes a tenth of the time; with none, the units of two
voices differ a tenth more. Longer speech is cut into windows of 30 s, and no
window sees the others.
"""

import functools

import torch
from torch.nn.functional import gelu, pad
from transformers import WhisperFeatureExtractor

from speechbrain_slm.units.ctranslate2 import (
    is_ctranslate2,
    load_whisper_encoder,
)
from speechbrain_slm.units.kmeans import KMeansTokenizer
from speechbrain_slm.units.pretrained import (
    check_precision,
    inference,
    load_config,
    load_model,
    weights_identity,
)

SAMPLE_RATE = 16000  # Hz
HOP = 320  # samples from one of the encoder's frames to the next
MELS_PER_FRAME = 2


class WhisperKMeans(KMeansTokenizer):
    """Features of a layer of Whisper's encoder, then k-means.

    On CPUs utterances are encoded one by one, so that not a bit depends on
    what they are batched with. On GPUs the batch is padded and the padding
    masked: as exact, but for the rounding.

    Arguments
    ---------
    source : str
        A Whisper model: a hub name, a local folder of transformers, or a
        local folder of CTranslate2 (what faster-whisper uses).
    layer : int
        Encoder layer whose output is clustered, from 1. Layers above it are
        not kept.
    frames_per_unit : int
        20 ms frames whose mean is one point (2: 25 Hz).
    silence : float
        Seconds that the encoder sees behind the speech, or what is left of
        its window; 30 is as in Whisper's training.
    num_clusters : int
        Size of a codebook.
    centroids : str, optional
        A codebook's file (.npy, .safetensors) instead of a fit.
    codebooks : str
        ``joint`` or ``language`` (see :class:`KMeansTokenizer`).
    deduplicate : bool
        Write a unit that repeats itself once.
    precision : str
        ``fp32``, or ``bf16``: faster, but then the rounding, and with it a
        unit here and there, may depend on the batch.

    Example
    -------
    >>> from transformers import WhisperConfig, WhisperModel
    >>> config = WhisperConfig(d_model=16, encoder_layers=2, decoder_layers=1,
    ...     encoder_attention_heads=2, decoder_attention_heads=2)
    >>> folder = getfixture("tmp_path")
    >>> WhisperModel(config).save_pretrained(folder)
    >>> tokenizer = WhisperKMeans(folder, layer=1, num_clusters=4)
    >>> frames = tokenizer.features(torch.randn(1, 8000), torch.tensor([8000]))
    >>> tuple(frames[0].shape), tokenizer.frame_rate
    ((12, 16), 25.0)
    """

    sample_rate = SAMPLE_RATE
    patience = 100

    def __init__(
        self,
        source,
        layer,
        frames_per_unit=2,
        silence=1.0,
        num_clusters=100,
        centroids=None,
        codebooks="joint",
        deduplicate=True,
        precision="fp32",
    ):
        super().__init__(num_clusters, codebooks, deduplicate, centroids)
        check_precision(precision)
        if frames_per_unit < 1 or silence < 0:
            raise ValueError(
                f"frames_per_unit is {frames_per_unit} and silence {silence}; "
                "expected 1 or more, and 0 or more seconds"
            )
        self.source = source
        self.layer = layer
        self.frames_per_unit = frames_per_unit
        self.silence = silence
        self.frame_rate = SAMPLE_RATE / HOP / frames_per_unit
        self.precision = precision
        self.device = torch.device("cpu")

    @functools.cached_property
    def _encoder(self):
        if is_ctranslate2(self.source):
            encoder = load_whisper_encoder(self.source)
            self._check_layer(encoder.config)
            encoder.layers = encoder.layers[: self.layer]
        else:
            config = load_config(self.source, ("whisper",))
            self._check_layer(config)
            config.encoder_layers = self.layer
            config.decoder_layers = 0
            encoder = load_model(self.source, config).encoder
        # It belongs behind the last layer of the whole model.
        encoder.layer_norm = torch.nn.Identity()
        return encoder.requires_grad_(False).to(self.device)

    def _check_layer(self, config):
        if not 1 <= self.layer <= config.encoder_layers:
            raise ValueError(
                f"layer is {self.layer}; {self.source} has layers 1 to "
                f"{config.encoder_layers}"
            )

    @functools.cached_property
    def _spectrogram(self):
        num_mels = self._encoder.config.num_mel_bins
        return WhisperFeatureExtractor(feature_size=num_mels)

    @functools.cached_property
    def config(self):
        """What was chosen, and which weights it works with."""
        return {
            "type": "whisper_kmeans",
            "weights": weights_identity(self._encoder),
            "layer": self.layer,
            "frames_per_unit": self.frames_per_unit,
            "silence": self.silence,
            "num_clusters": self.num_clusters,
            "codebooks": self.codebooks,
            "deduplicate": self.deduplicated,
            "precision": self.precision,
        }

    @property
    def feature_size(self):
        """Size of the vectors that are clustered."""
        return self._encoder.config.d_model

    def to(self, device):
        """Compute on another device.

        Arguments
        ---------
        device : str
            ``cpu`` or ``cuda...``.

        Returns
        -------
        WhisperKMeans
            This one.
        """
        self.device = torch.device(device)
        if "_encoder" in self.__dict__:
            self._encoder.to(self.device)
        return self

    def features(self, wavs, lengths):
        """Compute the layer's output, ``frames_per_unit`` frames averaged.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, ``[B, T]``, float32.
        lengths : torch.Tensor
            Samples of each waveform that are not padding, ``[B]``.

        Returns
        -------
        list of torch.Tensor
            ``[U, feature_size]`` each, float32, on the tokenizer's device.
            Samples at the end that do not fill a unit give none.
        """
        window = self._encoder.config.max_source_positions * HOP
        windows, owners = [], []
        for owner, (wav, length) in enumerate(zip(wavs, lengths, strict=True)):
            for start in range(0, int(length), window):
                part = wav[start : min(start + window, int(length))]
                if len(part) >= HOP:
                    windows.append(part)
                    owners.append(owner)
        together = 1 if self.device.type == "cpu" else max(1, len(windows))
        frames = []
        with inference(self.device, self.precision):
            for start in range(0, len(windows), together):
                frames += self._forward(windows[start : start + together])
        features = []
        for owner in range(len(wavs)):
            parts = [
                part
                for part, other in zip(frames, owners, strict=True)
                if other == owner
            ]
            parts.insert(0, torch.zeros(0, self.feature_size).to(self.device))
            points = torch.cat(parts)
            count = len(points) // self.frames_per_unit
            points = points[: count * self.frames_per_unit]
            shape = (count, self.frames_per_unit, self.feature_size)
            features.append(points.reshape(shape).mean(dim=1))
        return features

    def _forward(self, windows):
        """Return the frames, ``[F, D]``, of each window."""
        encoder = self._encoder
        counts = [len(wav) // HOP for wav in windows]
        most = encoder.config.max_source_positions
        silence = round(self.silence * SAMPLE_RATE / HOP)
        seen = [min(count + silence, most) for count in counts]
        longest = max(seen)
        mels = [
            pad(
                self._mel(wav, frames), (0, MELS_PER_FRAME * (longest - frames))
            )
            for wav, frames in zip(windows, seen, strict=True)
        ]
        hidden = gelu(encoder.conv1(torch.stack(mels)))
        hidden = gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[:longest]
        mask = None
        if min(seen) < longest:
            places = torch.arange(longest, device=self.device)
            ends = torch.tensor(seen, device=self.device)
            mask = (places < ends[:, None])[:, None, None]
        for layer in encoder.layers:
            hidden = layer(hidden, mask)
        return [
            row[:count].float()
            for row, count in zip(hidden, counts, strict=True)
        ]

    def _mel(self, wav, frames):
        """Return the spectrogram of a window, ``[M, 2 * frames]``."""
        # With silence behind the speech, as in the windows of the training.
        num_samples = max(len(wav), frames * HOP) + self._spectrogram.n_fft
        mel = self._spectrogram(
            wav.cpu().numpy(),
            sampling_rate=SAMPLE_RATE,
            max_length=num_samples,
            return_tensors="pt",
        ).input_features[0]
        return mel[:, : MELS_PER_FRAME * frames].to(self.device)
