"""Which language units are in, by a classifier of their n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

if TYPE_CHECKING:
    from speechbrain_slm.dataio.reader import UnitStore

NGRAMS = 3  # units, pairs and triples of them
HELD_OUT = 5  # every fifth sentence measures what the others have taught


class TooFewSentences(ValueError):
    """Nothing tells the languages apart."""


class UnitLanguage:
    """Naive Bayes on the n-grams of a store's sentences.

    Of the distinct unit sequences of each language, most ``most`` of them, a
    fifth is held out; ``accuracy`` is the share of these that it gets right.
    TooFewSentences if there are not several, of two languages.

    Example
    -------
    >>> from speechbrain_slm.utils.store import StoreWriter
    >>> from speechbrain_slm.dataio.reader import UnitStore
    >>> tokenizer = dict(identity="1a", vocabulary_size=9, frame_rate=25.0,
    ...                  deduplicated=True, config={})
    >>> folder = getfixture("tmp_path")
    >>> writer = StoreWriter(folder, tokenizer, source="2b", num_shards=1)
    >>> writer.write(0, [(f"s{n}", language, "alto", [[unit, n, unit]])
    ...                  for n in range(9) for language, unit in
    ...                  (("en", 1), ("fr", 2))])
    >>> _ = writer.finish()
    >>> languages = UnitLanguage(UnitStore(folder))
    >>> languages([np.array([5, 1, 3, 1])])[0][0]
    'en'
    """

    def __init__(
        self, store: UnitStore, most: int = 5000, seed: int = 0
    ) -> None:
        self.languages = store.languages
        generator = np.random.default_rng(seed)
        taught: list[tuple[str, str]] = []
        held: list[tuple[str, str]] = []
        for language in self.languages:
            sentences = _drawn(store, language, most, generator)
            for number, units in enumerate(sentences):
                (taught if number % HELD_OUT else held).append(
                    (_text(units), language)
                )
        if len({language for _, language in taught}) < 2 or not held:
            raise TooFewSentences(
                f"{store.folder} holds {len(held) + len(taught)} distinct "
                f"sentence(s) in {', '.join(self.languages)}; a classifier of "
                "languages needs several, of two languages or more"
            )
        self._model = make_pipeline(
            CountVectorizer(
                token_pattern=r"\S+", ngram_range=(1, NGRAMS), lowercase=False
            ),
            MultinomialNB(alpha=0.1),
        )
        self._model.fit(*zip(*taught, strict=True))
        self.num_held_out = len(held)
        self.accuracy = float(self._model.score(*zip(*held, strict=True)))

    def __call__(
        self, sequences: Sequence[np.ndarray]
    ) -> list[tuple[str, float]]:
        """Return the language of each, and its probability; "" of no units."""
        if not len(sequences):
            return []
        shares = self._model.predict_proba(list(map(_text, sequences)))
        best = shares.argmax(axis=1)
        return [
            (str(self._model.classes_[k]), float(row[k]))
            if len(units)
            else ("", 0.0)
            for units, row, k in zip(sequences, shares, best, strict=True)
        ]


def _text(units):
    return " ".join(map(str, np.asarray(units).tolist()))


def _drawn(store, language, most, generator):
    """Draw distinct sentences; of a templated corpus few are."""
    found: dict[bytes, np.ndarray] = {}
    row = store.languages.index(language)
    there = np.flatnonzero(store.bases[row] >= 0)
    names = store.story_ids
    for number in generator.permutation(there):
        for units in store.story(names[int(number)].as_py(), language):
            found.setdefault(units.tobytes(), units)
        if len(found) >= most:
            break
    # What came from one story is not together any more.
    sentences = list(found.values())[:most]
    return [sentences[i] for i in generator.permutation(len(sentences))]
