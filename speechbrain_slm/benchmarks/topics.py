"""Endings that are off a story's topic: the negatives of sTC."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from speechbrain_slm.utils.hashing import identity_of

if TYPE_CHECKING:
    from speechbrain_slm.benchmarks.cloze_texts import ClozeItem

_FILE = Path(__file__).parent / "stop_words.yaml"
# Words that two stories may share without being about the same things.
STOP_WORDS = {
    language: frozenset(words.split())
    for language, words in yaml.safe_load(_FILE.read_text("utf-8")).items()
}
_WORD = re.compile(r"[^\W\d_]+")
# Letters that tell a word: plant is planted and plantes. Words that are only
# alike count as one, too, which costs a candidate and never lets a hint pass.
_STEM = 5
# All nouns have one.
_CAPITALS = {"de"}


def topic_words(sentences: Iterable[str], language: str) -> set[str]:
    """Collect what some sentences are about: content words and names.

    The words are in small letters and cut after five, the names as they are.
    Inflected forms are the same word if their first five letters are
    (*plant*, *planted*, *plantes*). A name is a word with a capital that does
    not begin its sentence; it counts even where it is spelled like a stop
    word (*Will*).

    Example
    -------
    >>> sorted(topic_words(["Then Will planted an oak."], "en"))
    ['Will', 'oak', 'plant']
    """
    found = set()
    for sentence in sentences:
        words = _WORD.findall(sentence)
        for number, word in enumerate(words):
            capital = number and len(word) > 1 and word[0].isupper()
            if word.lower() not in STOP_WORDS[language]:
                found.add(word.lower()[:_STEM])
            elif capital and language not in _CAPITALS:
                found.add(word)
    return found


def draw_topics(
    items: Sequence[ClozeItem], languages: Sequence[str], seed: int
) -> list[int | None]:
    """Draw for each item another one whose right ending is off its topic.

    Returns
    -------
    For each item the index of one whose right ending shares no name and
    no content word with the item's prompt and its right ending, in any of
    the languages that have stop words; None where there is no such one.
    """
    compared = [name for name in languages if name in STOP_WORDS]
    if not compared:
        raise ValueError(
            f"languages: found {', '.join(languages)}, without stop words; "
            f"expected some of {', '.join(STOP_WORDS)}. Add one, or its stop "
            f"words to {_FILE}."
        )

    def words(texts):
        # The same spelling in two languages need not be one word.
        return {
            (language, word)
            for language in compared
            for word in topic_words(texts[language], language)
        }

    endings = [
        words({key: [text] for key, text in item.right.items()})
        for item in items
    ]
    stories = [
        words(item.prompt) | ending
        for item, ending in zip(items, endings, strict=True)
    ]
    digest = identity_of([seed, "off-topic endings"])
    rng = np.random.default_rng(int(digest, 16))
    order = rng.permutation(len(items))
    drawn = []
    for story in stories:
        # A walk through all items from a random place: every one that would do
        # can be drawn, and few are compared before one is found.
        walk = np.roll(order, rng.integers(len(items)))
        free = (int(i) for i in walk if not endings[i] & story)
        drawn.append(next(free, None))
    return drawn
