"""K-means tokenizers: the nearest of k centroids is a frame's unit.

All but the features: the codebook (one for all languages, or one a language)
and the assignment of frames to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from speechbrain_slm.units.tokenizers import base
from speechbrain_slm.units.tokenizers.codebook import (
    Codebook,
    fit_codebook,
    read_centroids,
    tensor_name,
)
from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.hashing import difference, identity_of

if TYPE_CHECKING:
    from typing_extensions import Self

TENSORS = "centroids.safetensors"
CODEBOOKS = ("joint", "language")
# The key of the only codebook where one serves all languages.
JOINT = ""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside the block."""
    # A product split over threads may round differently: a frame between two
    # centroids would change its unit with the number of cores.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_finite(points: Tensor) -> bool:
    """Tell whether features are numbers, all of them."""
    # A sum is as quick as can be, and no sum of features overflows.
    return bool(torch.isfinite(points.sum(dtype=torch.float64)))


class KMeansTokenizer:
    """A tokenizer of a codebook and of features, which subclasses make.

    Arguments
    ---------
    codebooks
        ``joint``: one for all languages; ``language``: one for each, whose
        units come one after the other in alphabetical order.
    deduplicate : Write a unit that repeats itself once.
    centroids : A file with the codebook, see :func:`read_centroids`.
    """

    equal_lengths = False
    # Whether a fit scales features, and when it ends (see fit_codebook).
    scaled = False
    patience = 10
    source: Any = None  # where a pretrained model came from
    sample_rate: Any
    feature_size: Any
    config: Any

    def __init__(
        self,
        num_clusters: int,
        codebooks: str,
        deduplicate: bool,
        centroids: str | Path | None = None,
    ) -> None:
        base.check_choice("codebooks", codebooks, CODEBOOKS)
        self.num_clusters, self.codebooks = num_clusters, codebooks
        self.deduplicated, self._imported = deduplicate, centroids
        self._tensors: Any = None

    @property
    def fitted(self) -> bool:
        """Whether there is a codebook."""
        return self._tensors is not None or self._imported is not None

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """The codebook's arrays by name; a file is read when first asked."""
        if self._tensors is None:
            if self._imported is None:
                text = "The tokenizer has no centroids yet: fit or restore it"
                raise ValueError(text)
            self._set(read_centroids(self._imported), self._imported)
        return self._tensors

    def _set(self, tensors: dict[str, np.ndarray], where: str | Path) -> None:
        parsed = [name.partition(".")[::2] for name in tensors]
        languages = sorted(tag for kind, tag in parsed if kind == "centroids")
        if (languages == [JOINT]) != (self.codebooks == "joint"):
            told = ", ".join(name or "all languages" for name in languages)
            raise ValueError(
                f"{where} holds a codebook for {told}; expected what "
                f"codebooks: {self.codebooks} says"
            )
        size = self.feature_size
        shapes: dict[str, tuple] = {"centroids": (self.num_clusters, size)}
        if {"mean", "std"} & {kind for kind, _ in parsed}:
            shapes |= {"mean": (size,), "std": (size,)}
        expected = {
            tensor_name(kind, language): shape
            for kind, shape in shapes.items()
            for language in languages
        }
        found = {name: array.shape for name, array in tensors.items()}
        if wrong := difference(expected, found):
            raise ValueError(
                f"{where} does not fit the features or num_clusters: "
                f"{'; '.join(wrong)}. Choose the file that was fitted on this "
                "model and layer and set num_clusters to its rows, or fit one."
            )
        self._languages, self._tensors = languages, tensors
        self._on_device: dict = {}
        # Of the numbers: a file that was converted is the same codebook.
        values = {name: array.tolist() for name, array in tensors.items()}
        self._identity = identity_of({"config": self.config, "tensors": values})

    @property
    def languages(self) -> list[str]:
        """Whose codebooks there are, in the order of their units."""
        return self._languages if self.tensors else []

    @property
    def vocabulary_size(self) -> int:
        """Units are in ``[0, vocabulary_size)``."""
        # Asked for before a fit, too, where one codebook serves all.
        if self.codebooks == "joint":
            return self.num_clusters
        return self.num_clusters * len(self.languages)

    @property
    def identity(self) -> str:
        """Hash of the configuration, the centroids and the scaling."""
        return self._identity if self.tensors else ""

    def fit(
        self,
        frames: dict[str, list[np.ndarray]],
        seed: int,
        scratch: str | Path | None = None,
    ) -> None:
        """Find the centroids; see :func:`fit_codebook`.

        ``frames``, ``[N, D]``, by language, or by ``""`` for one codebook.
        """
        how = (self.num_clusters, seed, self.scaled, scratch, self.patience)
        tensors = {
            tensor_name(kind, language): array
            for language, blocks in sorted(frames.items())
            for kind, array in fit_codebook(blocks, *how).items()
        }
        self._set(tensors, "the fit")

    def features(self, wavs: Tensor, lengths: Tensor) -> list[Tensor]:
        """Compute the points that are clustered of ``wavs``, ``[B, T]``.

        ``[U, feature_size]`` each, float32; U is 0 where one is too short.
        """
        raise NotImplementedError

    def encode(
        self, wavs: Tensor, lengths: Tensor, languages: list[str] | None = None
    ) -> list[np.ndarray | None]:
        """Turn waveforms into units; see :meth:`Tokenizer.encode`."""
        languages = self.languages_of(wavs, languages)
        encoded: list[np.ndarray | None] = []
        features = self.features(wavs, lengths)
        for points, language in zip(features, languages, strict=True):
            # NaN is nearest to nothing: argmin would say the first centroid.
            if not is_finite(points):
                encoded.append(None)
                continue
            book, points = self.book(points, language)
            with one_thread():
                # Without |point|^2, which is the same for all centroids.
                squares = book.centroids.square().sum(dim=1)
                distances = squares - 2 * points @ book.centroids.T
                units = distances.argmin(dim=1)
            encoded.append(self._finish(units.numpy(), language))
        return encoded

    def languages_of(
        self, wavs: Tensor, languages: list[str] | None
    ) -> list[str]:
        """Return whose codebook each waveform takes."""
        if self.codebooks == "joint":
            return [JOINT] * len(wavs)
        languages = languages or ["(not given)"]
        for language in sorted(set(languages) - set(self.languages)):
            raise ValueError(
                f"language {language}: the tokenizer has codebooks for "
                f"{', '.join(self.languages)} alone; fit it on speech of "
                "every language, or set codebooks: joint"
            )
        return languages

    def book(self, points: Tensor, language: str) -> tuple[Codebook, Tensor]:
        """Return a language's codebook where points are, and these, scaled."""
        tensors = self.tensors
        key = (language, points.device, points.dtype)
        # Copied there once, and not with every batch.
        if key not in self._on_device:
            there = [
                torch.from_numpy(tensors[name]).to(points)
                for kind in ("centroids", "mean", "std")
                if (name := tensor_name(kind, language)) in tensors
            ]
            self._on_device[key] = [Codebook(there[0]), *there[1:]]
        book, *scale = self._on_device[key]
        if scale:
            mean, std = scale
            points = (points - mean) / std
        return book, points

    def _finish(self, units: np.ndarray, language: str | None) -> np.ndarray:
        if self.deduplicated:
            units = base.deduplicate(units)
        joint = self.codebooks == "joint"
        number = 0 if joint else self.languages.index(language or "")
        return units + number * self.num_clusters

    def save(self, folder: str | Path) -> None:
        """Write ``centroids.safetensors`` and ``tokenizer.json``."""
        # The description last: it says that the other file is whole.
        write_atomic(Path(folder) / TENSORS, save(self.tensors))
        base.save_description(folder, self.config, self.identity, self.source)

    def restore(self, folder: str | Path) -> None:
        """Take over a saved codebook; refused as ``check_saved`` says."""
        path = Path(folder) / TENSORS
        # First that it is ours: another's codebook may have our size. Then,
        # with the identity that it gives, that its files belong together.
        base.check_saved(self.config, folder)
        self._set(read_centroids(path), path)
        base.check_saved(self.config, folder, self.identity)

    def to(self, device: str | torch.device) -> Self:
        """Change nothing: by default, features are made on the CPU."""
        return self
