#!/usr/bin/env python3
"""Convert a published k-means file to safetensors, executing nothing of it.

Others publish codebooks as scikit-learn objects, pickled by joblib or pickle
(``.bin``, ``.pt``, ``.pkl``, ``.joblib``). Loading such a file runs whatever
code its author wished. Here its instructions are read one by one: all that
they may build are numbers, strings, containers, numeric arrays, and empty
shells of the few classes that a k-means object consists of. A file that names
anything else is refused.

    python tools/convert_kmeans.py L11_km500.bin L11_km500.safetensors
"""

import bz2
import gzip
import io
import lzma
import math
import multiprocessing
import pickle
import re
import resource
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.files import read_regular
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.running import run_script, script_parser

OPENERS = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x5d\x00": lzma.open,
}
# What a file may unpack to, and what reading it may take: a codebook of
# 10,000 centroids is read in a second, what takes more means no good.
MAX_BYTES = 1 << 28
MAX_MEMORY = 4 << 30  # bytes of address space
MAX_SECONDS = 5  # of a processor's time


class Refused(ValueError):
    """The file holds, or names, something that a codebook does not need."""


class Shell:
    """Stands for an object that is not needed: its state is kept, unread."""

    def __init__(self, *arguments):
        self.state = None

    def __setstate__(self, state):
        self.state = state


# NumPy's own dtype would take from a file that a field of objects holds none,
# and then bytes of the file for addresses of objects: tried, it crashes at
# best. So what makes arrays is here, and knows numbers only.
class Dtype(Shell):
    """Stands for ``numpy.dtype``: numbers only."""

    def __init__(self, name="", *_):
        super().__init__()
        self.name, self.order = str(name), "="

    def __setstate__(self, state):
        self.order = state[1]

    def numpy(self):
        """Return the dtype, if it is one of numbers."""
        name = self.order.strip("|=") + self.name.lstrip("<>=|")
        if not re.fullmatch("[<>]?(b1|[iu][1248]|f([248]|16))", name):
            raise Refused(f"an array of type {self.name!r}; expected numbers")
        return np.dtype(name)


class Array(Shell):
    """Stands for ``numpy.ndarray`` as pickle writes it."""

    def __setstate__(self, state):
        _, shape, dtype, fortran, content = state
        self.state = to_array(content, dtype, shape, "F" if fortran else "C")


class Wrapper(Shell):
    """Stands for joblib's note that an array's bytes come next."""

    file = None

    def __setstate__(self, note):
        dtype, shape = note.get("dtype"), note.get("shape")
        if not isinstance(dtype, Dtype) or not isinstance(shape, tuple):
            raise Refused("an array without type and shape")
        if note.get("numpy_array_alignment_bytes") is not None:
            self.file.read(self.file.read(1)[0])
        size = math.prod(shape) * dtype.numpy().itemsize
        content = self.file.read(size) if size >= 0 else b""
        self.state = to_array(content, dtype, shape, note.get("order"))


def to_array(content, dtype, shape, order="C", axes=None):
    """Return bytes as an array; as ``numpy._core.numeric._frombuffer`` does."""
    if not isinstance(content, bytes | bytearray) or axes is not None:
        raise Refused("an array of objects; expected numbers")
    if not isinstance(dtype, Dtype) or order not in ("C", "F"):
        raise Refused(f"an array of type {dtype!r} and order {order!r}")
    flat = np.frombuffer(content, dtype.numpy())
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise Refused(f"an array of shape {shape!r}")
    if len(flat) != math.prod(shape):
        raise Refused(f"an array of {len(flat)} numbers and shape {shape}")
    return flat.reshape(shape, order=order)


def reconstruct_object(kind, *_):
    """Stand for ``copyreg._reconstructor``."""
    if not (isinstance(kind, type) and issubclass(kind, Shell)):
        raise Refused("an object of an unexpected kind")
    return kind()


