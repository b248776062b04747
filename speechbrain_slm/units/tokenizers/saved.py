"""Tokenizers made again of what they have saved, whatever they are."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from speechbrain_slm.units.tokenizers import base, bpe, kmeans
from speechbrain_slm.utils.schema import MAPPING, TEXT, read_shaped

# The class of each ``type``, imported when a folder names it.
_ROOM = "speechbrain_slm.units.tokenizers"
KINDS = {
    "mel_kmeans": f"{_ROOM}.mel_kmeans.MelKMeans",
    "ssl_kmeans": f"{_ROOM}.ssl_kmeans.SSLKMeans",
    "whisper_kmeans": f"{_ROOM}.whisper_kmeans.WhisperKMeans",
    "mimi": f"{_ROOM}.mimi.Mimi",
    "speech_tokenizer": f"{_ROOM}.speech_tokenizer.SpeechTokenizer",
}
_SHAPE = {"config": MAPPING, "identity": TEXT, "source?": TEXT}


def load_tokenizer(
    folder: str | Path, source: str | Path | None = None
) -> tuple[base.Tokenizer, bpe.UnitBPE | None]:
    """Make a tokenizer of its folder, and the BPE on top of it if there is one.

    FileNotFoundError if the folder holds no tokenizer, or the pretrained model
    that it needs is not there; ValueError if it is another one's, or damaged.

    Arguments
    ---------
    source
        The pretrained model below it: a hub name or a folder. By default what
        the folder names, which never is a path.
    """
    folder = Path(folder)
    path = folder / base.DESCRIPTION
    base.read_description(path, "tokenizer")
    told: Any = read_shaped(path, _SHAPE)
    kind = told["config"].get("type")
    if kind not in KINDS:
        raise ValueError(
            f"{path}: type is {kind!r}; expected one of {', '.join(KINDS)}"
        )
    module, _, name = KINDS[kind].rpartition(".")
    make = getattr(importlib.import_module(module), name)
    # Those of the classes above, too, which `**options` stand for.
    known = {
        name
        for one in make.__mro__[:-1]
        for name in inspect.signature(one.__init__).parameters
    }
    # What it says of its weights follows from these.
    settings = {k: v for k, v in told["config"].items() if k in known}
    if "source" in known:
        settings["source"] = source or told.get("source")
        if settings["source"] is None:
            raise FileNotFoundError(
                f"{path} does not name the pretrained {kind} model that it "
                "needs (it stood in a local folder); say where it is"
            )
    tokenizer = make(**settings)
    if isinstance(tokenizer, kmeans.KMeansTokenizer):
        tokenizer.restore(folder)
    else:
        base.check_saved(tokenizer.config, folder, tokenizer.identity)
    pieces = folder / "bpe"
    if not (pieces / bpe.DESCRIPTION).is_file():
        return tokenizer, None
    return tokenizer, bpe.UnitBPE.load(pieces, tokenizer)
