"""Say why nobody can go on from a checkpoint."""

import json
from pathlib import Path

from speechbrain_slm.brains.state import (
    check_finite,
    load_optimizer,
    load_weights,
    read_optimizer,
    read_weights,
)
from speechbrain_slm.utils.hashing import sha256_file

FILES_JSON = "files.json"
_READERS = {load_weights: read_weights, load_optimizer: read_optimizer}


def damage(path, loaders=()):
    """Say what is wrong with a checkpoint.

    Every file's SHA-256 is compared, and what will be loaded is read: a sum
    is true, too, of what was damaged before it was taken.

    Arguments
    ---------
    path : str or Path
        The checkpoint's folder.
    loaders : dict, optional
        Name -> how the object is loaded, of those of ``state``.

    Returns
    -------
    str or None
        The first fault; None for a whole checkpoint.
    """
    path = Path(path)
    try:
        files = json.loads((path / FILES_JSON).read_text(encoding="utf-8"))
        for name, expected in files.items():
            size = (path / name).stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes, not {expected['bytes']}"
            if sha256_file(path / name) != expected["sha256"]:
                return f"{name} differs from its SHA-256"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    if "CKPT.yaml" not in files:
        return f"{FILES_JSON} does not list CKPT.yaml"
    for name, loader in dict(loaders).items():
        reader = _READERS.get(loader)
        file = path / f"{name}.ckpt"
        try:
            if reader is not None:
                check_finite(reader(file), file.name)
        except (OSError, ValueError, FloatingPointError) as error:
            return str(error)
    return None
