"""A story grammar: parallel stories with a right and a wrong ending.

A plot has an opening and two courses, A and B, each with an ending; that of the
other course, with the same characters and thing, is a story's wrong ending.
Both courses are equally frequent, so an ending alone does not tell which it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechbrain_slm.stories.grammar.plots import (
    COURSES,
    Lexicon,
    Plot,
    need,
    read_lexicon,
    read_plots,
    select_plots,
)

BUNDLED = Path(__file__).parent / "mini"
SPLITS = ("train", "valid", "test")
VALID_SHARE, TEST_SHARE = 0.05, 0.15
# With this seed each of the first eight plots is in every split even if there
# are but six characters and four things. Another one moves every story.
SPLIT_SEED = 2844


class _Cell(NamedTuple):
    """A course of a plot, who and what may be in it, and how many stories."""

    plot: Plot
    course: str
    owned: list[tuple[tuple[str, ...], str]]  # characters, thing
    size: int


@dataclass(frozen=True)
class Story:
    """One story in several languages; the right ending is its last sentence."""

    story_id: str
    plot: str
    course: str
    characters: tuple[str, ...]
    thing: str
    sentences: dict[str, tuple[str, ...]]
    wrong_ending: dict[str, str]


def split_of(
    plot: str,
    characters: Sequence[str],
    thing: str,
    test_share: float = TEST_SHARE,
) -> str:
    """Return the split that owns a combination, whatever else there is."""
    # Sorted: "Tom and Mia" in training and "Mia and Tom" in the test would be
    # one story, told twice.
    place = _digest(SPLIT_SEED, plot, *sorted(characters), thing) / 2**64
    if place < VALID_SHARE:
        return "valid"
    return "test" if place < VALID_SHARE + test_share else "train"


def _digest(*names: object) -> int:
    """64 bits of a hash of names, the same in every process."""
    text = "\n".join(map(str, names)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


@dataclass
class StoryGrammar:
    """Plots in order, and the characters and things that may be drawn."""

    lexicon: Lexicon
    plots: list[Plot]
    test_share: float = TEST_SHARE

    @classmethod
    def load(
        cls,
        folder: str | Path | None = None,
        plots: int | list[str] | None = None,
        characters: int | None = None,
        things: int | None = None,
        test_share: float = TEST_SHARE,
    ) -> StoryGrammar:
        """Read a grammar and check all of it.

        `GrammarError` names the file, the plot and the sentence of data that is
        not a grammar, or what it has less of than is asked for.

        Arguments
        ---------
        folder : With ``lexicon.yaml`` and ``plots/*.yaml``; None: the bundled.
        plots : The first so many, the plots of these names, or all.
        characters : The first so many, or all.
        things : At most so many a plot, the first that fit; or all.
        test_share : Of combinations, that of the split "test".
        """
        folder = Path(BUNDLED if folder is None else folder)
        lexicon = read_lexicon(folder / "lexicon.yaml")
        known = read_plots(folder / "plots", lexicon)
        chosen = select_plots(known, plots, things)
        least = max(plot.num_characters for plot in chosen)
        most = len(lexicon.characters)
        enough = characters is None or least <= characters <= most
        expected = f"{least} to {most}, or None for all"
        need(enough, "the grammar", f"characters={characters}", expected)
        kept = dict(list(lexicon.characters.items())[:characters])
        return cls(Lexicon(kept, lexicon.things), chosen, test_share)

    def count(self, split: str) -> int:
        """Return how many distinct stories a split has."""
        return sum(cell.size for cell in self._cells(split))

    def _cells(self, split: str) -> Iterator[_Cell]:
        need(split in SPLITS, "split", f"'{split}'", f"one of {SPLITS}")
        for plot in self.plots:
            casts = permutations(self.lexicon.characters, plot.num_characters)
            owned = [
                (cast, thing)
                for cast, thing in product(casts, plot.things)
                if split_of(plot.name, cast, thing, self.test_share) == split
            ]
            for course in COURSES:
                size = len(owned) * prod(plot.num_wordings(course))
                yield _Cell(plot, course, owned, size)

    def generate(
        self,
        num_stories: int,
        split: str,
        seed: int,
        languages: Sequence[str] = ("en", "fr"),
    ) -> list[Story]:
        """Draw distinct stories, evenly over plots, courses, combinations.

        A pure function of the grammar and the arguments. `GrammarError` if the
        split has fewer stories, or a plot lacks a language.

        Arguments
        ---------
        split
            "train", "valid" or "test"; no combination of plot, characters
            and thing stands in two of them.

        Example
        -------
        >>> grammar = StoryGrammar.load(plots=4)
        >>> story = grammar.generate(3, "test", seed=1)[2]
        >>> story.story_id, len(story.sentences["fr"])
        ('test-000002', 5)
        """
        found = f"languages {list(languages)} asked for"
        for plot in self.plots:
            known = languages and set(plot.languages).issuperset(languages)
            need(known, plot.where, found, f"some of {plot.languages}")
        # Courses A and B of a plot have a cell each, so neither is likelier.
        cells = sorted(self._cells(split), key=lambda cell: cell.size)
        total, left = sum(cell.size for cell in cells), num_stories
        found = f"{left} stories asked for, {total} distinct ones exist"
        expected = "1 to what exists (more plots, characters, things give more)"
        need(0 < left <= total, f"split '{split}'", found, expected)
        drawn: list[tuple] = []
        # The smallest first: what they cannot give, the others make up for.
        for index, cell in enumerate(cells):
            quota = min(cell.size, left // (len(cells) - index))
            left -= quota
            key = _digest(seed, split, cell.plot.name, cell.course)
            drawn += _draw(cell, quota, np.random.default_rng(key))
        # Else the stories of a plot would stand together.
        order = np.random.default_rng(_digest(seed, split))
        return [
            self._tell(f"{split}-{number:06d}", languages, *drawn[index])
            for number, index in enumerate(order.permutation(len(drawn)))
        ]

    def _tell(
        self,
        story_id: str,
        languages: Sequence[str],
        plot: Plot,
        course: str,
        cast: tuple[str, ...],
        thing: str,
        wordings: Sequence[int],
    ) -> Story:
        # A plot of one character has no {c2}.
        slots = dict(zip(("c1", "c2"), cast, strict=False)) | {"thing": thing}
        told = plot.courses[course]
        wrong = plot.courses[COURSES[1 - COURSES.index(course)]]
        sentences, wrong_ending = {}, {}
        for language in languages:
            words = self.lexicon.words(slots, language)
            sentences[language] = tuple(
                choices[wording][language].render(words)
                for choices, wording in zip(told, wordings, strict=True)
            )
            # The endings of A and B are written in pairs of similar length:
            # else the longer one would tell which is right.
            ending = wrong[-1][wordings[-1]][language]
            wrong_ending[language] = ending.render(words)
        who = plot.name, course, cast, thing
        return Story(story_id, *who, sentences, wrong_ending)


def _draw(cell: _Cell, quota: int, rng: np.random.Generator) -> Iterator[tuple]:
    """Draw `quota` distinct (plot, course, characters, thing, wordings)."""
    num_wordings = cell.plot.num_wordings(cell.course)
    for index, place in enumerate(rng.permutation(len(cell.owned))):
        # 7 stories of 3 combinations: 3, 2 and 2.
        share = len(range(index, quota, len(cell.owned)))
        for choice in rng.choice(prod(num_wordings), share, replace=False):
            wordings = np.unravel_index(choice, num_wordings)
            yield cell.plot, cell.course, *cell.owned[place], wordings


def topic_endings(stories: Sequence[Story], seed: int) -> list[int]:
    """Find for each story the index of one whose ending is off its topic.

    It shares neither a character nor the thing, nor, where there is such a one,
    the plot; `GrammarError` where a story has no such other.
    """
    rng = np.random.default_rng(_digest(seed, "topic endings"))
    order = rng.permutation(len(stories))
    one_plot = len({story.plot for story in stories}) == 1
    indices = []
    for story in stories:
        found = -1
        # All stories in one random order, from a random place.
        for index in np.roll(order, rng.integers(len(stories))).tolist():
            other = stories[index]
            shared = set(story.characters) & set(other.characters)
            if shared or story.thing == other.thing:
                continue
            found = index
            if one_plot or story.plot != other.plot:
                break
        fault = "each other story shares a character or the thing"
        expected = "more stories, characters or things"
        need(found >= 0, story.story_id, fault, expected)
        indices.append(found)
    return indices
