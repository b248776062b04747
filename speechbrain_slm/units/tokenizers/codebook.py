"""Codebooks: how centroids are fitted, read from files, and told apart."""

import functools
import io
import logging
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load
from threadpoolctl import threadpool_limits
from torch import Tensor

from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.files import read_regular

logger = logging.getLogger(__name__)

# In a batch, sums are rounded in another order than alone: features then
# differ by some 1e-6 of their norm (measured in float32: HuBERT, WavLM). A
# frame that is nearer than this to a border between centroids is undecided.
# TF32 and bfloat16 round by more than that: there is nothing to hold to.
UNDECIDED = 2e-5
_DIMENSIONS = {"centroids": 2, "mean": 1, "std": 1}
# MemoryError: a header may promise any number of numbers.
_DAMAGED = (ValueError, EOFError, OSError, MemoryError, SafetensorError)


def tensor_name(kind: str, language: str) -> str:
    """Name a tensor in ``centroids.safetensors``: ``mean``, ``mean.fr``."""
    return f"{kind}.{language}" if language else kind


class Codebook:
    """Centroids, ``[K, D]``, and which of them is nearest to a point."""

    def __init__(self, centroids: Tensor) -> None:
        self.centroids = centroids

    @functools.cached_property
    def _apart(self) -> Tensor:
        # Not by products, which find a centroid a little way from itself.
        exact = "donot_use_mm_for_euclid_dist"
        found = torch.cdist(self.centroids, self.centroids, compute_mode=exact)
        # A centroid that stands twice is never half-way from itself.
        return torch.where(found > 0, 2 * found, 0)

    def nearest(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find the nearest centroids of points, ``[N, D]``.

        Returns their numbers, how far each point is from getting another (to
        the nearest plane half-way between two centroids), and the norm of
        what was rounded; ``[N]`` each.
        """
        # Of centroids (0, 0) and (2, 0), (0.25, 3) is 0.75 from the plane
        # x = 1. Up to |point|^2, which falls out of the differences.
        squares = self.centroids.square().sum(dim=1)
        distances = squares - 2 * points @ self.centroids.T
        units = distances.argmin(dim=1)
        apart = self._apart[units]
        gaps = distances - distances.gather(1, units[:, None])
        borders = torch.where(apart > 0, gaps / apart, torch.inf)
        norms = torch.maximum(points.norm(dim=1), squares.sqrt()[units])
        return units, borders.amin(dim=1), norms


def read_centroids(path: str | Path) -> dict[str, np.ndarray]:
    """Read a codebook from a file, as float32; nothing in it is executed.

    A ``.npy`` file of ``[K, D]`` numbers, or a ``.safetensors`` file of what a
    tokenizer saves: ``centroids`` and, where features are scaled, ``mean`` and
    ``std`` (``centroids.en`` and so on where each language has a codebook).
    ValueError if it is another, damaged, or not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"centroids: {path} does not exist; expected a .npy or "
            ".safetensors file, or null to fit a codebook"
        )
    if path.suffix not in (".npy", ".safetensors"):
        raise ValueError(
            f"centroids: {path} is a {path.suffix or 'nameless'} file; "
            "expected .npy or .safetensors. Published .bin, .pt and .joblib "
            "files are pickles, which are never loaded: convert one with "
            f"python tools/convert_kmeans.py {path} {path.stem}.safetensors"
        )
    try:
        content = read_regular(path)
        if path.suffix == ".safetensors":
            tensors = load(content)
        else:
            array = np.load(io.BytesIO(content), allow_pickle=False)
            tensors = {"centroids": array}
    except _DAMAGED as error:
        text = f"centroids: {path} cannot be read: {error}"
        raise ValueError(text) from error
    if not tensors:
        text = f"centroids: {path} holds no array; expected centroids, [K, D]"
        raise ValueError(text)
    return {
        name: _sound(f"centroids: {path}: {name}", name, array)
        for name, array in tensors.items()
    }


