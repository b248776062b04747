"""What tells voices apart: an utterance in, a vector of unit length out.

An encoder has ``sample_rate`` (Hz), ``identity`` (JSON: whatever changes its
vectors), ``to(device)``, which returns itself, and ``embed(wav)``, which gives
a float32 vector for a float32 waveform ``[T]``. Utterances are embedded one
by one, so a vector does not depend on what stands beside it in a batch.
Pretrained models are loaded when they are first needed.
"""

import functools
from pathlib import Path

import numpy as np
import torch

from speechbrain_slm.utils.hashing import tensors_identity
from speechbrain_slm.utils.pretrained import (
    check_speechbrain_yaml,
    load_whole,
    said_by,
)


class PitchHistogram:
    """The distribution of an utterance's pitch, which needs no download.

    The vector is the square root of a histogram, so the cosine of two is the
    overlap of their distributions (Bhattacharyya's coefficient): 1 where they
    are the same, 0 where they share no bin. It is no speaker verification: two
    people of one pitch are one to it. It does tell apart what a synthesizer
    makes of one voice by shifting its pitch.

    Arguments
    ---------
    low : The lowest pitch, in Hz.
    high : The highest pitch, in Hz.
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
        self.identity = {
            "type": "pitch",
            "low": low,
            "high": high,
            "semitones": semitones,
            "version": 1,
        }

    def to(self, device):
        """Stay on the CPU."""
        return self

    def pitch(self, wav: np.ndarray) -> np.ndarray:
        """Estimate the pitch of an utterance's voiced frames.

        Arguments
        ---------
        wav : Waveform, ``[T]``, at 16 kHz.

        Returns
        -------
        Hz, one a voiced frame: the first strong peak of the frame's
        normalised autocorrelation.

        Example
        -------
        >>> time = np.arange(16000) / 16000
        >>> wav = np.sign(np.sin(2 * np.pi * 200 * time))
        >>> float(np.median(PitchHistogram().pitch(wav)))
        200.0
        """
        wav = np.pad(wav, (0, max(0, self._FRAME - len(wav))))
        frames = np.lib.stride_tricks.sliding_window_view(wav, self._FRAME)
        frames = frames[:: self._HOP] * np.hanning(self._FRAME)
        frames = frames - frames.mean(axis=1, keepdims=True)
        energy = (frames**2).sum(axis=1)
        frames = frames[energy > 1e-3 * energy.max()]
        spectrum = np.abs(np.fft.rfft(frames, 2 * self._FRAME)) ** 2
        periodic = np.fft.irfft(spectrum)[:, : self._FRAME]
        # The window alone makes later peaks lower.
        window = np.abs(np.fft.rfft(np.hanning(self._FRAME), 2 * self._FRAME))
        fading = np.fft.irfft(window**2)[: self._FRAME]
        first = int(np.floor(self.sample_rate / self.high))
        last = int(np.ceil(self.sample_rate / self.low))
        norm = np.maximum(periodic[:, :1], 1e-12)
        periodic = periodic[:, : last + 2] / norm
        periodic = periodic / (fading[: last + 2] / fading[0])
        inner = periodic[:, first : last + 1]
        peak = (inner > periodic[:, first - 1 : last]) & (
            inner >= periodic[:, first + 1 : last + 2]
        )
        height = np.where(peak, inner, 0.0)
        best = height.max(axis=1, keepdims=True, initial=0.0)
        voiced = best[:, 0] > self._VOICED
        # Twice the period repeats as well: the first good peak is the pitch.
        lag = np.argmax(height >= 0.9 * best, axis=1)[voiced] + first
        return self.sample_rate / lag

    def embed(self, wav):
        """Return the square root of the histogram; zeros without a pitch."""
        count = 12 * np.log2(self.high / self.low) / self.semitones
        centres = np.arange(int(count) + 1)
        place = 12 * np.log2(self.pitch(np.asarray(wav)) / self.low)
        place = place[:, None] / self.semitones - centres
        histogram = np.exp(-0.5 * place**2).sum(axis=0)
        return np.sqrt(histogram / max(histogram.sum(), 1e-12)).astype("f4")


class EcapaEncoder:
    """A SpeechBrain speaker encoder, ECAPA-TDNN by default.

    Its ``hyperparams.yaml`` is HyperPyYAML, which can run code: one that names
    more than SpeechBrain's own layers is refused.

    Arguments
    ---------
    source
        A hub name or a local folder for
        ``speechbrain.inference.classifiers.EncoderClassifier``.
    savedir : Where a hub model is kept.
    trusted : Load it whatever its ``hyperparams.yaml`` names.
    """

    sample_rate = 16000

    def __init__(
        self,
        source: str = "speechbrain/spkrec-ecapa-voxceleb",
        savedir: str = "models/spkrec-ecapa-voxceleb",
        trusted: bool = False,
    ) -> None:
        self.source, self.savedir, self.device = source, savedir, "cpu"
        self.trusted = trusted

    @functools.cached_property
    def identity(self):
        """Which weights: the model is loaded for it."""
        weights = tensors_identity(self._model.mods.embedding_model)
        return {"type": "ecapa", "source": self.source, "weights": weights}

    def to(self, device):
        """Compute on another device."""
        self.device = str(device)
        return self

    @functools.cached_property
    def _model(self):
        from speechbrain.inference.classifiers import EncoderClassifier
        from speechbrain.utils.fetching import fetch

        # A folder is read where it is.
        savedir = None if Path(self.source).is_dir() else self.savedir
        try:
            hparams = fetch("hyperparams.yaml", self.source, savedir)
        except (OSError, ValueError) as error:
            raise _missing(self.source, error) from error
        if not Path(hparams).is_file():
            raise _missing(self.source, OSError("no hyperparams.yaml"))
        check_speechbrain_yaml(hparams, self.trusted)
        try:
            return EncoderClassifier.from_hparams(
                source=self.source,
                savedir=savedir,
                run_opts={"device": self.device},
            )
        except (OSError, ValueError) as error:
            raise _missing(self.source, error) from error

    def embed(self, wav):
        """Return ECAPA's embedding."""
        with torch.inference_mode():
            batch = torch.as_tensor(wav, device=self.device)[None]
            return _unit(self._model.encode_batch(batch).flatten())


