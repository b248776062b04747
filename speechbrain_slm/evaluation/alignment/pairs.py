"""Pairs of translations in a unit store, and what each is compared with.

A *match* is a sentence (or a whole story) that the store holds in both
languages: a text, or, where no text is known, a unit sequence, counted once
however often it is there. It gives a pair told by one voice and one told by
two. A pair's *mismatch* is the translation of another match, of nearest length,
by the very voice that speaks the right one: neither length nor voice tells
them apart.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from speechbrain_slm.utils.numbers import check_choice
from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY, read_table

if TYPE_CHECKING:
    from speechbrain_slm.dataio.reader import UnitStore

logger = logging.getLogger(__name__)

# (story_id, sentence, language) -> its text or its speaker.
Spoken = dict[tuple[str, int, str], str]

LEVELS = ("sentence", "story")
WHOLE = -1  # in place of the number of a sentence


class Rendering(NamedTuple):
    """A sentence or a story as the store holds it in one language."""

    story: str
    sentence: int  # or WHOLE
    speaker: str  # never more than one
    units: int  # how many


# Its renderings in every story that holds it, by the stories' names.
Match = list[tuple[Rendering, Rendering]]

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


def read_spoken(manifest: str | Path) -> tuple[Spoken | None, Spoken]:
    """Read texts and speakers of the spoken manifest that a store was made of.

    A text is ``""`` where there is none; they are None where the manifest has
    no text at all: no column ``text``, or an empty one.
    """
    table = read_table(manifest, MANIFEST, MANIFEST_KEY, optional=("text",))
    key = (table[name].to_pylist() for name in MANIFEST_KEY)
    keys = list(zip(*key, strict=True))
    speakers = dict(zip(keys, table["speaker"].to_pylist(), strict=True))
    if "text" not in table.column_names:
        return None, speakers
    texts = [(text or "").strip() for text in table["text"].to_pylist()]
    return dict(zip(keys, texts, strict=True)) if any(texts) else None, speakers


def units_of(
    store: UnitStore, story: str, sentence: int, language: str
) -> np.ndarray:
    """Return the units of a sentence, or of a story (``WHOLE``); uint16."""
    sentences = store.story(story, language)
    return np.concatenate(sentences) if sentence < 0 else sentences[sentence]


def find_matches(
    store: UnitStore,
    languages: Sequence[str],
    level: str,
    texts: Spoken | None,
    speakers: Spoken | None = None,
) -> tuple[list[Match], int, int]:
    """Find what a store says in both of two languages.

    Returns the matches, how many were left out because a text has two
    translations, and how many stories because sentences are missing.

    Arguments
    ---------
    texts
        Of :func:`read_spoken`; None: only equal units are known to say the
        same, and nothing says that a sentence stands in several stories.
    speakers : Of :func:`read_spoken`; for stories that have several.
    """
    first = languages[0]
    speaker = partial(_speaker, store, speakers, store.speakers())
    rows = [store.languages.index(name) for name in languages]
    there = np.all(store.bases[rows] >= 0, axis=0).tolist()
    found: dict[tuple, Match] = {}
    ambiguous: set[tuple] = set()
    partners: tuple[dict, dict] = ({}, {})
    spoken, shortened = texts or speakers or {}, 0
    # By name, not as the store has them, which depends on its shards.
    names = store.story_ids.to_pylist()
    for story in sorted(itertools.compress(names, there)):
        # What was rejected has moved the others up: a sentence's number in
        # the store is no longer the manifest's.
        if (story, len(store.story(story, first)), first) in spoken:
            shortened += 1
            continue
        for number, sides in _parts(store, story, languages, level):
            key = tuple(_key(store, texts, *side) for side in sides)
            # Of the translations of one text only the first counts: another
            # one must never be its mismatch or its rival.
            both = list(zip(partners, key, strict=True))
            if any(known.get(own, key) != key for known, own in both):
                ambiguous.add(key)
                continue
            for known, own in both:
                known[own] = key
            source, target = (
                Rendering(story, number, speaker(places), len(units))
                for places, units in sides
            )
            found.setdefault(key, []).append((source, target))
    if shortened:
        why = "have fewer sentences than in the manifest and are left out"
        logger.warning("%s: %d stories %s", store.folder, shortened, why)
    return list(found.values()), len(ambiguous), shortened


def _parts(store, story, languages, level):
    """Yield a part's number and, for each language, its places and units."""
    told = [(name, store.story(story, name)) for name in languages]
    numbers = range(len(told[0][1]))
    spans = {WHOLE: numbers} if level == "story" else {n: [n] for n in numbers}
    for number, span in spans.items():
        sides = []
        for name, units in told:
            places = [(story, n, name) for n in span]
            sides.append((places, np.concatenate([units[n] for n in span])))
        yield number, sides


def _key(store, texts, places, units):
    """Tell equal texts, or equal units where no text is known."""
    content = units.tobytes()
    if texts is not None:
        for place in places:
            if not texts.get(place):
                story, number, language = place
                raise ValueError(
                    f"the manifest has no text for story '{story}', sentence "
                    f"{number}, '{language}', which {store.folder} holds; give "
                    "the manifest that it was made of, with a text for each "
                    "sentence or for none, or no manifest"
                )
        content = "\n".join(texts[place] for place in places).encode()
    # Texts may be whole stories: their hash is enough.
    return hashlib.sha256(content).digest()[:16]


def _speaker(store, speakers, tellers, places):
    story, _, language = places[0]
    if tellers[story, language]:
        return tellers[story, language]
    names = {(speakers or {}).get(place, "") for place in places}
    if len(names) == 1 and "" not in names:
        return names.pop()
    advice = "give the manifest that the store was made of ('manifest')"
    if speakers is not None:
        advice = "the manifest does not name that of a sentence"
    if "" not in names:
        advice = f"{', '.join(sorted(names))}; set 'level' to sentence"
    raise ValueError(
        f"story '{story}' of {store.folder} has several speakers in "
        f"'{language}': {advice}, or take stories of one speaker each"
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
    rows: list[tuple] = []
    summaries: list[dict] = []
    for pair in itertools.combinations(languages, 2):
        told = find_matches(store, pair, level, texts, speakers)
        found, ambiguous, shortened = told
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
        summary = {"languages": list(pair), "texts_known": texts is not None}
        summary |= {"items": len(found), "paired": len(chosen), "voices": kept}
        summary["left_out"] = len(found) - len(chosen)
        summary |= {"ambiguous": ambiguous, "shortened": shortened}
        summaries.append(summary)
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