def _sound(what: str, name: str, array: np.ndarray) -> np.ndarray:
    kind = name.partition(".")[0]
    if array.ndim != _DIMENSIONS.get(kind) or not array.size:
        raise ValueError(
            f"{what} is an array of shape {list(array.shape)}; expected "
            "centroids, [K, D], and with them, or not, mean and std, [D]"
        )
    # What float32 cannot hold becomes infinite; texts are no numbers at all.
    with np.errstate(over="ignore"):
        found = array.astype(np.float32) if array.dtype.kind == "f" else None
    if found is None or not np.isfinite(found).all():
        raise ValueError(
            f"{what} holds {array.dtype} values that are not all finite "
            "numbers of float32"
        )
    if kind == "std" and not (found > 0).all():
        text = f"{what} has a value of 0 or less, which features are divided by"
        raise ValueError(text)
    return found


def _total(blocks, values):
    # Row by row, as NumPy sums an array's columns: the same bits however the
    # rows are cut into blocks.
    total: list[np.ndarray] = []
    for block in blocks:
        rows = np.concatenate([*total, values(block)])
        total = [np.add.reduce(rows, axis=0, keepdims=True)]
    return total[0][0]


def _scale(blocks, count):
    mean = _total(blocks, lambda rows: rows.astype(np.float64)) / count
    squares = _total(blocks, lambda rows: np.square(rows - mean))
    # A feature that never changes would be divided by 0.
    return mean, np.maximum(np.sqrt(squares / count), 1e-5)


def _in_a_row(frames, shape, scratch):
    if scratch is None:
        return np.concatenate(list(frames))
    with atomic_path(scratch) as temporary, open(temporary, "wb") as file:
        for block in frames:
            file.write(np.ascontiguousarray(block, np.float32).data)
    return np.memmap(scratch, np.float32, "r", shape=shape)


def fit_codebook(
    blocks: list[np.ndarray],
    num_clusters: int,
    seed: int,
    scaled: bool,
    scratch: str | Path | None = None,
    patience: int = 10,
) -> dict[str, np.ndarray]:
    """Find centroids; the same frames and seed give the same bits.

    Returns ``centroids`` and, if scaled, ``mean`` and ``std``; float32.

    Arguments
    ---------
    blocks
        Frames, ``[N, D]`` each; memory-mapped ones are read block by block.
    scaled : Scale every feature to mean 0 and variance 1 first.
    scratch : A file for all frames in a row; without it they stand in memory.
    patience : Steps without a better inertia after which the fit ends.
    """
    # Here: whoever only encodes need not wait for it.
    from sklearn.cluster import MiniBatchKMeans

    blocks = [block for block in blocks if len(block)]
    count = sum(map(len, blocks))
    if count < num_clusters:
        raise ValueError(
            f"{count} frame(s) to fit {num_clusters} clusters on; give more "
            "speech, or ask for fewer clusters"
        )
    tensors, frames = {}, iter(blocks)
    if scaled:
        mean, std = _scale(blocks, count)
        tensors = {"mean": np.float32(mean), "std": np.float32(std)}
        frames = (((block - mean) / std).astype(np.float32) for block in blocks)
    points = _in_a_row(frames, (count, blocks[0].shape[1]), scratch)
    options = {"random_state": seed, "max_no_improvement": patience}
    kmeans = MiniBatchKMeans(num_clusters, batch_size=4096, n_init=3, **options)
    # One thread: sums over threads come in any order.
    with threadpool_limits(limits=1):
        kmeans.fit(points)
    found = (
        num_clusters,
        *points.shape,
        kmeans.inertia_ / count,
        kmeans.n_steps_,
    )
    logger.info(
        "k-means: %d centroids on %d frames of %d features, inertia %.5g a "
        "frame after %d steps",
        *found,
    )
    return {"centroids": kmeans.cluster_centers_.astype(np.float32), **tensors}
