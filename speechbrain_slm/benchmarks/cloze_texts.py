"""Cloze items of text, and the tables in which they are spoken and scored.

Of sTC the wrong ending is off the story's topic: it shares no word with it.
"""

import difflib
import functools
import itertools
import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import yaml

from speechbrain_slm.benchmarks.spoken_items import item_table, items_of
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.ledger import write_ledger
from speechbrain_slm.utils.speakers import draw_speaker
from speechbrain_slm.utils.tables import (
    stories_table,
    story_rows,
    write_stories,
)

logger = logging.getLogger(__name__)
# Beside the table: ``left_out.jsonl`` is that of the speech.
LEDGER = "text/cloze.left_out.jsonl"
MAKER = "cloze items"
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
# What two spellings share, of 1, that are nearly the same: violin and violon,
# ball and ballon, but not color and couleur.
_ALIKE = 0.75


class ClozeItem(NamedTuple):
    """A story with two endings, in one language or in several."""

    item_id: str  # no other item has it
    # Language -> the beginning, as many sentences in each language.
    prompt: dict[str, tuple[str, ...]]
    right: dict[str, str]  # language -> the ending that follows
    wrong: dict[str, str]  # the one that does not
    group: str = ""  # items of one group are not independent
    # Language -> names of characters; its subset is told by `shared_words`.
    names: dict[str, tuple[str, ...]] | None = None


def write_cloze(
    output_folder: str | Path,
    items: Sequence[ClozeItem],
    languages: Sequence[str],
    seed: int,
    speakers: Sequence[str],
    ledger: Iterable[dict] = (),
    sources: Iterable[str | Path] = (),
) -> dict[str, Path]:
    """Write the stories table, whose path is returned, and the items table.

    Arguments
    ---------
    output_folder
        Gets ``text/cloze.parquet``, ``text/cloze.left_out.jsonl`` and
        ``items.parquet``. Loses the manifest ``cloze.parquet`` if the stories
        change. A file in the way that another made is an error.
    ledger : What was left out before.
    sources : Named in the error if there is nothing to write.
    """
    ledger = list(ledger)
    if not items:
        reasons = sorted({entry["reason"] for entry in ledger})
        raise ValueError(
            f"{', '.join(map(str, sources)) or 'the source'}: found no item; "
            f"expected one or more. Left out: {'; '.join(reasons) or 'none'}"
        )
    topics = draw_topics(items, languages, seed)
    pairs = zip(items, topics, strict=True)
    without = [item.item_id for item, other in pairs if other is None]
    if len(without) == len(items):
        raise ValueError(
            f"each of the {len(items)} items shares a word with the endings of "
            "all others, so none is off its topic; add items"
        )
    reason = "no ending of another item is off its topic"
    lost = {"action": "dropped", "reason": reason, "detail": "not in sTC"}
    ledger += [{"story_id": name, **lost} for name in without]
    stories, table = cloze_tables(items, topics, languages, seed, speakers)
    paths = write_stories(output_folder, {"cloze": stories}, table, MAKER)
    write_ledger(Path(output_folder) / LEDGER, ledger)
    logger.info(
        f"{len(items)} cloze items, {len(without)} without an off-topic "
        f"ending; {LEDGER} has {len(ledger)} line(s)"
    )
    return paths


def cloze_tables(
    items: Sequence[ClozeItem],
    topics: Sequence[int | None],
    languages: Sequence[str],
    seed: int,
    speakers: Sequence[str],
    suffix: str = "",
    change_speaker: bool = False,
) -> tuple[pa.Table, pa.Table]:
    """Make the stories of items, and sSC and sTC in every direction.

    Story ``X.prompt`` holds an item's beginning, ``X.right`` and ``X.wrong``
    its endings, and ``X.topic`` the right ending of another item.

    Arguments
    ---------
    topics : Of each item the other's index; None: it is none of sTC.
    suffix : Ends the names of benchmarks, items and stories (``sSC-voices``).
    change_speaker : Another speaker tells the endings than the prompt.
    """
    rows = []
    about: dict[str, dict[str, dict]] = {"wrong": {}, "topic": {}}
    for item, other in zip(items, topics, strict=True):
        name = f"{item.item_id}{suffix}"
        endings = {"right": item.right, "wrong": item.wrong}
        if other is not None:
            endings["topic"] = items[other].right
        # One speaker tells both endings, and all if it does not change: a
        # voice cannot give the answer.
        speaker = teller = draw_speaker(seed, item.item_id, speakers)
        if change_speaker:
            others = {*speakers} - {speaker}
            teller = draw_speaker(seed, f"{item.item_id} endings", others)
        prompt = {key: item.prompt[key] for key in languages}
        rows += story_rows(f"{name}.prompt", prompt, speaker=speaker)
        # An ending is a story of its own: it is spoken once, and follows the
        # prompt of any language.
        for part, ending in endings.items():
            told = {key: (ending[key],) for key in languages}
            rows += story_rows(f"{name}.{part}", told, speaker=teller)
            if part != "right":
                subset = shared_words(item, ending, languages)
                more = {"group": item.group, "subset": subset}
                about[part][name] = more
    table = [
        one
        for benchmark, wrong in (("sSC", "wrong"), ("sTC", "topic"))
        for one in items_of(
            about[wrong], benchmark + suffix, wrong, languages, about[wrong]
        )
    ]
    return stories_table(rows, ["speaker", *languages]), item_table(table)


def shared_words(
    item: ClozeItem, wrong: Mapping[str, str], languages: Sequence[str]
) -> str:
    """Say which words of its right ending an item shares across languages.

    A listener who knows no word could know the ending by them. They count if
    the wrong ending does not have them in the same language: a character whom
    both endings name, as most of sSC do, tells nothing. Words are those of
    `topic_words`, without accents.

    Returns
    -------
    ``names`` if one is a character's name; else ``cognates`` if one is spelled
    the same, or nearly so, as a word of the prompt or the right ending in
    another language (what only looks alike counts, too); else ``none``.
    Empty if the item does not say its names.
    """
    if item.names is None:
        return ""
    compared = [name for name in languages if name in STOP_WORDS]
    telling, told = {}, {}
    for language in compared:
        texts = [*item.prompt[language], item.right[language]]
        told[language] = _spellings(texts, language)
        others = _spellings([wrong[language]], language)
        telling[language] = _spellings(texts[-1:], language) - others
        names = {_plain(name)[:_STEM] for name in item.names[language]}
        if telling[language] & names:
            return "names"
    alike = (
        _alike(*sorted(pair))
        for one, two in itertools.permutations(compared, 2)
        for pair in itertools.product(telling[one], told[two])
    )
    return "cognates" if any(alike) else "none"


def _spellings(texts: Iterable[str], language: str) -> set[str]:
    return {_plain(word) for word in topic_words(texts, language)}


def _plain(word: str) -> str:
    letters = unicodedata.normalize("NFD", word.lower())
    return "".join(filter(str.isalpha, letters))


@functools.lru_cache(maxsize=2**18)
def _alike(one: str, two: str) -> bool:
    return difflib.SequenceMatcher(None, one, two).ratio() >= _ALIKE


def whole_table(
    items: Iterable[ClozeItem], languages: Sequence[str]
) -> pa.Table:
    """Put each item into one story: its prompt, then right, then wrong.

    This is what is translated: a translator that reads a story as context
    reads both endings with their prompt.
    """
    rows = []
    for item in items:
        texts = {
            key: (*item.prompt[key], item.right[key], item.wrong[key])
            for key in languages
        }
        rows += story_rows(item.item_id, texts)
    return stories_table(rows, languages)


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
