"""The sentences or stories that a unit store holds in two languages.

A *match* is a sentence (or a whole story) in both: a text, or, where no text
is known, a unit sequence, counted once however often the store holds it.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

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
    first, tell = (
        languages[0],
        partial(_speaker, store, speakers, store.speakers()),
    )
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
                Rendering(story, number, tell(places), len(units))
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