def encode(text, encoding="latin1"):
    """Stand for ``_codecs.encode``, by which old protocols write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("text in another encoding than latin1")
    return text.encode("latin1")


ALLOWED = {
    ("numpy", "dtype"): Dtype,
    ("numpy", "ndarray"): Array,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): Wrapper,
    ("copyreg", "_reconstructor"): reconstruct_object,
    ("copy_reg", "_reconstructor"): reconstruct_object,
    ("builtins", "object"): Shell,
    ("__builtin__", "object"): Shell,
    ("_codecs", "encode"): encode,
}
for name in ("core", "_core"):
    ALLOWED |= {
        (f"numpy.{name}.multiarray", "_reconstruct"): lambda *_: Array(),
        (f"numpy.{name}.multiarray", "scalar"): (
            lambda dtype, content=b"": to_array(content, dtype, ())
        ),
        (f"numpy.{name}.numeric", "_frombuffer"): to_array,
    }
for name in ("k_means_", "_kmeans"):
    for kind in ("KMeans", "MiniBatchKMeans"):
        ALLOWED[f"sklearn.cluster.{name}", kind] = Shell


class Reader(pickle.Unpickler):
    """Reads pickles of which each class and function is one of ours."""

    def __init__(self, file):
        super().__init__(file)
        self.wrapper = type("Wrapper", (Wrapper,), {"file": file})

    def find_class(self, module, name):
        """Return the stand-in for a name, and never what it names."""
        # The random state of a MiniBatchKMeans, in parts that NumPy renames.
        if module.partition(".")[0] == "numpy" and ".random" in module:
            return Shell
        found = ALLOWED.get((module, name))
        if found is None:
            raise Refused(
                f"it names {module}.{name}, which no k-means codebook needs"
            )
        return self.wrapper if found is Wrapper else found


def unpack(content):
    """Return what a compressed file holds, or the file if it is none."""
    for magic, opener in OPENERS.items():
        if content.startswith(magic):
            with opener(io.BytesIO(content)) as file:
                content = file.read(MAX_BYTES + 1)
            break
    else:
        if content.startswith(b"\x78"):
            content = zlib.decompressobj().decompress(content, MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise Refused(f"it unpacks to more than {MAX_BYTES} bytes")
    return content


def read_kmeans(path: str | Path) -> np.ndarray:
    """Read the centroids of a pickled k-means object, float32 ``[K, D]``.

    Or of an array ``[K, D]``, or of a dict with either; from a file of pickle
    or joblib, compressed or not.
    """
    content = read_regular(path, MAX_BYTES)
    try:
        found = Reader(io.BytesIO(unpack(content))).load()
    except Refused as error:
        raise ValueError(f"{path} is refused: {error}") from None
    except MemoryError:
        raise
    except Exception as error:
        # Whatever a damaged or hostile file makes of the instructions.
        raise ValueError(
            f"{path} is not a pickle that can be read ({error!r}); expected "
            "what joblib.dump or pickle.dump wrote of a k-means object"
        ) from error
    if isinstance(found, Shell):
        found = found.state
    if isinstance(found, dict):
        keys = ("cluster_centers_", "cluster_centers", "centroids")
        found = next((found[key] for key in keys if key in found), None)
    if isinstance(found, Shell):
        found = found.state
    whole = isinstance(found, np.ndarray) and found.ndim == 2
    if not whole or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise ValueError(
            f"{path} has no cluster_centers_ of [K, D] finite numbers; "
            "expected a k-means object"
        )
    return np.ascontiguousarray(found, dtype=np.float32)


def read_in_bounds(path):
    """Do what :func:`read_kmeans` does, in a process that the system ends.

    A few bytes can ask for more numbers than there is memory, or for a hash
    that takes years; neither can be told from the bytes.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_read_into, args=(there, path))
    child.start()
    there.close()
    try:
        word, content = here.recv_bytes(), here.recv_bytes()
    except EOFError:
        raise ValueError(
            f"{path} is refused: to read it takes more than {MAX_SECONDS} s "
            f"or {MAX_MEMORY >> 30} GB, which no k-means codebook needs"
        ) from None
    finally:
        child.join()
    if word == b"error":
        raise ValueError(content.decode())
    return np.load(io.BytesIO(content), allow_pickle=False)


def _read_into(there, path):
    bounds = {resource.RLIMIT_AS: MAX_MEMORY, resource.RLIMIT_CPU: MAX_SECONDS}
    for kind, most in bounds.items():
        hard = resource.getrlimit(kind)[1]
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(kind, (most, hard))
    word, buffer = b"centroids", io.BytesIO()
    try:
        np.save(buffer, read_kmeans(path))
    except MemoryError:
        return  # without a word, as where the system ends it
    except (OSError, ValueError) as error:
        word, buffer = b"error", io.BytesIO(str(error).encode())
    there.send_bytes(word)
    there.send_bytes(buffer.getvalue())


def main(arguments=None):
    """Convert one file."""
    parser = script_parser(__doc__)
    parser.add_argument("source", help="the published file")
    parser.add_argument("target", help="a .safetensors or .npy file to write")
    arguments = parser.parse_args(arguments)
    target = Path(arguments.target)
    if target.suffix not in (".safetensors", ".npy"):
        raise ValueError(f"{target} should end in .safetensors or .npy")
    centroids = read_in_bounds(arguments.source)
    buffer = io.BytesIO()
    np.save(buffer, centroids)
    content = buffer.getvalue()
    if target.suffix == ".safetensors":
        content = save({"centroids": centroids})
    write_atomic(target, content)
    count, width = centroids.shape
    print(f"{target}: {count} centroids of {width} features, sha256 ", end="")
    print(sha256_file(target))


if __name__ == "__main__":
    run_script(main)
