import bz2
import contextlib
import copyreg
import gzip
import io
import lzma
import os
import pickle
import resource
import sys
import zlib

import joblib
import numpy as np
import pytest
from processes import ROOT, load_script, run
from safetensors.numpy import load_file
from sklearn.cluster import KMeans, MiniBatchKMeans

TOOL = ROOT / "tools" / "convert_kmeans.py"
convert_kmeans = load_script(TOOL)


def pickled(content, path, protocol=None):
    path.write_bytes(pickle.dumps(content, protocol))


@pytest.fixture(scope="module", params=[KMeans, MiniBatchKMeans])
def kmeans(request):
    points = np.random.default_rng(0).normal(size=(200, 24))
    model = request.param(7, n_init=1, random_state=0)
    return model.fit(points.astype(np.float32))


@pytest.mark.parametrize("compress", [0, 3, "gzip", "bz2", "lzma", "xz"])
def test_joblib_files(kmeans, tmp_path, compress):
    joblib.dump(kmeans, tmp_path / "km.bin", compress=compress)
    centroids = convert_kmeans.read_kmeans(tmp_path / "km.bin")
    assert (centroids == kmeans.cluster_centers_).all()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(kmeans, tmp_path, protocol):
    path = tmp_path / "km.bin"
    for dump in (pickled, joblib.dump):
        dump(kmeans, path, protocol=protocol)
        centroids = convert_kmeans.read_kmeans(path)
        assert (centroids == kmeans.cluster_centers_).all()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2"])
def test_arrays_as_they_come(tmp_path, order, dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype, order=order)
    path = tmp_path / "km.pkl"
    for content in (array, {"cluster_centers_": array, "k": 3}):
        for dump in (joblib.dump, pickled):
            dump(content, path)
            assert (convert_kmeans.read_kmeans(path) == array).all()


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("seed", [np.random.RandomState(0), None])
def test_random_states_are_left_unread(tmp_path, protocol, seed):
    model = MiniBatchKMeans(2, n_init=1, random_state=seed)
    # Batch by batch, it keeps a random state even without a seed.
    model.partial_fit(np.random.default_rng(0).normal(size=(20, 3)))
    path = tmp_path / "km.pkl"
    pickled(model, path, protocol)
    centroids = convert_kmeans.read_kmeans(path)
    assert (centroids == model.cluster_centers_.astype(np.float32)).all()


class Call:
    """Pickled, it is a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def payloads(canary):
    """Return contents that would make a file if they were executed."""
    touch = f"touch {canary}"
    array = np.array([Call(os.system, touch)], dtype=object)
    model = KMeans(2)
    model.cluster_centers_ = np.zeros((2, 3), dtype=np.float32)
    model.extra = Call(os.system, touch)
    joblib_array, joblib_model = io.BytesIO(), io.BytesIO()
    joblib.dump(array, joblib_array)
    joblib.dump(model, joblib_model)
    inside = f"cposix\nsystem\n(S'{touch}'\ntR."
    system = pickle.dumps(Call(os.system, touch))
    return {
        "system": system,
        "eval": pickle.dumps(Call(eval, f"open({str(canary)!r}, 'w')")),
        "open": pickle.dumps(Call(open, str(canary), "w"), 0),
        "object array": pickle.dumps(array),
        "joblib object array": joblib_array.getvalue(),
        "in an attribute": joblib_model.getvalue(),
        "text protocol": inside.encode(),
        # A dotted name, which protocol 4 follows from attribute to attribute.
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__mro__\x93.",
        "numpy's own": b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
        "a pickle inside": pickle.dumps(Call(pickle.loads, system)),
        "extension": b"\x80\x02\x82\xf0.",
        "build on a class": b"cnumpy\nndarray\n}S'x'\nI1\nsb.",
        "persistent": b"P1\n.",
    }


NAMES = list(payloads("canary"))


@pytest.mark.parametrize("name", NAMES)
def test_canaries_are_not_executed(tmp_path, name):
    canary = tmp_path / "canary"
    path = tmp_path / "km.bin"
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        path.write_bytes(payloads(canary)[name])
        with pytest.raises(ValueError, match=r"refused|not a pickle"):
            convert_kmeans.read_kmeans(path)
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(payloads(canary)["system"])
    assert canary.exists()


def test_damaged_and_foreign_files_are_refused(kmeans, tmp_path):
    path = tmp_path / "km.bin"
    joblib.dump(kmeans, path)
    content = path.read_bytes()
    for bad in (
        b"",
        content[: len(content) // 2],
        b"text",
        pickle.dumps({"a": 1}),
        pickle.dumps(np.full((2, 3), np.nan)),
        pickle.dumps(np.arange(3)),
        pickle.dumps(np.array(["a", "b"])),
    ):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"km\.bin"):
            convert_kmeans.read_kmeans(path)


def test_no_byte_makes_it_execute(kmeans, tmp_path):
    """Whatever a flipped byte does, only stand-ins are ever made."""
    content = pickle.dumps(kmeans, 4)
    generator = np.random.default_rng(0)
    path = tmp_path / "km.bin"
    for _ in range(200):
        flipped = bytearray(content)
        place = generator.integers(len(flipped))
        flipped[place] = generator.integers(256)
        path.write_bytes(flipped)
        with contextlib.suppress(ValueError):
            assert convert_kmeans.read_kmeans(path).dtype == np.float32


def test_command_line(kmeans, tmp_path):
    joblib.dump(kmeans, tmp_path / "km.bin")

    def convert(*names):
        paths = (tmp_path / name for name in names)
        return run([sys.executable, TOOL, *paths])

    code, text = convert("km.bin", "km.safetensors")
    assert code == 0, text
    assert "7 centroids of 24 features" in text
    tensors = load_file(tmp_path / "km.safetensors")
    assert (tensors["centroids"] == kmeans.cluster_centers_).all()
    assert convert("km.bin", "km.npy")[0] == 0
    assert (np.load(tmp_path / "km.npy") == kmeans.cluster_centers_).all()
    for names, message in (
        (("km.bin", "km.bin"), "should end in .safetensors"),
        (("none.bin", "km.npy"), "No such file"),
        (("km.npy", "b.npy"), "not a pickle"),
    ):
        code, text = convert(*names)
        assert code != 0
        assert message in text
        assert "Traceback" not in text


def bombs():
    # A pair of a pair of a pair ...: 200 bytes, and 2^60 tuples to visit.
    nested = b")" + b"2\x86" * 60
    zeros = bytes(2 << 20)
    return {
        "hashed for ever": b"\x80\x04}" + nested + b"K\x01s.",
        "printed for ever": b"\x80\x04cnumpy\ndtype\n" + nested + b"\x85R.",
        "zlib": zlib.compress(zeros),
        "gzip": gzip.compress(zeros),
        "bz2": bz2.compress(zeros[: 1 << 20]) * 2,
        "xz": lzma.compress(zeros),
    }


@pytest.mark.parametrize("name", list(bombs()))
def test_bombs_are_refused_in_bounds(tmp_path, monkeypatch, name):
    monkeypatch.setattr(convert_kmeans, "MAX_SECONDS", 1)
    monkeypatch.setattr(convert_kmeans, "MAX_BYTES", 1 << 20)
    path = tmp_path / "km.bin"
    path.write_bytes(bombs()[name])
    with pytest.raises(ValueError, match=r"km\.bin is refused: .* more than"):
        convert_kmeans.read_in_bounds(path)
    # Neither time nor memory of this process is bounded by it.
    assert resource.getrlimit(resource.RLIMIT_CPU)[0] != 1
