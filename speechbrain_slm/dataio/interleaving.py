"""Language paths: in which language each sentence of a story is spoken.

A path is a pure function of (seed, epoch, story): nothing is drawn from a
generator that has a state, so any row of any epoch can be built at once, on
any rank, before or after a restart.
"""

import numpy as np

from speechbrain_slm.dataio.reader import ranges

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def hash_integers(*keys: int | np.ndarray) -> np.ndarray:
    """Mix integers into 64 uniform bits (uint64), the same on every machine.

    The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), applied
    after each key; keys are not negative, and arrays of them broadcast.
    """
    state = np.zeros((), dtype=np.uint64)
    for key in keys:
        state = _mix(state, key)
    return state


def _mix(state: np.ndarray, key: int | np.ndarray) -> np.ndarray:
    # Wrapping around at 2**64 is what is meant; of scalars NumPy would warn.
    with np.errstate(over="ignore"):
        state = (state ^ np.asarray(key).astype(np.uint64)) + _GOLDEN
        state = (state ^ (state >> np.uint64(30))) * _FIRST
        state = (state ^ (state >> np.uint64(27))) * _SECOND
        return state ^ (state >> np.uint64(31))


def as_uniform(bits: np.ndarray) -> np.ndarray:
    """Turn what :func:`hash_integers` returns into numbers in [0, 1)."""
    # 53 bits are what a float64 holds: the largest is 1 - 2**-53, never 1.
    return (bits >> np.uint64(11)) * 2.0**-53


def language_paths(
    stories: np.ndarray,
    counts: np.ndarray,
    num_languages: int | np.ndarray,
    switch_probability: float | np.ndarray,
    span: int,
    seed: int,
    epoch: int,
) -> np.ndarray:
    """Draw the language of every sentence of some stories, by its number.

    The first sentence's language is uniform. Then, every ``span`` sentences,
    the story moves to one of the other languages (each as likely) with
    probability ``switch_probability``.

    Arguments
    ---------
    stories : Story numbers, shape ``[N]``.
    counts : Sentences in each, at least 1, shape ``[N]``.
    num_languages : To draw from; of all stories, or of each, ``[N]``.
    switch_probability
        0 keeps a story in one language, 1 switches whenever it may. For two
        languages, 0.5 draws each sentence's language uniformly. Of each
        story, ``[N]``, for a curriculum.

    Returns
    -------
    int64, shape ``[sum(counts)]``.

    Example
    -------
    >>> path = language_paths(np.array([7]), np.array([4]), 2, 1.0, 1, 0, 0)
    >>> np.abs(np.diff(path)).tolist()
    [1, 1, 1]
    """
    first = np.cumsum(counts) - counts
    sentence = ranges(np.zeros(len(counts), dtype=np.int64), counts)
    # What holds for a story is computed once a story, not once a sentence:
    # epochs have millions of these.
    state = np.repeat(hash_integers(seed, epoch, stories), counts)
    draws = as_uniform(_mix(state, sentence))
    many, bound = (
        np.repeat(value, counts) if np.ndim(value) else value
        for value in (num_languages, switch_probability)
    )
    moves = draws < bound
    if span > 1:
        moves &= sentence % span == 0
    # A draw below p is uniform in [0, p), so it also picks the language.
    share = draws / np.maximum(bound, 1e-9)
    shifts = moves * (1 + (share * (many - 1)).astype(np.int64))
    last = num_languages - 1
    uniform = (draws[first] * num_languages).astype(np.int64)
    shifts[first] = np.minimum(uniform, last)
    # Shifts add up within a story: by [1, 1, 0] from language 1 of 2 the path
    # is 1, 0, 0.
    running = np.cumsum(shifts)
    running -= np.repeat(running[first] - shifts[first], counts)
    return running % many
