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


def hash_integers(*keys):
    """Mix integers into 64 uniform bits, the same on every machine.

    The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), applied
    after each key.

    Arguments
    ---------
    *keys : int or numpy.ndarray
        Non-negative integers; arrays broadcast.

    Returns
    -------
    numpy.ndarray
        uint64.

    Example
    -------
    >>> bits = hash_integers(1, np.arange(3))
    >>> bool((bits == hash_integers(1, np.arange(3))).all()), len(set(bits))
    (True, 3)
    """
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            state = (state ^ np.asarray(key).astype(np.uint64)) + _GOLDEN
            state = (state ^ (state >> np.uint64(30))) * _FIRST
            state = (state ^ (state >> np.uint64(27))) * _SECOND
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(*keys):
    """Return numbers in [0, 1) that depend on ``keys`` alone.

    Arguments
    ---------
    *keys : int or numpy.ndarray
        See :func:`hash_integers`.

    Returns
    -------
    numpy.ndarray
        float64, of 53 random bits each.
    """
    return (hash_integers(*keys) >> np.uint64(11)) * 2.0**-53


def language_paths(
    stories, counts, num_languages, switch_probability, span, seed, epoch
):
    """Draw the language of every sentence of some stories.

    The first sentence's language is uniform. Then, every ``span`` sentences,
    the story moves to one of the other languages (each as likely) with
    probability ``switch_probability``.

    Arguments
    ---------
    stories : numpy.ndarray
        Story numbers, shape ``[N]``.
    counts : numpy.ndarray
        Sentences in each, shape ``[N]``.
    num_languages : int
        How many languages there are to draw from.
    switch_probability : float
        0 keeps a story in one language, 1 switches whenever it may. For two
        languages, 0.5 draws each sentence's language uniformly.
    span : int
        Sentences that a language keeps at least.
    seed : int
        Seed of the run.
    epoch : int
        Which pass over the stories.

    Returns
    -------
    numpy.ndarray
        Language numbers, int64, shape ``[sum(counts)]``.

    Example
    -------
    >>> path = language_paths(np.array([7]), np.array([4]), 2, 1.0, 1, 0, 0)
    >>> np.abs(np.diff(path)).tolist()
    [1, 1, 1]
    """
    total = int(counts.sum())
    if num_languages == 1:
        return np.zeros(total, dtype=np.int64)
    story = np.repeat(stories, counts)
    sentence = ranges(np.zeros(len(counts), dtype=np.int64), counts)
    draws = uniform(seed, epoch, story, sentence)
    moves = (draws < switch_probability) & (sentence % span == 0)
    # A draw below p is uniform in [0, p), so it also picks the language.
    share = np.where(moves, draws, 0.0) / max(switch_probability, 1e-9)
    shifts = np.where(moves, 1 + (share * (num_languages - 1)).astype(int), 0)
    shifts = np.where(
        sentence == 0, (draws * num_languages).astype(int), shifts
    )
    running = np.cumsum(shifts)
    first = np.cumsum(counts) - counts
    before = np.where(counts > 0, running[first] - shifts[first], 0)
    return (running - np.repeat(before, counts)) % num_languages
