"""What every tokenizer of speech offers, whatever it is made of."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from speechbrain_slm.utils.atomic import read_json, write_json
from speechbrain_slm.utils.hashing import difference
from speechbrain_slm.utils.store_format import TOKENIZER_FIELDS

if TYPE_CHECKING:
    from torch import Tensor

    from speechbrain_slm.units.tokenizers.bpe import UnitBPE

DESCRIPTION = "tokenizer.json"
# All that a saved tokenizer and, from _BPE on, what is on top of it consist of.
_BPE = "bpe/bpe.json"
_SAVED = (DESCRIPTION, "centroids.safetensors", _BPE, "bpe/bpe.model")


class Tokenizer(Protocol):
    """Speech in, discrete units out."""

    sample_rate: int  # of the waveforms that it takes, in Hz
    frame_rate: float  # units a second of speech, before de-duplication
    vocabulary_size: int  # units are in [0, vocabulary_size)
    deduplicated: bool  # a unit that repeats itself is written once
    config: dict[str, Any]  # what was chosen when it was made; JSON holds it
    # Hash of the configuration and of the codebook or weights: changes whenever
    # the same speech could give other units.
    identity: str
    fitted: bool  # it can encode now
    # Padding would change its units: batch it with others of its length alone.
    equal_lengths: bool

    def encode(
        self, wavs: Tensor, lengths: Tensor, languages: list[str] | None = None
    ) -> list[np.ndarray | None]:
        """Turn waveforms into units, whatever each is batched with.

        Arguments
        ---------
        wavs : ``[B, T]``, float32.
        lengths : Samples of each waveform that are not padding, ``[B]``.
        languages : ``[B]``; needed where each language has a codebook.

        Returns
        -------
        ``[U]`` integers each; empty where an utterance is too short to give a
        unit, None where its features are not finite numbers.
        """

    def to(self, device: str) -> Tokenizer:
        """Compute on another device from now on."""

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.json`` and, where there is one, the codebook."""


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Refuse a setting that is none of those that there are."""
    if value not in known:
        told = f"{name} is {value!r}; expected one of {', '.join(known)}"
        raise ValueError(told)


def describe(tokenizer: Tokenizer | UnitBPE) -> dict[str, Any]:
    """Return what a unit store says of whatever makes its units."""
    return {name: getattr(tokenizer, name) for name in TOKENIZER_FIELDS}


def deduplicate(units: np.ndarray) -> np.ndarray:
    """Write a unit that repeats itself once: 7, 7, 2, 7 is 7, 2, 7."""
    first = np.append(True, units[1:] != units[:-1])
    return units[first[: len(units)]]  # where there is none, none is first


def framewise(tokenizer: Any) -> Any:
    """Return a tokenizer that writes the same units, one for each frame."""
    # What makes frames' units is shared; that they are de-duplicated is said,
    # and done, by the object alone.
    one = copy.copy(tokenizer)
    one.deduplicated = False
    return one


def read_description(path: Path, what: str) -> dict[str, Any]:
    """Read what a ``save`` writes last, and whose absence says it is none."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; expected a fitted {what}. Run the units "
            "recipe, which fits one."
        )
    return read_json(path)


def save_description(
    folder: str | Path,
    config: dict[str, Any],
    identity: str,
    source: str | Path | None = None,
) -> None:
    """Write ``tokenizer.json``, the last thing that a ``save`` does."""
    # Where a model came from is not in the identity.
    told = {} if source is None else {"source": str(source)}
    described = {"config": config, "identity": identity, **told}
    write_json(Path(folder) / DESCRIPTION, described)


def check_saved(
    config: dict[str, Any], folder: str | Path, identity: str | None = None
) -> None:
    """Refuse a folder of no complete tokenizer, or of another: ValueError.

    Also one that was changed since, where ``identity`` is known.
    """
    path = Path(folder) / DESCRIPTION
    saved = read_description(path, "tokenizer")
    wrong = difference(config, saved["config"])
    if identity is not None and identity != saved["identity"]:
        wrong.append("its files are not the ones that were saved together")
    if wrong:
        raise ValueError(
            f"{path}: not this tokenizer ({'; '.join(wrong)}). Choose "
            "another folder, or remove this one and fit it again."
        )


def saved_files(folder: str | Path, identity: str) -> dict[str, bytes]:
    """Read by name what a tokenizer, or the BPE on top of it, has saved.

    To be published beside a model; empty where the folder holds none of this
    identity.
    """
    folder = Path(folder)
    try:
        description, count = read_json(folder / DESCRIPTION), 2
        if description["identity"] != identity:
            if read_json(folder / _BPE)["identity"] != identity:
                return {}
            count = len(_SAVED)
        there = (n for n in _SAVED[:count] if (folder / n).is_file())
        files = {name: (folder / name).read_bytes() for name in there}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    # A path says nothing to others, and may say whose machine it was.
    if _is_place(description.get("source")):
        del description["source"]
        files[DESCRIPTION] = json.dumps(description, indent=2).encode()
    return files


def told_of(folder: str | Path) -> dict[str, Any]:
    """Return what a model's configuration says of a saved tokenizer.

    ``base_identity``: its own, without BPE; ``encoder``: ``name`` and
    ``weights`` (their hash) of a pretrained model that it works with, if any.
    """
    description = read_json(Path(folder) / DESCRIPTION)
    told: dict[str, Any] = {"base_identity": description["identity"]}
    if weights := description["config"].get("weights"):
        source = description.get("source") or ""
        name = Path(source).name if _is_place(source) else source
        told["encoder"] = {"name": name, "weights": weights}
    return told


def _is_place(source: str | None) -> bool:
    """Tell a folder of this machine from a name on the hub."""
    return bool(source) and (
        Path(str(source)).is_absolute() or Path(str(source)).exists()
    )
