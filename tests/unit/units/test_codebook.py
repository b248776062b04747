import logging
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sklearn import cluster

from speechbrain_slm.units.tokenizers.codebook import (
    Codebook,
    fit_codebook,
    read_centroids,
)


def frames(count=3000, size=20):
    generator = np.random.default_rng(0)
    scale = generator.uniform(0.1, 100, size)
    values = generator.normal(size=(count, size)) * scale + scale
    return values.astype(np.float32)


@pytest.mark.parametrize("scaled", [False, True])
def test_blocks_and_files_give_the_bits_of_one_array(
    tmp_path, monkeypatch, scaled
):
    points, fitted_on = frames(), []

    class Watching(cluster.MiniBatchKMeans):
        def fit(self, points):
            fitted_on.append(type(points))
            return super().fit(points)

    monkeypatch.setattr(cluster, "MiniBatchKMeans", Watching)
    whole = fit_codebook([points], 15, 0, scaled)
    blocks = np.split(points, [1, 700, 700, 2999])
    paths = [tmp_path / f"{number}.npy" for number in range(len(blocks))]
    for path, block in zip(paths, blocks, strict=True):
        np.save(path, block)
    mapped = [np.load(path, mmap_mode="r") for path in paths]
    for found in (
        fit_codebook(blocks, 15, 0, scaled),
        fit_codebook(mapped, 15, 0, scaled, scratch=tmp_path / "scratch"),
    ):
        assert found.keys() == whole.keys()
        for name, array in whole.items():
            assert array.tobytes() == found[name].tobytes()
    # Through a file: frames in memory at once are a mini-batch, not all.
    assert fitted_on == [np.ndarray, np.ndarray, np.memmap]
    assert fit_codebook([points], 15, 1, scaled)["centroids"].tobytes() != (
        whole["centroids"].tobytes()
    )


def test_scaling_is_that_of_numpy():
    points = frames()
    fitted = fit_codebook([points[:10], points[10:]], 15, 0, scaled=True)
    for name, expected in (("mean", points.mean), ("std", points.std)):
        expected = expected(axis=0, dtype=np.float64).astype(np.float32)
        assert (fitted[name] == expected).all()


def test_inertia_is_logged(caplog):
    points = frames()
    with caplog.at_level(logging.INFO):
        centroids = fit_codebook([points], 15, 0, scaled=False)["centroids"]
    found = float(re.search(r"inertia (\S+) a frame", caplog.text)[1])
    distances = np.square(points[:, None] - centroids).sum(axis=2)
    assert found == pytest.approx(distances.min(axis=1).mean(), rel=1e-3)


def test_border_distance_is_how_far_a_point_can_go():
    generator = torch.manual_seed(0)
    centroids = torch.randn(300, 8, generator=generator)
    centroids[9] = centroids[4]  # a twin is no border
    points = torch.randn(200, 8, generator=generator)
    nearest, border, norms = Codebook(centroids).nearest(points)
    assert nearest.equal(torch.cdist(points, centroids).argmin(dim=1))
    assert (norms >= points.norm(dim=1)).all()
    assert border.min() > 0
    for share, stays in ((0.99, True), (1.01, False)):
        moved = []
        for point, here, far in zip(points, nearest, border, strict=True):
            directions = centroids - centroids[here]
            directions = directions[directions.norm(dim=1) > 0]
            directions /= directions.norm(dim=1, keepdim=True)
            ends = point + share * far * directions
            moved.append((torch.cdist(ends, centroids).argmin(1) != here).any())
        assert not any(moved) if stays else all(moved)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"centroids": np.zeros((0, 4))}, r"shape \[0, 4\]"),
        ({"centroids": np.ones(())}, r"shape \[\]"),
        ({"centroids": np.ones(4)}, r"shape \[4\]"),
        ({"other": np.ones((2, 4))}, "other is an array"),
        ({"centroids": np.full((2, 4), 1e300)}, "not all finite"),
        ({"centroids": np.ones((2, 4), dtype=np.int64)}, "int64"),
        ({"std": np.zeros(4)}, "std has a value of 0"),
        ({}, "no array"),
    ],
)
def test_codebooks_that_are_none_are_refused(tmp_path, arrays, text):
    path = tmp_path / "km.safetensors"
    save_file(arrays, path)
    with pytest.raises(ValueError, match=rf"km\.safetensors.*{text}"):
        read_centroids(path)
    if list(arrays) == ["centroids"]:
        np.save(tmp_path / "km.npy", arrays["centroids"])
        with pytest.raises(ValueError, match=rf"km\.npy.*{text}"):
            read_centroids(tmp_path / "km.npy")


@pytest.mark.parametrize("name", ["km.npy", "km.safetensors", "huge.npy"])
def test_a_codebook_that_is_not_whole_is_named(tmp_path, name):
    path, array = tmp_path / name, np.ones((2, 4))
    if name == "huge.npy":  # promises more than any memory holds
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**15, 9)}
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
    elif path.suffix == ".npy":
        np.save(path, array)
    else:
        save_file({"centroids": array}, path)
    path.write_bytes(path.read_bytes()[: None if name == "huge.npy" else -3])
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        read_centroids(path)
