"""Prompts of a unit store, in every direction, and how each is steered."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speechbrain_slm.evaluation.cloze.accuracy import direction_of
from speechbrain_slm.evaluation.cloze.items import read_items
from speechbrain_slm.evaluation.inputs import tag_of
from speechbrain_slm.utils.numbers import check_choice, check_number
from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY, read_table

if TYPE_CHECKING:
    from speechbrain_slm.dataio.reader import UnitStore

logger = logging.getLogger(__name__)

FREE, LAST_SENTENCE, TAG = "free", "last_sentence", "tag"
STEERING = (FREE, LAST_SENTENCE, TAG)


@dataclass(frozen=True)
class StoryPrompt:
    """What a model is to continue."""

    story_id: str  # of the store
    direction: str  # en: an English prompt; en>fr: to go on in French
    steered_by: str  # one of STEERING
    asked: str  # the language to go on in; the prompt's own where free
    speaker: str
    languages: list[str]  # of each of its sentences
    texts: list[str]  # of each, empty where none is known
    units: np.ndarray  # int64 [U]
    symbols: np.ndarray  # units, and tags where training had them, int64
    tag: int | None  # the symbol of ``asked``, where that is to come next


def story_prompts(
    store: UnitStore,
    items: str | Path | None = None,
    manifest: str | Path | None = None,
    directions: Sequence[str] | None = None,
    num_prompts: int = 100,
    steering: str = LAST_SENTENCE,
    last_sentences: int | None = None,
    prompt_seconds: float | None = None,
    tags: dict[str, int] | None = None,
    codebooks: int = 1,
    seed: int = 0,
) -> list[StoryPrompt]:
    """Draw stories, the same for every direction, and make prompts of them.

    Arguments
    ---------
    items
        A table of cloze items, whose prompts are taken; None: the stories of
        the store, each without its last sentence.
    manifest : Of which the store was made: texts and durations; None: neither.
    directions : ``en``, ``en>fr``, ...; None: all of the store's languages.
    num_prompts : Stories; fewer if there are not so many.
    steering
        Of a direction that changes the language (the others are always
        ``free``): ``last_sentence``: the prompt's last sentence is in the
        language that is asked for; ``tag``: its tag stands behind the prompt.
    last_sentences : How many of a prompt are taken, its last; None: all.
    prompt_seconds
        How much of a prompt is taken, from its beginning; None: all of it.
        The units of a sentence count as evenly spread over its duration.
    tags : The model's language tags.
    codebooks : Of a codec whose codes take turns; prompts are whole frames.

    Returns
    -------
    Ordered by direction, then by story.
    """
    check_choice("steering", steering, STEERING)
    for name, value in (
        ("num_prompts", num_prompts),
        ("last_sentences", last_sentences or 1),
    ):
        check_number(name, value, at_least=1, whole=True)
    spoken, tags = _read_spoken(manifest), tags or {}
    if steering == TAG and not tags:
        raise ValueError(
            "steering is 'tag', but the model has no language tags; expected "
            "last_sentence, or a model that was trained with language_tags"
        )
    if prompt_seconds is not None:
        check_number("prompt_seconds", prompt_seconds, above=0)
        if steering == LAST_SENTENCE or not spoken:
            raise ValueError(
                "prompt_seconds cuts prompts at their end and needs their "
                "durations: expected a manifest, and another steering than "
                "'last_sentence'"
            )
    stories = _stories(store, items, num_prompts, seed)
    shorter = 0 if items else 1
    how = steering, tags, spoken, shorter, last_sentences, prompt_seconds
    reader = _Reader(store, store.speakers(), *how, codebooks)
    pairs = _pairs(store, directions, steering)
    return list(itertools.starmap(reader, itertools.product(pairs, stories)))


def _pairs(store, directions, steering):
    """List pairs of languages, those of one language first."""
    known = {
        direction_of(*pair): pair
        for pair in sorted(
            itertools.product(store.languages, repeat=2),
            key=lambda pair: (pair[0] != pair[1], pair),
        )
        if steering != FREE or pair[0] == pair[1]
    }
    unknown = sorted({*(directions or ())} - {*known})
    if unknown:
        raise ValueError(
            f"directions names {', '.join(unknown)}; of {store.folder}, with "
            f"steering '{steering}', there are {', '.join(known)}"
        )
    return [p for name, p in known.items() if name in (directions or known)]


def _read_spoken(manifest):
    """Return text and seconds of each (story, sentence, language)."""
    if manifest is None:
        return {}
    table = read_table(manifest, MANIFEST, MANIFEST_KEY, optional=("text",))
    rows = table.to_pylist()
    return {
        tuple(row[name] for name in MANIFEST_KEY): (
            (row.get("text") or "").strip(),
            row["num_samples"] / row["sample_rate"],
        )
        for row in rows
    }


def _stories(store, items, num_prompts, seed):
    """Draw stories that the store has in all of its languages."""
    there = (store.bases >= 0).all(axis=0)
    names = list(itertools.compress(store.story_ids.to_pylist(), there))
    if items is not None:
        asked = {*read_items(items)["prompt"].to_pylist()} - {""}
        names = [name for name in names if name in asked]
    else:
        counts = np.diff(store.sentence_offsets)[there]
        names = [name for name, n in zip(names, counts, strict=True) if n > 1]
    if not names:
        raise ValueError(
            f"{store.folder} has no story that could be a prompt in each of "
            f"{', '.join(store.languages)}"
            + (f" and is one in {items}" if items else " and has two sentences")
        )
    if len(names) < num_prompts:
        logger.info(
            "%s has %d prompts, of %d that may be used",
            *(store.folder, len(names), num_prompts),
        )
    # By their names: a store that was cut otherwise gives the same.
    drawn = np.random.default_rng(seed).permutation(len(names))[:num_prompts]
    return [sorted(names)[i] for i in sorted(drawn)]


@dataclass
class _Reader:
    """Makes the prompt of a story in a direction."""

    store: UnitStore
    speakers: dict
    steering: str
    tags: dict[str, int]
    spoken: dict
    shorter: int  # sentences that are left to the model
    last_sentences: int | None
    prompt_seconds: float | None
    codebooks: int

    def __call__(self, pair, story):
        own, asked = pair
        steered = self.steering if own != asked else FREE
        told = {one: self.store.story(story, one) for one in {*pair}}
        count = len(told[own]) - self.shorter
        languages = [own] * count
        if steered == LAST_SENTENCE:
            if count < 2:
                raise ValueError(
                    f"{self.store.folder}: the prompt '{story}' has {count} "
                    "sentence; to steer by the last one takes two or more"
                )
            languages[-1] = asked
        sentences = [told[one][n] for n, one in enumerate(languages)]
        # What was rejected has moved the others up: a sentence's number in
        # the store is no longer the manifest's.
        moved = (story, len(told[own]), own) in self.spoken
        known = {} if moved else self.spoken
        names = [(story, n, one) for n, one in enumerate(languages)]
        texts, seconds = zip(
            *(known.get(name, ("", 0.0)) for name in names), strict=True
        )
        part = slice(-(self.last_sentences or 0), None)
        if self.prompt_seconds is not None:
            sentences = self._begin(story, sentences[part], seconds[part])
            # Of what is not heard, nothing is told.
            texts = texts[part][: len(sentences)]
            languages, part = [own] * len(sentences), slice(0, None)
        units = [one.astype(np.int64) for one in sentences[part]]
        return StoryPrompt(
            *(story, direction_of(*pair), steered, asked),
            self.speakers.get((story, own), ""),
            *(languages[part], list(texts[part])),
            np.concatenate(units),
            self._symbols(story, languages[part], units),
            self._tag(asked, story) if steered == TAG else None,
        )

    def _tag(self, language, story):
        return tag_of(self.tags, language, f"prompt '{story}'")

    def _symbols(self, story, languages, sentences):
        """Put a tag where a language begins."""
        symbols: list = []
        before = None
        for language, units in zip(languages, sentences, strict=True):
            if self.tags and language != before:
                symbols.append([self._tag(language, story)])
            symbols.append(units)
            before = language
        return np.concatenate(symbols).astype(np.int64)

    def _begin(self, story, sentences, seconds):
        """Keep the units of the first seconds."""
        if not all(seconds):
            raise ValueError(
                f"the manifest has not all sentences of '{story}', so nothing "
                "says how long they are; expected prompt_seconds: null"
            )
        ends = np.cumsum([len(one) for one in sentences])
        share = min(self.prompt_seconds / sum(seconds), 1.0)
        # A frame that is cut would put every code behind it out of place.
        kept = max(1, round(ends[-1] * share / self.codebooks))
        kept *= self.codebooks
        begins = ends - [len(one) for one in sentences]
        return [
            one[: kept - begin]
            for one, begin in zip(sentences, begins, strict=True)
            if begin < kept
        ]
