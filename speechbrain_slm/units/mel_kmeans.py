"""Units without a pretrained model: k-means over stacked MFCCs.

Every 10 ms give a vector of MFCCs; ``frames_per_unit`` of them side by side
(4: 25 Hz) are one point, and the nearest centroid is its unit. Needs nothing
but the training split, so it is the tokenizer of everything that runs
offline.
"""

import contextlib
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save
from sklearn.cluster import MiniBatchKMeans
from speechbrain.processing.features import DCT, STFT, Filterbank
from threadpoolctl import threadpool_limits

from speechbrain_slm.units.tokenizer import deduplicate
from speechbrain_slm.utils.atomic import (
    read_json,
    write_atomic,
    write_json,
)
from speechbrain_slm.utils.hashing import difference, identity_of

HOP = 10  # ms
WINDOW = 25  # ms
NORMALIZATIONS = ("none", "mean", "mean_variance")
TENSORS = "centroids.safetensors"
DESCRIPTION = "tokenizer.json"


@contextlib.contextmanager
def _one_thread():
    # A product that is split over threads may round differently, and a frame
    # half-way between two centroids would then change its unit with the
    # number of cores.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class MelKMeans:
    """Offline tokenizer: MFCCs, then the nearest of k centroids.

    Arguments
    ---------
    num_clusters : int
        Size of the codebook.
    sample_rate : int
        Of the speech, in Hz.
    num_mels : int
        Mel filters under the cepstrum.
    num_mfcc : int
        Coefficients kept, the first (energy) included.
    frames_per_unit : int
        10 ms frames that are stacked into one unit.
    normalization : str
        What is taken out of each utterance's MFCCs: ``mean`` (most of what
        the microphone and the voice add), ``mean_variance`` (more of the
        voice) or ``none``.
    deduplicate : bool
        Write a unit that repeats itself once.

    Example
    -------
    >>> noise = torch.randn(4, 8000, generator=torch.manual_seed(0))
    >>> tokenizer = MelKMeans(num_clusters=8, deduplicate=False)
    >>> tokenizer.fit(noise, seed=1)
    >>> units = tokenizer.encode(noise[:2], torch.tensor([8000, 4000]))
    >>> [len(array) for array in units]
    [12, 6]
    """

    def __init__(
        self,
        num_clusters=100,
        sample_rate=16000,
        num_mels=40,
        num_mfcc=13,
        frames_per_unit=4,
        normalization="mean_variance",
        deduplicate=True,
    ):
        self.config = {
            "type": "mel_kmeans",
            "num_clusters": num_clusters,
            "sample_rate": sample_rate,
            "num_mels": num_mels,
            "num_mfcc": num_mfcc,
            "frames_per_unit": frames_per_unit,
            "normalization": normalization,
            "deduplicate": deduplicate,
        }
        for name in ("num_clusters", "num_mfcc", "frames_per_unit"):
            if self.config[name] < 1:
                raise ValueError(
                    f"{name} is {self.config[name]}; expected 1 or more"
                )
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"normalization is {normalization!r}; expected one of "
                f"{', '.join(NORMALIZATIONS)}"
            )
        self.sample_rate = sample_rate
        self.frame_rate = 1000 / (HOP * frames_per_unit)
        self.vocabulary_size = num_clusters
        self.deduplicated = deduplicate
        self.tensors = None
        n_fft = sample_rate * WINDOW // 1000
        self._stft = STFT(sample_rate, WINDOW, HOP, n_fft)
        self._log_mel = Filterbank(
            n_mels=num_mels,
            f_max=sample_rate // 2,
            n_fft=n_fft,
            sample_rate=sample_rate,
        )
        self._cepstrum = DCT(num_mels, num_mfcc)

    def features(self, wav):
        """Compute an utterance's points, before they are scaled.

        Arguments
        ---------
        wav : torch.Tensor
            Waveform, ``[T]``, float32.

        Returns
        -------
        torch.Tensor
            ``[U, frames_per_unit * num_mfcc]``; frames at the end that do
            not fill a unit are left out.
        """
        with _one_thread(), torch.no_grad():
            real, imaginary = self._stft(wav[None]).unbind(dim=-1)
            power = real.square() + imaginary.square()
            mfcc = self._cepstrum(self._log_mel(power))[0]
            if self.config["normalization"] != "none":
                mfcc = mfcc - mfcc.mean(dim=0)
            if self.config["normalization"] == "mean_variance":
                mfcc = mfcc / mfcc.std(dim=0, correction=0).clamp(min=1e-5)
        stacked = self.config["frames_per_unit"]
        num_units = len(mfcc) // stacked
        width = stacked * mfcc.shape[1]
        return mfcc[: num_units * stacked].reshape(num_units, width)

    def fit(self, wavs, seed):
        """Find the centroids; the same speech and seed give the same bits.

        Arguments
        ---------
        wavs : iterable of torch.Tensor
            Waveforms, each ``[T]``.
        seed : int
            Of the initial centroids and of the order of the frames.

        Raises
        ------
        ValueError
            If there are fewer frames than clusters.
        """
        points = [self.features(wav).numpy() for wav in wavs]
        points = np.concatenate(points) if points else np.zeros((0, 1))
        if len(points) < self.vocabulary_size:
            raise ValueError(
                f"{len(points)} frame(s) to fit {self.vocabulary_size} "
                "clusters on; give more speech, or ask for fewer clusters"
            )
        mean = points.mean(axis=0, dtype=np.float64)
        std = np.maximum(points.std(axis=0, dtype=np.float64), 1e-5)
        kmeans = MiniBatchKMeans(
            self.vocabulary_size,
            batch_size=4096,
            n_init=3,
            random_state=seed,
        )
        # One thread: sums over threads come in any order.
        with threadpool_limits(limits=1):
            kmeans.fit(((points - mean) / std).astype(np.float32))
        self.tensors = {
            "centroids": kmeans.cluster_centers_.astype(np.float32),
            "mean": mean.astype(np.float32),
            "std": std.astype(np.float32),
        }

    def encode(self, wavs, lengths):
        """Turn waveforms into units, one by one.

        Batching saves nothing on a CPU here, and alone an utterance cannot
        depend on its batch-mates.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, ``[B, T]``, float32.
        lengths : torch.Tensor
            Samples of each waveform that are not padding, ``[B]``.

        Returns
        -------
        list of numpy.ndarray
            Units of each utterance, int64.
        """
        centroids, mean, std = (
            torch.from_numpy(self._fitted()[name])
            for name in ("centroids", "mean", "std")
        )
        squares = centroids.square().sum(dim=1)
        encoded = []
        for wav, length in zip(wavs, lengths, strict=True):
            points = (self.features(wav[: int(length)]) - mean) / std
            with _one_thread():
                nearest = (squares - 2 * points @ centroids.T).argmin(dim=1)
            units = nearest.numpy()
            encoded.append(deduplicate(units) if self.deduplicated else units)
        return encoded

    def _fitted(self):
        if self.tensors is None:
            raise ValueError(
                "The tokenizer has no centroids yet: fit it, or load a folder"
            )
        return self.tensors

    @property
    def identity(self):
        """Hash of the configuration, the centroids and the scaling."""
        tensors = {
            name: array.tolist() for name, array in self._fitted().items()
        }
        return identity_of({"config": self.config, "tensors": tensors})

    def save(self, folder):
        """Write the tokenizer; its description comes last.

        Arguments
        ---------
        folder : str or Path
            Gets ``centroids.safetensors`` and ``tokenizer.json``.
        """
        folder = Path(folder)
        write_atomic(folder / TENSORS, save(self._fitted()))
        description = {"config": self.config, "identity": self.identity}
        write_json(folder / DESCRIPTION, description)

    @classmethod
    def load(cls, folder):
        """Read a tokenizer that was saved.

        Arguments
        ---------
        folder : str or Path
            What ``save`` wrote to.

        Returns
        -------
        MelKMeans
            The same tokenizer.

        Raises
        ------
        FileNotFoundError
            If the folder holds no complete tokenizer.
        ValueError
            If its files do not belong together.
        """
        folder = Path(folder)
        path = folder / DESCRIPTION
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist; expected a fitted tokenizer. Run "
                "the units recipe, which fits one."
            )
        description = read_json(path)
        settings = dict(description["config"])
        if settings.pop("type", None) != "mel_kmeans":
            raise ValueError(f"{path}: not a mel_kmeans tokenizer")
        tokenizer = cls(**settings)
        tokenizer.tensors = load_file(folder / TENSORS)
        size = settings["frames_per_unit"] * settings["num_mfcc"]
        expected = {
            "centroids": (settings["num_clusters"], size),
            "mean": (size,),
            "std": (size,),
        }
        found = {name: a.shape for name, a in tokenizer.tensors.items()}
        wrong = difference(expected, found)
        if wrong or tokenizer.identity != description["identity"]:
            what = "; ".join(wrong) or f"not the tensors that {path} names"
            raise ValueError(f"{folder / TENSORS}: {what}. Fit it again.")
        return tokenizer
