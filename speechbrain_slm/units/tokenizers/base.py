"""What every tokenizer of speech offers, whatever it is made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from speechbrain_slm.utils.atomic import read_json, write_json
from speechbrain_slm.utils.hashing import difference
from speechbrain_slm.utils.store_format import TOKENIZER_FIELDS

DESCRIPTION = "tokenizer.json"
# All that a saved tokenizer and the BPE on top of it consist of.
_BPE = "bpe/bpe.json"
_SAVED = (DESCRIPTION, "centroids.safetensors")
_SAVED_BPE = (_BPE, "bpe/bpe.model")


class Tokenizer(Protocol):
    """Speech in, discrete units out.

    Attributes
    ----------
    sample_rate : int
        Of the waveforms that ``encode`` takes, in Hz.
    frame_rate : float
        Units a second of speech, before de-duplication.
    vocabulary_size : int
        Units are in ``[0, vocabulary_size)``.
    deduplicated : bool
        Whether a unit that repeats itself is written once.
    config : dict
        What was chosen when it was made; JSON can hold it.
    identity : str
        Changes whenever the same speech could give other units: a hash of
        the configuration and of the codebook or weights.
    fitted : bool
        Whether it can encode now.
    equal_lengths : bool
        Whether an utterance may be batched with others of as many samples
        alone, because padding would change its units.
    """

    sample_rate: int
    frame_rate: float
    vocabulary_size: int
    deduplicated: bool
    config: dict
    identity: str
    fitted: bool
    equal_lengths: bool

    def encode(
        self, wavs, lengths, languages: list[str] | None = None
    ) -> list[np.ndarray]:
        """Turn waveforms into units.

        The units of an utterance must not depend on what it is batched with.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, ``[B, T]``, float32.
        lengths : torch.Tensor
            Samples of each waveform that are not padding, ``[B]``.
        languages
            Of each utterance; needed where each language has a codebook.

        Returns
        -------
        One array of integers an utterance; empty where it is too short
        to give a unit, None where its features are not finite numbers.
        """

    def to(self, device: str) -> Tokenizer:
        """Compute on another device.

        Arguments
        ---------
        device : ``cpu`` or ``cuda...``.

        Returns
        -------
        This one.
        """

    def save(self, folder: str | Path) -> None:
        """Write what is needed to encode in the same way.

        Arguments
        ---------
        folder : Gets ``tokenizer.json`` and, where there is one, the codebook.
        """


def describe(tokenizer) -> dict:
    """Return what a unit store says of its tokenizer.

    Arguments
    ---------
    tokenizer : Tokenizer or UnitBPE
        Whatever makes the units of the store.

    Returns
    -------
    ``identity``, ``vocabulary_size``, ``frame_rate``, ``deduplicated``
    and ``config``.
    """
    return {name: getattr(tokenizer, name) for name in TOKENIZER_FIELDS}


def deduplicate(units: np.ndarray) -> np.ndarray:
    """Write a unit that repeats itself once.

    Arguments
    ---------
    units : Units, ``[U]``.

    Returns
    -------
    The first unit of each run.

    Example
    -------
    >>> deduplicate(np.array([7, 7, 2, 7, 7, 7])).tolist()
    [7, 2, 7]
    """
    first = np.ones(len(units), dtype=bool)
    first[1:] = units[1:] != units[:-1]
    return units[first]


def save_description(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write what a tokenizer is; the last thing that its ``save`` does.

    Arguments
    ---------
    tokenizer
        A fitted one. Its ``source``, if it has one, says where its model
        came from; that does not decide its identity.
    folder : Gets ``tokenizer.json``.
    """
    description = {"config": tokenizer.config, "identity": tokenizer.identity}
    if hasattr(tokenizer, "source"):
        description["source"] = str(tokenizer.source)
    write_json(Path(folder) / DESCRIPTION, description)


def check_saved(
    config: dict, folder: str | Path, identity: str | None = None
) -> None:
    """Refuse a folder that another tokenizer was saved to.

    Arguments
    ---------
    config : Of the tokenizer that should be there.
    folder : What ``save`` wrote to.
    identity : Compared where it is known.

    Raises
    ------
    FileNotFoundError
        If the folder holds no complete tokenizer.
    ValueError
        If it was another, or was changed after it was written.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; expected a fitted tokenizer. Run the "
            "units recipe, which fits one."
        )
    saved = read_json(path)
    wrong = difference(config, saved["config"])
    if identity is not None and identity != saved["identity"]:
        wrong.append("its files are not the ones that were saved together")
    if wrong:
        raise ValueError(
            f"{path}: not this tokenizer ({'; '.join(wrong)}). Choose "
            "another folder, or remove this one and fit it again."
        )


def saved_files(folder: str | Path, identity: str) -> dict:
    """Read what a tokenizer has saved, to be published beside a model.

    Arguments
    ---------
    folder : What the units recipe has saved it to.
    identity : Of the tokenizer, or of the BPE on top of it.

    Returns
    -------
    Name -> bytes. Empty where the folder holds no such tokenizer. The
    place that its model came from is left out where it is a path.
    """
    folder = Path(folder)
    try:
        description = read_json(folder / DESCRIPTION)
        names = list(_SAVED)
        if description["identity"] != identity:
            if read_json(folder / _BPE)["identity"] != identity:
                return {}
            names += _SAVED_BPE
        files = {
            name: (folder / name).read_bytes()
            for name in names
            if (folder / name).is_file()
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    source = description.get("source")
    if source and (Path(source).is_absolute() or Path(source).exists()):
        del description["source"]
        files[DESCRIPTION] = json.dumps(description, indent=2).encode()
    return files


def interleave(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """Write the codes of several codebooks as one stream of units.

    Frame by frame, the first codebook first, each with a range of units of
    its own (the *flattened* pattern of MusicGen and AudioLM). One codebook
    stays as it is.

    Arguments
    ---------
    codes : ``[Q, F]``: Q codebooks, F frames.

    Returns
    -------
    ``[F * Q]``, in ``[0, Q * codebook_size)``.

    Example
    -------
    >>> interleave(np.array([[1, 2], [3, 0]]), codebook_size=10).tolist()
    [1, 13, 2, 10]
    """
    offsets = np.arange(len(codes))[:, None] * codebook_size
    return (codes + offsets).T.reshape(-1)


def separate(
    units: Sequence[int], num_codebooks: int, codebook_size: int
) -> np.ndarray:
    """Undo :func:`interleave`.

    Arguments
    ---------
    units : ``[F * Q]``.

    Returns
    -------
    ``[Q, F]``.

    Raises
    ------
    ValueError
        If a unit is not where its codebook's units stand.

    Example
    -------
    >>> separate([1, 13, 2, 10], 2, codebook_size=10).tolist()
    [[1, 2], [3, 0]]
    """
    units = np.asarray(units, dtype=np.int64)
    if len(units) % num_codebooks:
        raise ValueError(
            f"{len(units)} units are no whole number of frames of "
            f"{num_codebooks} codebooks"
        )
    codes = units.reshape(-1, num_codebooks).T
    codes = codes - np.arange(num_codebooks)[:, None] * codebook_size
    if ((codes < 0) | (codes >= codebook_size)).any():
        raise ValueError(
            f"units out of place: expected those of {num_codebooks} codebooks "
            f"of {codebook_size} in turn, frame by frame"
        )
    return codes
