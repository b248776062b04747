"""Cloze without a model that was trained: what do counts of units give away?

``bag``
    An ending is as good as its units resemble the prompt's: the cosine of
    their counts, weighted by how few of the training stories have a unit
    (tf-idf, as scikit-learn has it). Its scoring is called ``cosine``.
``unigram``, ``ngram``
    Likelihoods of :class:`UnitNgram`, fitted on the training stories of all
    languages together, each between two boundaries.
``ngram_interleaved``
    Fitted on each story once more, told in all languages as a model's
    interleaved data: what could be known from the last units alone.

Where these are above chance, an accuracy needs no understanding of a story.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfTransformer

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.dataio.source import Source
from speechbrain_slm.evaluation.cloze.evaluate import checked, evaluate_scorer
from speechbrain_slm.evaluation.cloze.scorer import Scorer
from speechbrain_slm.models.ngram import UnitNgram
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.numbers import check_choice, check_number

logger = logging.getLogger(__name__)

KINDS = ("bag", "unigram", "ngram", "ngram_interleaved")
COSINE = "cosine"


def evaluate_baseline(
    kind: str,
    train_units_folder: str | Path,
    units_folder: str | Path,
    items: str | Path,
    output_folder: str | Path,
    order: int = 4,
    switch_probability: float = 0.5,
    convention: dict | None = None,
    endings: str = "apart",
    too_long: str = "refuse",
    pairs_per_shard: int = 1000,
    seed: int = 1986,
) -> dict:
    """Evaluate one of ``KINDS`` as :func:`evaluate_cloze` does a model.

    The same files come out; ``model`` is the hash of the settings and of the
    training units.

    Arguments
    ---------
    train_units_folder : The store whose stories are counted.
    order : Units of an n-gram, the last of which is predicted.
    switch_probability, seed : See :class:`Source`; for ``ngram_interleaved``.
    convention : Its ``scoring`` is not that of ``bag``, which has one only.
    """
    check_choice("kind", kind, KINDS)
    check_number("order", order, at_least=1, whole=True)
    name = "switch_probability"
    check_number(name, switch_probability, at_least=0, at_most=1)
    convention = dict(convention or {})
    if kind == "bag":
        logger.info("bag knows no likelihoods: its scoring is '%s'", COSINE)
        convention = checked({**convention, "scoring": COSINE}, [COSINE])
    else:
        convention = checked(convention)
    train, store = UnitStore(train_units_folder), UnitStore(units_folder)
    if train.identity != store.identity:
        raise ValueError(
            f"{train.folder} holds units of tokenizer {train.identity}, "
            f"{store.folder} of {store.identity}; extract both with one"
        )
    facts: dict[str, Any] = {"kind": kind, "train": train.info["identity"]}
    if kind != "bag":
        facts["order"] = 1 if kind == "unigram" else order
    if kind == "ngram_interleaved":
        facts |= {"switch_probability": switch_probability, "seed": seed}
    identities = {"model": identity_of(facts), "tokenizer": store.identity}
    identities["units"] = store.info["identity"]

    make_scorer = partial(_make_scorer, train, facts)
    return evaluate_scorer(
        *(make_scorer, identities, store, items, output_folder, convention),
        *(endings, too_long, pairs_per_shard, seed),
    )


def _make_scorer(train: UnitStore, facts: dict, **how: Any) -> Scorer:
    """Count the stories that the facts name."""
    boundary = train.vocabulary_size
    sources = [Source(train, [language]) for language in train.languages]
    if facts["kind"] == "bag":
        stories = [story[1:-1] for story in _stories(sources)]
        return BagScorer(stories, boundary, **how)
    if facts["kind"] == "ngram_interleaved":
        told = train.languages, facts["switch_probability"]
        sources.append(Source(train, *told, seed=facts["seed"]))
    stories = list(_stories(sources))
    model = UnitNgram(stories, facts["order"], boundary + 1)
    return NgramScorer(model, boundary, **how)


def _stories(sources: Sequence[Source]) -> Iterator[np.ndarray]:
    """Yield the stories of an epoch, each between two boundaries."""
    for source in sources:
        stream = source.tell(0, np.arange(source.num_stories))
        symbols = np.full(stream.size + 1, source.store.vocabulary_size)
        first, end = np.array([0]), np.array([stream.size])
        stream.write(symbols, first, end, first)
        ends = stream.story_ends()
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            # The boundary behind it is that before the next one.
            yield symbols[begin : end + 1]


class NgramScorer(Scorer):
    """Score pairs with a :class:`UnitNgram` that knows the boundary."""

    def __init__(self, model: UnitNgram, boundary: int, **how: Any) -> None:
        super().__init__(boundary, boundary, **how)
        self.model = model

    def _logs(self, ids, lengths, scored):
        logs = []
        found = self.model.log_probs(ids)
        for own, length, mask in zip(found, lengths, scored, strict=True):
            head = int(mask[:length].sum())
            logs.append(np.split(own[mask[1:]], [head]))
        return logs


class BagScorer(Scorer):
    """Score how much the units of an ending resemble those of its prompt.

    Arguments
    ---------
    stories : Units of the stories that say how rare a unit is.

    Example
    -------
    >>> scorer = BagScorer([[0, 1], [0, 2], [0, 3]], vocabulary_size=4)
    >>> scores = scorer.score([([0, 1], [1, 0]), ([0, 1], [0]), ([0, 1], [2])])
    >>> scores["cosine"].round(2).tolist()
    [1.0, 0.51, 0.0]
    """

    def __init__(
        self,
        stories: Sequence[Sequence[int] | np.ndarray],
        vocabulary_size: int,
        **how: Any,
    ) -> None:
        super().__init__(vocabulary_size, vocabulary_size, **how)
        self.likelihoods = [COSINE]
        self._weight = TfidfTransformer().fit(self._count(stories))

    def score(
        self, pairs: Sequence[tuple], names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the ``cosine`` of each prompt and ending, [N]."""
        for row, (prompt, ending) in enumerate(pairs):
            name = names[row] if names else f"pair {row}"
            self._sequence(prompt, ending, name)  # refuses what is no pair
            if not len(prompt):
                raise ValueError(
                    f"{name}: it has no prompt that its ending could resemble; "
                    "a bag needs one"
                )
        sides = zip(*pairs, strict=True)
        one, other = (
            self._weight.transform(self._count(side)) for side in sides
        )
        cosine = np.asarray(one.multiply(other).sum(axis=1)).ravel()
        return {COSINE: cosine}

    def _count(self, sequences):
        rows = np.repeat(np.arange(len(sequences)), [*map(len, sequences)])
        columns = np.concatenate(sequences).astype(np.int64)
        shape = len(sequences), self.vocabulary_size
        return csr_matrix((np.ones(len(rows)), (rows, columns)), shape)

    def _logs(self, ids, lengths, scored):
        raise NotImplementedError("a bag of units has no likelihoods")
