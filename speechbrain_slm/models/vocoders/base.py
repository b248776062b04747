"""What every vocoder offers, whatever it is made of, and how it is stored.

A stored vocoder is a folder of ``vocoder.json`` and ``vocoder.safetensors``.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, save

from speechbrain_slm.utils.atomic import write_atomic, write_json
from speechbrain_slm.utils.files import read_regular
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.schema import MAPPING, TEXT, read_shaped

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

DESCRIPTION, TENSORS = "vocoder.json", "vocoder.safetensors"
# The class of each ``type``, imported when a folder names it.
KINDS = {
    "codec": "speechbrain_slm.models.vocoders.codec.CodecVocoder",
    "hifigan": "speechbrain_slm.models.vocoders.hifigan.HifiganVocoder",
    "mel": "speechbrain_slm.models.vocoders.mel.MelVocoder",
}
_SHAPE = {
    "type": TEXT,
    "config": MAPPING,
    "tokenizer_identity": TEXT,
    "speakers": [TEXT],
    "languages": [TEXT],
    "weights": TEXT,  # their SHA-256
    "identity": TEXT,
}
# Attributes that are written down, and are in the identity.
_FACTS = ("config", "tokenizer_identity", "speakers", "languages")


class Vocoder(Protocol):
    """Discrete units in, speech out.

    Its class is a value of ``KINDS``.
    """

    sample_rate: int  # of the speech, in Hz
    # Of the tokenizer whose units it speaks; below any BPE.
    tokenizer_identity: str
    config: dict[str, Any]  # what it is made of again; JSON holds it
    identity: str  # hash of all that decides how it sounds
    speakers: list[str]  # names that ``speak`` takes; the first is the default
    languages: list[str]
    # Of its units one that repeats itself is written once: it predicts how
    # long each lasts.
    deduplicated: bool

    def speak(
        self,
        units: Sequence[np.ndarray],
        speakers: list[str] | None = None,
        languages: list[str] | None = None,
    ) -> list[Tensor]:
        """Turn units into waveforms, whatever each is batched with.

        Arguments
        ---------
        units : ``[U]`` integers each; where U is 0 the waveform is empty.
        speakers : ``[B]``; None: the first one for all.
        languages : ``[B]``; None: whatever the units say.

        Returns
        -------
        ``[T]`` each, float32, on the CPU.
        """

    def to(self, device: str) -> Vocoder:
        """Compute on another device from now on."""

    def save(self, folder: str | Path) -> None:
        """Write what :func:`load_vocoder` reads."""

    @classmethod
    def from_saved(
        cls, told: dict[str, Any], tensors: dict[str, Tensor], tokenizer: Any
    ) -> Self:
        """Make it of its description and weights; for ``load_vocoder``."""


def new_vocoder(
    make: Callable[..., Any],
    tokenizer: Any,
    speakers: Sequence[str],
    languages: Sequence[str],
) -> Any:
    """Make a vocoder that is to be trained for a tokenizer's units.

    Arguments
    ---------
    make : The class of a vocoder, or a part of its arguments as well.
    """
    names = ("deduplicated", "sample_rate", "frame_rate", "vocabulary_size")
    facts = {name: getattr(tokenizer, name) for name in names}
    facts |= {"tokenizer_identity": tokenizer.identity}
    if "tokenizer" in inspect.signature(make).parameters:
        facts = {"tokenizer": tokenizer}  # whose decoder it is
    return make(speakers=speakers, languages=languages, **facts)


def save_vocoder(
    folder: str | Path, kind: str, vocoder: Any, tensors: dict[str, Tensor]
) -> None:
    """Write a vocoder's weights and, last, its description."""
    folder, content = Path(folder), packed(tensors)
    write_atomic(folder / TENSORS, content)
    told = {"type": kind, **{name: getattr(vocoder, name) for name in _FACTS}}
    told["weights"] = hashlib.sha256(content).hexdigest()
    write_json(folder / DESCRIPTION, {**told, "identity": vocoder.identity})


def packed(tensors: dict[str, Tensor]) -> bytes:
    """Write weights as the content of a safetensors file."""
    return save({n: t.detach().cpu().contiguous() for n, t in tensors.items()})


def vocoder_identity(vocoder: Any, tensors: dict[str, Tensor]) -> str:
    """Name a vocoder by what decides how it sounds."""
    told = {name: getattr(vocoder, name) for name in _FACTS}
    weights = hashlib.sha256(packed(tensors)).hexdigest()
    return identity_of({**told, "weights": weights})


def load_vocoder(folder: str | Path, tokenizer: Any = None) -> Vocoder:
    """Read what a vocoder has saved; nothing in its files is executed.

    Arguments
    ---------
    tokenizer
        The one whose units it is to speak. ValueError if it speaks another's.
        The decoder of a codec is in its tokenizer, and needs it.

    Raises
    ------
    FileNotFoundError
        If the folder holds no complete vocoder.
    ValueError
        If it is damaged, or weights are not what the description names.
    """
    folder = Path(folder)
    path, ours = folder / DESCRIPTION, getattr(tokenizer, "identity", None)
    if not path.is_file() or not (folder / TENSORS).is_file():
        raise FileNotFoundError(
            f"{folder} is no vocoder: expected {DESCRIPTION} and {TENSORS}, "
            "which the vocoder recipe writes"
        )
    told: Any = read_shaped(path, _SHAPE)
    if told["type"] not in KINDS:
        raise ValueError(
            f"{path}: type is {told['type']!r}; expected one of "
            f"{', '.join(KINDS)}"
        )
    content = read_regular(folder / TENSORS)
    if hashlib.sha256(content).hexdigest() != told["weights"]:
        raise ValueError(
            f"{folder / TENSORS} has not the SHA-256 that {DESCRIPTION} says; "
            "copy the folder again, or train the vocoder again"
        )
    written = {name: told[name] for name in (*_FACTS, "weights")}
    if identity_of(written) != told["identity"]:
        raise ValueError(
            f"{path} is not as it was written: its identity is another. Copy "
            "the folder again, or train the vocoder again."
        )
    if ours not in (None, told["tokenizer_identity"]):
        raise ValueError(
            f"{folder} speaks units of the tokenizer "
            f"{told['tokenizer_identity'][:12]}; this one is {ours[:12]}. "
            "Train a vocoder on its units."
        )
    try:
        tensors = load(content)
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"{folder / TENSORS}: {error}") from error
    module, _, name = KINDS[told["type"]].rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    try:
        return kind.from_saved(told, tensors, tokenizer)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path}: its config and weights are of no {told['type']} vocoder "
            f"({str(error).splitlines()[0]}). Copy the folder again, or train "
            "the vocoder again."
        ) from error
