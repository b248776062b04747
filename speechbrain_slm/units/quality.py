"""Measures of discrete units: how a codebook is used, and what units tell.

Good units tell the phone (:func:`normalized_mutual_information` with phones,
high) and not the speaker (the same with speakers, low), so that two voices
saying one sentence give nearly the same units (:func:`voice_distance`).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import entropy
from sklearn.metrics import homogeneity_score

from speechbrain_slm.units.tokenizers.base import deduplicate


def codebook_use(counts: np.ndarray) -> dict[str, Any]:
    """Measure how evenly a codebook is used.

    The perplexity, ``exp(H)`` (van den Oord et al. 2017,
    https://arxiv.org/abs/1711.00937), is the number of units that, used equally
    often, would be as hard to guess; ``dead`` are those that are never used.
    """
    dead = int((counts == 0).sum())
    return {"perplexity": float(np.exp(entropy(counts))), "dead": dead}


def deduplication_ratio(sentences: Sequence[np.ndarray]) -> float:
    """Return the share of units that de-duplication leaves."""
    left = sum(len(deduplicate(units)) for units in sentences)
    return left / sum(map(len, sentences))


def normalized_mutual_information(
    labels: np.ndarray, units: np.ndarray
) -> float:
    """Measure what share of the labels' information the units tell, 0 to 1.

    ``I(labels; units) / H(labels)``; with phones, PNMI (Hsu et al. 2021,
    HuBERT, https://arxiv.org/abs/2106.07447, section IV.C). With few frames it
    is biased upwards, by about ``(K - 1) (L - 1) / (2 N H)`` for K units, L
    labels and N frames: compare codebooks of one size on the same frames.
    """
    found = np.unique(labels)
    if len(found) < 2:
        raise ValueError(
            f"The labels are all {found.tolist()}; expected two kinds or more"
        )
    # Homogeneity is 1 - H(labels | units) / H(labels).
    # Rounding may leave it a little below 0.
    return max(0.0, float(homogeneity_score(labels, units)))


def frame_labels(
    starts: Sequence[float],
    phones: Sequence[str],
    num_frames: int,
    frame_rate: float,
) -> np.ndarray:
    """Give each frame the phone in whose time its middle lies.

    A phone begins at ``starts`` (seconds, rising) and lasts until the next.
    """
    # At 50 Hz, the frames' middles are 0.01, 0.03, 0.05, ... s. Before the
    # first phone there is none, "".
    middles = (np.arange(num_frames) + 0.5) / frame_rate
    place = np.searchsorted(np.asarray(starts), middles, side="right")
    return np.array(["", *phones])[place]


def edit_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Levenshtein distance over the longer length, 0 to 1."""
    longer = max(len(one), len(other))
    if not longer:
        return 0.0
    # SpeechBrain's loops in Python over both: 4 times as long for 100 units.
    places = np.arange(len(other) + 1)
    row = places
    for number, unit in enumerate(one, start=1):
        change = np.minimum(row[1:] + 1, row[:-1] + (other != unit))
        row = np.concatenate(([number], change))
        # Insertions, all at once: the cheapest place to the left, plus steps.
        row = np.minimum.accumulate(row - places) + places
    return int(row[-1]) / longer


def voice_distance(
    texts: Sequence[str],
    speakers: Sequence[str],
    sentences: Sequence[np.ndarray],
) -> dict[str, Any]:
    """Compare the units of one sentence in two voices.

    The unit edit distance of Gat et al. 2023 (https://arxiv.org/abs/2209.15483)
    over the longer length, with another voice as what should change nothing. A
    codebook of one unit has a distance of 0, so the same voices are compared on
    different sentences as well; the ratio of the two tells good units. It is
    None where the latter is 0; ``pairs`` alone stands, 0, where fewer than two
    sentences are said by two speakers.

    Example
    -------
    >>> units = [np.array(u) for u in ([1, 2], [1, 2, 3, 3], [5], [5, 6])]
    >>> voice_distance(["a", "a", "b", "b"], ["x", "y", "x", "y"], units)
    {'same_sentence': 0.5, 'other_sentence': 1.0, 'ratio': 0.5, 'pairs': 2}
    """
    said: dict[str, dict[str, np.ndarray]] = {}
    for text, speaker, units in zip(texts, speakers, sentences, strict=True):
        said.setdefault(text, {}).setdefault(speaker, units)
    voices: dict[tuple[str, str], list[str]] = {}
    for text, spoken in said.items():
        for pair in itertools.combinations(sorted(spoken), 2):
            voices.setdefault(pair, []).append(text)
    same, different = [], []
    for (one, other), shared in voices.items():
        # Of texts a, b, c the others are b, c, a.
        if len(shared) > 1:
            for text, next_text in itertools.pairwise([*shared, shared[0]]):
                units = said[text][one]
                same.append(edit_distance(units, said[text][other]))
                different.append(edit_distance(units, said[next_text][other]))
    if not same:
        return {"pairs": 0}
    near, far = float(np.mean(same)), float(np.mean(different))
    return {
        "same_sentence": near,
        "other_sentence": far,
        "ratio": near / far if far else None,
        "pairs": len(same),
    }
