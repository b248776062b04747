"""What tells voices apart: an utterance in, a vector of unit length out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from speechbrain_slm.utils import pretrained
from speechbrain_slm.utils.hashing import tensors_identity

if TYPE_CHECKING:
    from typing_extensions import Self


class Encoder(Protocol):
    """What the speaker check asks of an encoder.

    Utterances are embedded one by one, so that a vector does not depend on
    what stands beside it in a batch.
    """

    @property
    def sample_rate(self) -> int:
        """Hz of what it embeds."""
        ...

    @property
    def identity(self) -> dict:
        """Whatever changes its vectors: JSON types."""
        ...

    def to(self, device: str | torch.device) -> Self:
        """Compute on another device; return itself."""
        ...

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """Return float32 [D] for a waveform, float32 [T]."""
        ...


class PitchHistogram:
    """The distribution of an utterance's pitch, which needs no download.

    The vector is the square root of a histogram, so the cosine of two is the
    overlap of their distributions (Bhattacharyya's coefficient): 1 where they
    are the same, 0 where they share no bin. It is no speaker verification: two
    people of one pitch are one to it. It does tell apart what a synthesizer
    makes of one voice by shifting its pitch.

    Arguments
    ---------
    low, high : The pitch's range, in Hz.
    semitones : Width of a bin, which is also how far each value is spread.
    """

    sample_rate = 16000
    _FRAME, _HOP = 640, 160  # samples: 40 ms, 10 ms
    _VOICED = 0.5  # of the energy repeats after one period

    def __init__(
        self, low: float = 60.0, high: float = 500.0, semitones: float = 1.0
    ) -> None:
        if not (0 < low < high and semitones > 0):
            raise ValueError(
                f"low is {low}, high is {high} and semitones is {semitones}; "
                "expected 0 < low < high, and a positive width"
            )
        self.low, self.high, self.semitones = low, high, semitones
        self.identity = {"type": "pitch", **vars(self), "version": 1}

    def to(self, device: str | torch.device) -> Self:
        """Stay on the CPU."""
        return self

    def pitch(self, wav: np.ndarray) -> np.ndarray:
        """Estimate the pitch, in Hz, of a waveform's voiced frames.

        It is the first strong peak of a frame's normalised autocorrelation.

        Example
        -------
        >>> time = np.arange(16000) / 16000
        >>> wav = np.sign(np.sin(2 * np.pi * 200 * time))
        >>> float(np.median(PitchHistogram().pitch(wav)))
        200.0
        """
        wav = np.pad(wav, (0, max(0, self._FRAME - len(wav))))
        window = np.hanning(self._FRAME)
        frames = np.lib.stride_tricks.sliding_window_view(wav, self._FRAME)
        frames = frames[:: self._HOP] * window
        frames = frames - frames.mean(axis=1, keepdims=True)
        energy = (frames**2).sum(axis=1)
        first = int(np.floor(self.sample_rate / self.high))
        last = int(np.ceil(self.sample_rate / self.low))
        frames = frames[energy > 1e-3 * energy.max()]
        periodic = self._autocorrelation(frames, last + 2)
        # The window alone makes later peaks lower.
        periodic = periodic / self._autocorrelation(window[None], last + 2)
        before, inner, after = (
            periodic[:, first + shift : last + 1 + shift]
            for shift in (-1, 0, 1)
        )
        height = np.where((inner > before) & (inner >= after), inner, 0.0)
        best = height.max(axis=1, keepdims=True, initial=0.0)
        voiced = best[:, 0] > self._VOICED
        # Twice the period repeats as well: the first good peak is the pitch.
        lag = np.argmax(height >= 0.9 * best, axis=1)[voiced] + first
        return self.sample_rate / lag

    def _autocorrelation(self, frames: np.ndarray, lags: int) -> np.ndarray:
        # Padded to twice its length, or the end would meet the beginning.
        spectrum = np.abs(np.fft.rfft(frames, 2 * self._FRAME)) ** 2
        periodic = np.fft.irfft(spectrum)[:, :lags]
        return periodic / np.maximum(periodic[:, :1], 1e-12)

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """Return the square root of the histogram; zeros without a pitch."""
        count = 12 * np.log2(self.high / self.low) / self.semitones
        centres = np.arange(int(count) + 1)
        place = 12 * np.log2(self.pitch(np.asarray(wav)) / self.low)
        place = place[:, None] / self.semitones - centres
        histogram = np.exp(-0.5 * place**2).sum(axis=0)
        return np.sqrt(histogram / max(histogram.sum(), 1e-12)).astype("f4")


class Pretrained:
    """A model of a hub or a local folder, loaded when it is first needed."""

    kind: str

    def __init__(self, source: str) -> None:
        self.source, self.device = source, "cpu"

    @functools.cached_property
    def identity(self) -> dict[str, str]:
        """Which weights: the model is loaded for it."""
        weights = tensors_identity(self._network)
        return {"type": self.kind, "source": self.source, "weights": weights}

    def to(self, device: str | torch.device) -> Self:
        """Compute on another device."""
        self.device = str(device)
        return self

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """Return the model's embedding, of unit length."""
        with torch.inference_mode():
            vector = self._embed(np.asarray(wav)).flatten().float()
            vector = torch.nn.functional.normalize(vector, dim=0)
        return vector.cpu().numpy()

    @property
    def _network(self) -> torch.nn.Module:
        raise NotImplementedError

    def _embed(self, wav: np.ndarray) -> torch.Tensor:
        raise NotImplementedError

    @contextlib.contextmanager
    def _loading(self, *errors: type[Exception]) -> Iterator[None]:
        try:
            yield
        except errors as error:
            what = "speaker encoder"
            raise pretrained.not_there(self.source, what, error) from error


class EcapaEncoder(Pretrained):
    """A SpeechBrain speaker encoder, ECAPA-TDNN by default.

    Its ``hyperparams.yaml`` is HyperPyYAML, which can run code: one that names
    more than SpeechBrain's own layers is refused.

    Arguments
    ---------
    source : For ``speechbrain.inference.classifiers.EncoderClassifier``.
    savedir : Where a hub model is kept.
    trusted : Load it whatever its ``hyperparams.yaml`` names.
    """

    kind, sample_rate = "ecapa", 16000

    def __init__(
        self,
        source: str = "speechbrain/spkrec-ecapa-voxceleb",
        savedir: str = "models/spkrec-ecapa-voxceleb",
        trusted: bool = False,
    ) -> None:
        super().__init__(source)
        # A folder is read where it is.
        self.savedir = None if Path(source).is_dir() else savedir
        self.trusted = trusted

    @functools.cached_property
    def _model(self) -> Any:
        from speechbrain.inference.classifiers import EncoderClassifier
        from speechbrain.utils.fetching import fetch

        where = {"source": self.source, "savedir": self.savedir}
        with self._loading(OSError, ValueError):
            hparams = fetch("hyperparams.yaml", **where)
            if not Path(hparams).is_file():
                raise OSError("no hyperparams.yaml")
        # Outside: what it refuses is there.
        pretrained.check_speechbrain_yaml(hparams, self.trusted)
        run_opts = {"device": self.device}
        with self._loading(OSError, ValueError):
            return EncoderClassifier.from_hparams(**where, run_opts=run_opts)

    @property
    def _network(self) -> torch.nn.Module:
        return self._model.mods.embedding_model

    def _embed(self, wav: np.ndarray) -> torch.Tensor:
        wavs = torch.as_tensor(wav, device=self.device)[None]
        return self._model.encode_batch(wavs)


class XVectorEncoder(Pretrained):
    """An x-vector model of transformers: ``WavLMForXVector``."""

    kind = "x-vector"

    def __init__(self, source: str = "microsoft/wavlm-base-plus-sv") -> None:
        super().__init__(source)

    @functools.cached_property
    def _model(self) -> tuple[Any, torch.nn.Module]:
        from transformers import AutoFeatureExtractor, WavLMForXVector

        with self._loading(OSError, ValueError):
            extractor = AutoFeatureExtractor.from_pretrained(
                self.source, trust_remote_code=False
            )
        # The loss's class weights are not used, nor in every file.
        unused = r"^objective\.|masked_spec_embed$"
        names: dict = {"absent": unused, "surplus": unused}
        load, dtype = pretrained.load_whole, torch.float32
        with self._loading(OSError):  # what it lacks is told as it is
            model = load(WavLMForXVector, self.source, dtype=dtype, **names)
        return extractor, model.eval().to(self.device)

    @property
    def sample_rate(self) -> int:
        """Hz, as the model's preprocessor says."""
        return self._model[0].sampling_rate

    @property
    def _network(self) -> torch.nn.Module:
        return self._model[1]

    def _embed(self, wav: np.ndarray) -> torch.Tensor:
        options = {"sampling_rate": self.sample_rate, "return_tensors": "pt"}
        values = self._model[0](wav, **options)["input_values"]
        return self._network(values.to(self.device)).embeddings
