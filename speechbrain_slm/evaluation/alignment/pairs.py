"""Pairs of translations in a unit store, and what each is compared with.

A match gives a pair told by one voice and one told by two. A pair's
*mismatch* is the translation of another match, of nearest length, by the very
voice that speaks the right one: neither length nor voice tells them apart.
"""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from speechbrain_slm.evaluation.alignment.matches import (
    LEVELS,
    Match,
    Rendering,
    Spoken,
    find_matches,
)
from speechbrain_slm.utils.numbers import check_choice

if TYPE_CHECKING:
    from speechbrain_slm.dataio.reader import UnitStore

logger = logging.getLogger(__name__)

VOICES = ("same", "different")
SIDES = ("source", "target", "mismatch")
# Rows that agree in these are compared with each other.
GROUP = ("source_language", "target_language", "same_voice")
_SIDES = [f"{side}_{name}" for side in SIDES for name in Rendering._fields]
_KINDS = dict.fromkeys(("item", "sentence", "units"), pa.int32())
_KINDS["voice"] = pa.bool_()  # by the last word of a name; the rest is text
PAIRS = pa.schema(
    (name, _KINDS.get(name.rpartition("_")[2], pa.string()))
    for name in (*GROUP, "item", *_SIDES)
)


def parallel_pairs(
    store: UnitStore,
    languages: Sequence[str],
    level: str = "sentence",
    voices: Sequence[str] = VOICES,
    texts: Spoken | None = None,
    seed: int = 0,
    speakers: Spoken | None = None,
) -> tuple[pa.Table, list[dict]]:
    """Pair the translations of a store, and say how many of each language.

    The rows of a group (see ``GROUP``) follow each other. All voices have the
    same matches, so that their numbers can stand side by side: one that lacks
    a voice is left out. A voice that fewer than two matches have is itself
    left out, with a warning.

    Arguments
    ---------
    languages : Two or more; each pair of them is compared.
    level : ``sentence`` or ``story``: what is compared, read by itself.
    voices : Whether both speakers are to be the ``same``, or ``different``.
    texts, speakers : See :func:`find_matches`.
    """
    _check(store, languages, level, voices)
    generator = np.random.default_rng(seed)
    rows, summaries = [], []
    for pair in itertools.combinations(languages, 2):
        matches = find_matches(store, pair, level, texts, speakers)
        found, ambiguous, shortened = matches
        for places in found:
            # Else the first stories' speakers would tell all pairs.
            generator.shuffle(places)
        pools = _pools(found)
        where = f"{store.folder}, {' and '.join(pair)}"
        kept, chosen = _choose_voices(where, found, pools, level, voices, texts)
        for voice, number in itertools.product(kept, chosen):
            source, targets = chosen[number]
            target = targets[voice]
            other = pools[target.speaker].nearest(number, target, generator)
            sides = (*source, *target, *other)
            rows.append((*pair, voice == "same", number, *sides))
        summaries.append(
            {
                "languages": list(pair),
                "texts_known": texts is not None,
                "items": len(found),
                "paired": len(chosen),
                "voices": kept,
                "left_out": len(found) - len(chosen),
                "ambiguous": ambiguous,
                "shortened": shortened,
            }
        )
    return pa.table(list(map(list, zip(*rows, strict=True))), PAIRS), summaries


def _check(store, languages, level, voices):
    if len(languages) < 2 or len(set(languages)) < len(languages):
        raise ValueError(
            f"languages are {list(languages)}; expected two or more, all "
            "different"
        )
    if absent := [name for name in languages if name not in store.languages]:
        raise ValueError(
            f"{store.folder} holds nothing in '{absent[0]}', only "
            f"{', '.join(store.languages)}; set 'languages' to some of these"
        )
    check_choice("level", level, LEVELS)
    if not voices or not set(voices) <= set(VOICES):
        raise ValueError(
            f"voices are {list(voices)}; expected same, different or both"
        )


class _Pool(dict[int, Rendering]):
    """What one voice says in the target language: match -> its first."""

    def __init__(self) -> None:
        self.by_length: dict[int, list[int]] = defaultdict(list)

    def nearest(
        self, match: int, target: Rendering, generator: np.random.Generator
    ) -> Rendering:
        """Draw one of the other matches' renderings of nearest length."""
        groups, units = self.by_length, target.units
        lengths = (n for n, same in groups.items() if same != [match])
        distance = min(abs(length - units) for length in lengths)
        ends = dict.fromkeys((units - distance, units + distance))
        others = [n for length in ends for n in groups.get(length, ())]
        # At distance 0 the match itself is among them: drawn again.
        while (other := others[generator.integers(len(others))]) == match:
            continue
        return self[other]


def _pools(found: list[Match]) -> dict[str, _Pool]:
    pools: dict[str, _Pool] = defaultdict(_Pool)
    for number, places in enumerate(found):
        for _, target in places:
            pool = pools[target.speaker]
            if number not in pool:
                pool[number] = target
                pool.by_length[target.units].append(number)
    # Who says but one match has no mismatch for it.
    return {name: pool for name, pool in pools.items() if len(pool) > 1}


def _choose_voices(where, found, pools, level, voices, texts):
    """Return the voices that have pairs, and each match's choice in all."""
    counts = {
        voice: sum(_choose(one, pools, [voice]) is not None for one in found)
        for voice in VOICES
        if voice in voices
    }
    # Of three matches, say a and b have the same voice, b and c another: asked
    # for both voices, only b is left, which is too few, and is said so.
    kept = [voice for voice, count in counts.items() if count > 1]
    why = "" if texts else " (without texts, no sentence is in two)"
    for voice in [voice for voice in counts if voice not in kept]:
        left = f"{counts[voice]} pair(s) in {voice} voice, which is left out"
        logger.warning("%s: %s%s", where, left, why)
    choices = [_choose(one, pools, kept) if kept else None for one in found]
    chosen = {n: one for n, one in enumerate(choices) if one is not None}
    if len(chosen) < 2:
        told = ", ".join(f"{n} in {voice} voice" for voice, n in counts.items())
        raise ValueError(
            f"{where}: of {len(found)} parallel items (level: {level}) "
            f"{len(chosen)} can be paired in all voices asked for ({told}); "
            "expected at least 2. Take a larger store, or other 'voices'."
        )
    return kept, chosen


def _choose(places, pools, voices):
    """Return a source and its target in each voice, or None."""
    targets = [target for _, target in places if target.speaker in pools]
    for source, own in places:
        chosen = {}
        # Its own story's translation goes before another story's.
        for target in [own] * (own.speaker in pools) + targets:
            voice = VOICES[target.speaker != source.speaker]
            chosen.setdefault(voice, target)
        if chosen.keys() >= set(voices):
            return source, chosen
    return None