class XVectorEncoder:
    """An x-vector model of transformers: ``WavLMForXVector``.

    Arguments
    ---------
    source : A hub name or a local folder.
    """

    def __init__(self, source: str = "microsoft/wavlm-base-plus-sv") -> None:
        self.source, self.device = source, "cpu"

    @functools.cached_property
    def identity(self):
        """Which weights: the model is loaded for it."""
        weights = tensors_identity(self._model)
        return {"type": "x-vector", "source": self.source, "weights": weights}

    def to(self, device):
        """Compute on another device."""
        self.device = str(device)
        return self

    @functools.cached_property
    def _extractor(self):
        from transformers import AutoFeatureExtractor

        try:
            return AutoFeatureExtractor.from_pretrained(
                self.source, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise _missing(self.source, error) from error

    @property
    def sample_rate(self):
        """Hz, as the model's preprocessor says."""
        return self._extractor.sampling_rate

    @functools.cached_property
    def _model(self):
        from transformers import WavLMForXVector

        try:
            model = load_whole(
                WavLMForXVector,
                self.source,
                # The loss's class weights are not used, nor in every file.
                absent=r"^objective\.|masked_spec_embed$",
                surplus=r"^objective\.|masked_spec_embed$",
                dtype=torch.float32,
            )
        except OSError as error:
            raise _missing(self.source, error) from error
        return model.eval().to(self.device)

    def embed(self, wav):
        """Return the model's x-vector."""
        features = self._extractor(
            np.asarray(wav), sampling_rate=self.sample_rate, return_tensors="pt"
        )
        with torch.inference_mode():
            output = self._model(features["input_values"].to(self.device))
            return _unit(output.embeddings.flatten())


def _unit(vector):
    vector = torch.nn.functional.normalize(vector.float(), dim=0)
    return vector.cpu().numpy()


def _missing(source, error):
    return FileNotFoundError(
        f"{source} is neither a folder with a speaker encoder nor a hub model "
        f"that is downloaded or can be ({said_by(error)}). Where there is a "
        f"network, run: hf download {source} --local-dir <folder>. Then set "
        "source to that folder."
    )
