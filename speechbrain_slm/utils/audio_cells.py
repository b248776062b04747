"""Audio as the cells of a table hold it, and the files that become of it."""

from pathlib import Path
from typing import Any

from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.audio import Sound

_EXTENSIONS = {"WAV": "wav", "WAVEX": "wav", "OGG": "ogg", "MPEG": "mp3"}


def content_or_path(cell: Any) -> bytes | str:
    """Return a cell's audio: its bytes, or where it is.

    ValueError if the cell is neither, nor the hub's ``{bytes, path}``, of which
    the path counts where there are no bytes.

    Example
    -------
    >>> content_or_path({"bytes": None, "path": "a.wav"})
    'a.wav'
    """
    found = cell
    if isinstance(cell, dict):
        found = cell.get("bytes")
        found = cell.get("path") if found is None else found
    if found is None or found == "":
        raise ValueError("no audio")
    if not isinstance(found, bytes | str):
        raise ValueError(f"audio: found {found!r:.80}; expected a path")
    return found


def keep_audio(content: bytes, sound: Sound, folder: Path) -> Path:
    """Write audio to a folder of ``folder``, once, named by what it is."""
    kind = _EXTENSIONS.get(sound.kind, sound.kind.lower())
    name = f"{sound.sha256[:32]}.{kind}"
    path = folder / name[:2] / name
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)
    return path
