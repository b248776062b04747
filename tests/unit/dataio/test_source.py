"""The stream of a source against a plain loop over its sentences."""

import numpy as np
import pytest

from speechbrain_slm.dataio.interleaving import language_paths, uniform
from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.dataio.source import Source

BOUNDARY = 30


def naive_epoch(source, epoch):
    """Build an epoch's tokens and languages with Python loops."""
    store = source.store
    stories, _ = source._epoch(epoch)
    tokens, kinds = [], []
    for story in stories:
        count = np.diff(store.sentence_offsets)[story]
        path = language_paths(
            np.array([story]),
            np.array([count]),
            len(source.languages),
            source.switch_probability,
            source.span,
            source.seed,
            epoch,
        )
        tokens.append(BOUNDARY)
        kinds.append("boundary")
        story_id = store.story_ids[int(story)].as_py()
        for sentence, choice in enumerate(path):
            language = source.languages[choice]
            units = store.story(story_id, language)[sentence]
            tokens.extend(units.tolist())
            kinds.extend([language] * len(units))
    return tokens, kinds


@pytest.mark.parametrize(
    "languages", [["en"], ["fr", "en"], ["en", "de", "fr"], ["de"]]
)
@pytest.mark.parametrize("span", [1, 2])
def test_stream_equals_naive_loop(three_languages, languages, span):
    source = Source(
        UnitStore(three_languages), BOUNDARY, languages, 0.6, span, seed=3
    )
    expected, kinds = [], []
    for epoch in range(3):
        tokens, found = naive_epoch(source, epoch)
        expected += tokens
        kinds += found
    length = 37
    rows = len(expected) // length
    begins = np.arange(rows) * length
    shuffled = np.random.default_rng(0).permutation(rows)
    found = np.empty((rows, length), dtype=np.int64)
    found[shuffled] = source.tokens(begins[shuffled], length)
    assert found.ravel().tolist() == expected[: rows * length]
    for position in [0, 1, 2, 50, 333, source.epoch_start(1), len(expected)]:
        counts = source.count(position)
        for kind in [*languages, "boundary"]:
            assert counts[kind] == kinds[:position].count(kind), (
                position,
                kind,
            )


def test_rows_longer_than_an_epoch(store_folder):
    source = Source(UnitStore(store_folder), BOUNDARY, ["en"])
    epoch = source.epoch_start(1)
    row = source.tokens(np.array([5]), 3 * epoch)[0]
    singles = [source.tokens(np.array([5 + i]), 1)[0, 0] for i in range(20)]
    assert row[:20].tolist() == singles
    assert (row == BOUNDARY).sum() == 3 * len(source.stories)


def test_every_sentence_once_an_epoch(store_folder):
    store = UnitStore(store_folder)
    source = Source(store, BOUNDARY, ["en", "fr"], 0.5)
    epoch = source.tokens(np.array([0]), source.epoch_start(1))[0]
    stories = np.split(epoch, np.flatnonzero(epoch == BOUNDARY))[1:]
    expected, _ = naive_epoch(source, 0)
    assert epoch.tolist() == expected
    assert len(stories) == len(store.story_ids)


def test_epochs_differ_and_seeds_differ(store_folder):
    store = UnitStore(store_folder)
    one = Source(store, BOUNDARY, ["en", "fr"], seed=1)
    two = Source(store, BOUNDARY, ["en", "fr"], seed=2)
    begin = np.array([0])
    first = one.tokens(begin, 200).tolist()
    assert (
        first
        == Source(store, BOUNDARY, ["en", "fr"], seed=1)
        .tokens(begin, 200)
        .tolist()
    )
    assert first != two.tokens(begin, 200).tolist()
    later = np.array([one.epoch_start(1)])
    assert first != one.tokens(later, 200).tolist()


@pytest.mark.parametrize("num_languages", [1, 2, 3, 4])
@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_paths_have_the_asked_statistics(num_languages, probability):
    stories = np.arange(4000)
    counts = np.full(4000, 6)
    paths = language_paths(
        stories, counts, num_languages, probability, 1, seed=5, epoch=2
    ).reshape(4000, 6)
    switched = (np.diff(paths, axis=1) != 0).mean()
    expected = probability if num_languages > 1 else 0.0
    # Five standard errors of 20,000 Bernoulli draws.
    assert abs(switched - expected) <= 5 * 0.5 / np.sqrt(20_000)
    shares = np.bincount(paths.ravel(), minlength=num_languages) / paths.size
    error = 5 * 0.5 / np.sqrt(4000)
    assert np.abs(shares - 1 / num_languages).max() <= error


def test_span_is_kept():
    paths = language_paths(
        np.arange(500), np.full(500, 9), 3, 0.7, 3, seed=1, epoch=0
    ).reshape(500, 3, 3)
    assert (paths == paths[:, :, :1]).all()


def test_paths_do_not_depend_on_the_batch():
    stories = np.arange(50)
    counts = np.arange(50) % 7 + 1
    together = language_paths(stories, counts, 2, 0.5, 1, 9, 4)
    alone = [
        language_paths(stories[i : i + 1], counts[i : i + 1], 2, 0.5, 1, 9, 4)
        for i in range(50)
    ]
    assert together.tolist() == np.concatenate(alone).tolist()


def test_uniform_is_uniform():
    draws = uniform(3, np.arange(100_000))
    assert draws.min() >= 0
    assert draws.max() < 1
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    chi_squared = ((counts - 5000) ** 2 / 5000).sum()
    assert chi_squared < 50  # 19 degrees of freedom: p = 1e-4


def test_refusals(store_folder):
    store = UnitStore(store_folder)
    with pytest.raises(ValueError, match=r"de.*holds en, fr"):
        Source(store, BOUNDARY, ["en", "de"])
    with pytest.raises(ValueError, match=r"switch_probability is 1\.5"):
        Source(store, BOUNDARY, ["en", "fr"], switch_probability=1.5)
    with pytest.raises(ValueError, match="span is 0"):
        Source(store, BOUNDARY, ["en", "fr"], span=0)
    with pytest.raises(ValueError, match="names a language twice"):
        Source(store, BOUNDARY, ["en", "en"])
