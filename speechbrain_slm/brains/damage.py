"""Say why nobody can go on from a checkpoint."""

from pathlib import Path

from speechbrain_slm.brains.state import (
    check_finite,
    load_optimizer,
    load_weights,
    read_optimizer,
    read_weights,
)
from speechbrain_slm.utils.sealing import unsealed

_READERS = {load_weights: read_weights, load_optimizer: read_optimizer}


def damage(path: str | Path, loaders: dict = ()) -> str | None:
    """Say what is wrong with a checkpoint.

    Every file's SHA-256 is compared, and what will be loaded is read: a sum
    is true, too, of what was damaged before it was taken.

    Arguments
    ---------
    loaders : Name -> how the object is loaded, of those of ``state``.

    Returns
    -------
    The first fault; None for a whole checkpoint.
    """
    path = Path(path)
    fault = unsealed(path, ["CKPT.yaml"])
    if fault:
        return fault
    for name, loader in dict(loaders).items():
        reader = _READERS.get(loader)
        file = path / f"{name}.ckpt"
        try:
            if reader is not None:
                check_finite(reader(file), file.name)
        except (OSError, ValueError, FloatingPointError) as error:
            return str(error)
    return None
