"""Identities: short names that change when the thing they name changes."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from speechbrain_slm.utils.files import open_regular, sha256_of

if TYPE_CHECKING:
    import torch

_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_NOTHING = type("_Nothing", (), {"__repr__": lambda _: "nothing"})()


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits."""
    with open_regular(path) as file:
        return sha256_of(file, os.fstat(file.fileno()).st_size)


def file_stamp(path: str | Path) -> str:
    """Name the state of a file without reading it; "" where there is none."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return ""
    # Times may be set back, but nothing except the system sets ctime.
    return f"{facts.st_size}-{facts.st_mtime_ns}-{facts.st_ctime_ns}"


def identity_of(content: object) -> str:
    """Return the SHA-256 of an object's canonical JSON.

    Example
    -------
    >>> identity_of({"a": 1, "b": [2]}) == identity_of({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(_JSON.encode(content).encode("utf-8")).hexdigest()


def difference(expected: dict, found: dict, prefix: str = "") -> list[str]:
    """Name the fields in which two nested mappings differ, with both values.

    Example
    -------
    >>> difference({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
    ['a.b: expected 1, found 3']
    >>> difference({"a": None}, {})
    ['a: expected None, found nothing']
    """
    lines = []
    for key in sorted(expected.keys() | found.keys()):
        one, other = expected.get(key, _NOTHING), found.get(key, _NOTHING)
        if isinstance(one, dict) and isinstance(other, dict):
            lines += difference(one, other, f"{prefix}{key}.")
        elif one != other:
            lines.append(f"{prefix}{key}: expected {one!r}, found {other!r}")
    return lines


def tensors_identity(model: "torch.nn.Module") -> str:
    """Name a model's weights by their content."""
    digests = []
    for tensor in model.state_dict().values():
        array = tensor.detach().cpu().contiguous().numpy()
        digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
        digest.update(array)
        digests.append(digest.digest())
    # Not by name: libraries rename and reorder tensors between versions.
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()
