"""Does a sentence continue a story of the mini corpus's grammar?

The grammar says of each sentence that it can make in which plot and course it
stands, and whom and what it names. So a sentence continues a story where both
are of one plot, it stands behind the opening and not in the other course, and
it names nobody and nothing else than the story does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speechbrain_slm.evaluation.generation.nearest import NearestSentence
from speechbrain_slm.evaluation.generation.recognizer import normalized
from speechbrain_slm.stories.grammar.grammar import StoryGrammar
from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY, read_table

if TYPE_CHECKING:
    from speechbrain_slm.dataio.reader import UnitStore

OPENING = "opening"
_SAME = ("plot", "course", "names")


class Place(NamedTuple):
    """Where a sentence may stand."""

    plot: str
    course: str  # A, B, or what both begin with
    names: frozenset[str]  # of characters and things that it names


class Verdict(NamedTuple):
    """How a sentence goes on with a story."""

    plot: bool  # they are of one plot
    course: bool  # and of one course: behind the opening, and not the other
    names: bool | None  # all that it names the story does; None: it names none
    continues: bool  # of one course, and the names are not others


@lru_cache(1)
def known_sentences() -> dict[str, frozenset[Place]]:
    """Return the places of every sentence of the bundled grammar, by text."""
    grammar = StoryGrammar.load()
    found: dict[str, set[Place]] = {}
    for plot in grammar.plots:
        for course, choices in _parts(plot):
            templates = (
                (language, wording[language])
                for wording in choices
                for language in plot.languages
            )
            for language, template in templates:
                for slots in _fillings(plot, template, grammar):
                    words = grammar.lexicon.words(slots, language)
                    named = frozenset(slots[one] for one in template.names())
                    place = Place(plot.name, course, named)
                    found.setdefault(template.render(words), set()).add(place)
    return {text: frozenset(places) for text, places in found.items()}


def _fillings(plot, template, grammar):
    """Yield who and what may stand in the slots that a sentence has."""
    used = sorted({slot for slots, _ in template.fillers for slot in slots})
    people = [slot for slot in used if slot != "thing"]
    casts = itertools.permutations(grammar.lexicon.characters, len(people))
    things = plot.things if "thing" in used else [None]
    for cast, thing in itertools.product(casts, things):
        slots = dict(zip(people, cast, strict=True))
        yield slots if thing is None else {**slots, "thing": thing}


def _parts(plot):
    """Yield the wordings of each sentence, and the course that it tells."""
    shared = 0
    for one, other in zip(*plot.courses.values(), strict=True):
        if one != other:
            break
        shared += 1
    for course, sentences in plot.courses.items():
        for number, choices in enumerate(sentences):
            yield (OPENING if number < shared else course), choices


def continues(story: Iterable[str], sentence: str) -> Verdict | None:
    """Tell whether a sentence continues a story of some sentences.

    The texts may be of several languages. None where the grammar does not know
    a sentence of the story, or the sentences have no plot in common.

    Example
    -------
    >>> story = ["Anna adorait peindre.", "The ball was all white.",
    ...          "The brush went into the red paint."]
    >>> continues(story, "À la fin, le ballon était tout rouge.")
    Verdict(plot=True, course=True, names=True, continues=True)
    >>> continues(story, "Even Tom's hands were all red.")
    Verdict(plot=True, course=True, names=False, continues=False)
    """
    known = known_sentences()
    places = [known.get(text, frozenset()) for text in story]
    plots = set.intersection(*({one.plot for one in p} for p in places))
    if not plots:
        return None
    here = [one for p in places for one in p if one.plot in plots]
    names = frozenset().union(*(one.names for one in here))
    courses = {one.course for one in here} - {OPENING}
    said = known.get(sentence, frozenset())
    after = [one for one in said if one.plot in plots]
    fitting = [
        one
        for one in after
        if one.course in courses or (not courses and one.course != OPENING)
    ]
    named = [one.names <= names for one in said if one.names]
    return Verdict(
        bool(after),
        bool(fitting),
        any(named) if named else None,
        any(one.names <= names for one in fitting),
    )


class StoryJudge:
    """Finds the known sentence that a continuation is nearest to.

    Arguments
    ---------
    store : Whose sentences are known.
    manifest : Of which the store was made; it says what they are in words.

    Raises
    ------
    ValueError
        If not one of the sentences is of the grammar.
    """

    def __init__(self, store: UnitStore, manifest: str | Path) -> None:
        texts, units = _spoken(store, manifest)
        if not texts:
            raise ValueError(
                f"{manifest}: none of its texts is a sentence of the mini "
                "corpus, so nothing says which story it continues; expected "
                "that corpus, or train_manifest: null"
            )
        self._texts, self._by_units = texts, NearestSentence(units)
        self._written = list(dict.fromkeys(texts))
        letters = [_letters(text) for text in self._written]
        self._by_letters = NearestSentence(letters)

    def judge(
        self,
        sequence: np.ndarray | str,
        story: Sequence[str],
        other: Sequence[str],
    ) -> dict[str, Any]:
        """Return what a continuation, units or a transcript, begins with.

        Arguments
        ---------
        story, other : Texts of its prompt, and of another story's.

        Returns
        -------
        ``nearest`` (a text) and ``nearest_distance``, None of nothing;
        ``same_plot``, ``same_course``, ``same_names``, ``continues``: see
        :class:`Verdict`; ``other_course``: ``same_course`` of the other story.
        """
        if isinstance(sequence, str):
            match = self._by_letters(_letters(sequence))
            texts = self._written
        else:
            match, texts = self._by_units(sequence), self._texts
        nearest = None if match is None else texts[match.number]
        told: dict[str, Any] = {"nearest": nearest, "nearest_distance": None}
        if match is not None:
            told["nearest_distance"] = match.distance
        mine = continues(story, nearest or "")
        theirs = continues(other, nearest or "")
        if mine is not None:
            told |= {f"same_{name}": getattr(mine, name) for name in _SAME}
            told["continues"] = mine.continues
        if theirs is not None:
            told["other_course"] = theirs.course
        return told


def _letters(text):
    return list(map(ord, normalized(text)))


def _spoken(store, manifest):
    """List each sentence of the grammar once a voice, and its units."""
    names = [*MANIFEST_KEY, "speaker", "text"]
    table = read_table(manifest, MANIFEST, MANIFEST_KEY, optional=("text",))
    if "text" not in table.column_names:
        return [], []
    known, found = known_sentences(), {}
    rows = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    ends: dict[tuple, int] = {}
    for story, number, language, *_ in rows:
        end = max(ends.get((story, language), 0), number + 1)
        ends[story, language] = end
    for story, number, language, speaker, text in rows:
        if text not in known or (text, language, speaker) in found:
            continue
        try:
            told = store.story(story, language)
        except KeyError:
            continue  # its audio was rejected, as a ledger says
        # What was rejected has moved the later ones up: they are not those of
        # the manifest's numbers any more.
        if len(told) == ends[story, language] and len(told[number]):
            found[text, language, speaker] = told[number]
    return [text for text, _, _ in found], list(found.values())
