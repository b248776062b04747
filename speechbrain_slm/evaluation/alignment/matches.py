"""The sentences or stories that a unit store holds in two languages.

A *match* is a sentence (or a whole story) in both: a text, or, where no text
is known, a unit sequence, counted once however often the store holds it.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Sequence
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
    tellers = store.speakers()
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
        count = len(store.story(story, languages[0]))
        if (story, count, languages[0]) in spoken:
            shortened += 1
            continue
        for sides in _parts(store, story, languages, level):
            key = tuple(_key(texts, store, *side) for side in sides)
            # Of the translations of one text only the first counts: another
            # one must never be its mismatch or its rival.
            both = list(zip(partners, key, strict=True))
            if any(known.get(own, key) != key for known, own in both):
                ambiguous.add(key)
                continue
            for known, own in both:
                known[own] = key
            said = (_rendering(tellers, speakers, store, *s) for s in sides)
            found.setdefault(key, []).append(tuple(said))
    if shortened:
        why = "have fewer sentences than in the manifest and are left out"
        logger.warning("%s: %d stories %s", store.folder, shortened, why)
    return list(found.values()), len(ambiguous), shortened


def _parts(store, story, languages, level):
    """Yield, for each language, a part of a story and where it stands."""
    sides = [(name, store.story(story, name)) for name in languages]
    numbers = range(len(sides[0][1]))
    spans = {WHOLE: numbers} if level == "story" else {n: [n] for n in numbers}
    for number, span in spans.items():
        said = ((name, [units[n] for n in span]) for name, units in sides)
        yield [
            (story, name, number, span, np.concatenate(u)) for name, u in said
        ]


def _key(texts, store, story, language, sentence, numbers, units):
    """Tell equal texts, or equal units where no text is known."""
    content = units.tobytes()
    if texts is not None:
        lines = [texts.get((story, number, language)) for number in numbers]
        if not all(lines):
            number = numbers[[bool(line) for line in lines].index(False)]
            raise ValueError(
                f"the manifest has no text for story '{story}', sentence "
                f"{number}, '{language}', which {store.folder} holds; give the "
                "manifest that it was made of, with a text for each sentence "
                "or for none, or no manifest"
            )
        content = "\n".join(lines).encode()
    # Texts may be whole stories: their hash is enough.
    return hashlib.sha256(content).digest()[:16]


def _rendering(
    tellers, speakers, store, story, language, sentence, numbers, units
):
    speaker = tellers[story, language]
    if speaker:
        return Rendering(story, sentence, speaker, len(units))
    where = f"story '{story}' of {store.folder} has several speakers"
    give = f"in '{language}'; give the manifest that the store was made of"
    if speakers is None:
        raise ValueError(f"{where} {give} ('manifest'), which names them")
    names = {speakers.get((story, number, language), "") for number in numbers}
    if "" in names:
        raise ValueError(
            f"{where}, and the manifest does not name that of a sentence {give}"
        )
    if len(names) > 1:
        raise ValueError(
            f"{where} in '{language}' ({', '.join(sorted(names))}); set "
            "'level' to sentence, or take stories of one speaker each"
        )
    return Rendering(story, sentence, names.pop(), len(units))
