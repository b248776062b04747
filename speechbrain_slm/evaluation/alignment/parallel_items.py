"""The parallel sentences or stories of a unit store, each text once."""

import hashlib
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY, read_table

logger = logging.getLogger(__name__)

LEVELS = ("sentence", "story")
WHOLE = -1  # in place of the number of a sentence


class Rendering(NamedTuple):
    """A sentence or a story as the store holds it in one language.

    Arguments
    ---------
    story : str
        The story.
    sentence : int
        Its number, or ``WHOLE``.
    speaker : str
        Who speaks it, never more than one.
    units : int
        How many units it has.
    """

    story: str
    sentence: int
    speaker: str
    units: int


def read_spoken(manifest: str | Path):
    """Read what is said where and by whom, for telling equal sentences.

    Arguments
    ---------
    manifest : The spoken manifest of which the store was made.

    Returns
    -------
    texts : dict or None
        (story_id, sentence, language) -> text, ``""`` where there is none;
        None where the manifest has no text at all: no column ``text``, or an
        empty one.
    speakers : dict
        (story_id, sentence, language) -> speaker.
    """
    table = read_table(manifest, MANIFEST, MANIFEST_KEY, optional=("text",))
    speakers, texts = _by_key(table, "speaker"), None
    if "text" in table.column_names:
        texts = {
            key: (text or "").strip()
            for key, text in _by_key(table, "text").items()
        }
    return texts if texts and any(texts.values()) else None, speakers


def _by_key(table, name):
    keys = zip(*(table[key].to_pylist() for key in MANIFEST_KEY), strict=True)
    return dict(zip(keys, table[name].to_pylist(), strict=True))


def units_of(store, story: str, sentence: int, language: str) -> np.ndarray:
    """Return the units of a sentence or of a whole story.

    Arguments
    ---------
    store : UnitStore
        Holds it.
    sentence : Its number; ``WHOLE`` for all sentences.

    Returns
    -------
    uint16.
    """
    sentences = store.story(story, language)
    return np.concatenate(sentences) if sentence < 0 else sentences[sentence]


def parallel_items(
    store,
    languages: Sequence[str],
    level: str,
    texts: dict | None,
    speakers: dict | None = None,
) -> tuple[list[list[tuple]], int, int]:
    """Find what a store says in both of two languages.

    Of the translations of one text only the first counts: another one must
    never be its mismatch or its rival. A story of which the store holds fewer
    sentences than the manifest is left out, with a warning: what was rejected
    has moved the others up, so the manifest's numbers are not theirs.

    Arguments
    ---------
    store : UnitStore
        Aligned stories.
    level : ``sentence`` or ``story``.
    texts
        Of :func:`read_spoken`; None: only equal units are known to say the
        same.
    speakers : Of :func:`read_spoken`; for stories that have several.

    Returns
    -------
    list of list of tuple
        For each item the (:class:`Rendering`, :class:`Rendering`) of every
        story that holds it, by the names of the stories.
    int
        How many items were left out for their ambiguity.
    int
        How many stories were left out because sentences of them are missing.

    Raises
    ------
    ValueError
        If ``texts`` or ``speakers`` lack a sentence of the store, or several
        speakers tell what should have one voice.
    """
    tellers = store.speakers()
    rows = [store.languages.index(name) for name in languages]
    there = (store.bases[rows] >= 0).all(axis=0)
    items, ambiguous, partners = {}, set(), ({}, {})
    spoken, shortened = texts or speakers or {}, 0
    # In the order of names, not of the store, which its shards decide.
    names = store.story_ids.to_pylist()
    for story in sorted(itertools.compress(names, there)):
        count = len(store.story(story, languages[0]))
        if (story, count, languages[0]) in spoken:
            shortened += 1
            continue
        for sentence, numbers, *sides in _parts(store, story, languages, level):
            key = tuple(
                units.tobytes()
                if texts is None
                else _text(texts, story, numbers, language, store)
                for language, units in zip(languages, sides, strict=True)
            )
            # Texts may be whole stories: their hash is enough.
            key = tuple(hashlib.sha256(own).digest()[:16] for own in key)
            if any(
                side.get(own, key) != key
                for side, own in zip(partners, key, strict=True)
            ):
                ambiguous.add(key)
                continue
            for side, own in zip(partners, key, strict=True):
                side[own] = key
            items.setdefault(key, []).append(
                tuple(
                    Rendering(
                        story,
                        sentence,
                        tellers[story, name]
                        or _speaker(speakers, story, numbers, name, store),
                        len(units),
                    )
                    for name, units in zip(languages, sides, strict=True)
                )
            )
    if shortened:
        logger.warning(
            "%s: %d stories have fewer sentences than in the manifest and are "
            "left out",
            store.folder,
            shortened,
        )
    return list(items.values()), len(ambiguous), shortened


def _speaker(speakers, story, numbers, language, store):
    """Return the one speaker of sentences of a story that has several."""
    where = f"story '{story}' of {store.folder} has several speakers"
    if speakers is None:
        raise ValueError(
            f"{where} in '{language}'; give the manifest that the store was "
            "made of ('manifest'), which says who says which sentence"
        )
    names = {speakers.get((story, number, language)) for number in numbers}
    if None in names:
        raise ValueError(
            f"{where}, and the manifest does not name that of a sentence in "
            f"'{language}'; give the manifest that the store was made of"
        )
    if len(names) > 1:
        raise ValueError(
            f"{where} in '{language}' ({', '.join(sorted(names))}), so it has "
            "no voice to compare; set 'level' to sentence, or take a store "
            "whose stories have one speaker each"
        )
    return names.pop()


def _parts(store, story, languages, level):
    """Yield what to call each part, its sentences, and its units."""
    both = [store.story(story, name) for name in languages]
    numbers = range(len(both[0]))
    if level == "story":
        yield WHOLE, numbers, *map(np.concatenate, both)
    else:
        for number in numbers:
            yield number, (number,), *(side[number] for side in both)


def _text(texts, story, numbers, language, store):
    lines = []
    for number in numbers:
        text = texts.get((story, number, language))
        if not text:
            raise ValueError(
                f"the manifest has no text for story '{story}', sentence "
                f"{number}, '{language}', which {store.folder} holds; give "
                "the manifest that the store was made of, with a text for "
                "each sentence or for none, or no manifest"
            )
        lines.append(text)
    return "\n".join(lines).encode()
