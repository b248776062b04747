"""What every tokenizer of speech offers, whatever it is made of."""

from typing import Protocol

import numpy as np

from speechbrain_slm.utils.store_format import TOKENIZER_FIELDS


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
    """

    sample_rate: int
    frame_rate: float
    vocabulary_size: int
    deduplicated: bool
    config: dict
    identity: str

    def encode(self, wavs, lengths):
        """Turn waveforms into units.

        The units of an utterance must not depend on what it is batched with.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, ``[B, T]``, float32.
        lengths : torch.Tensor
            Samples of each waveform that are not padding, ``[B]``.

        Returns
        -------
        list of numpy.ndarray
            One array of integers an utterance; empty where it is too short
            to give a unit.
        """


def describe(tokenizer):
    """Return what a unit store says of its tokenizer.

    Arguments
    ---------
    tokenizer : Tokenizer or UnitBPE
        Whatever makes the units of the store.

    Returns
    -------
    dict
        ``identity``, ``vocabulary_size``, ``frame_rate``, ``deduplicated``
        and ``config``.
    """
    return {name: getattr(tokenizer, name) for name in TOKENIZER_FIELDS}


def deduplicate(units):
    """Write a unit that repeats itself once.

    Arguments
    ---------
    units : numpy.ndarray
        Units, ``[U]``.

    Returns
    -------
    numpy.ndarray
        The first unit of each run.

    Example
    -------
    >>> deduplicate(np.array([7, 7, 2, 7, 7, 7])).tolist()
    [7, 2, 7]
    """
    first = np.ones(len(units), dtype=bool)
    first[1:] = units[1:] != units[:-1]
    return units[first]
