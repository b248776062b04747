"""Sources, told and packed, against plain loops over their sentences."""

import numpy as np
import pytest
from conftest import TOKENIZER, write_store

from speechbrain_slm.dataio.interleaving import (
    as_uniform,
    hash_integers,
    language_paths,
)
from speechbrain_slm.dataio.packing import BestFit, Concatenated
from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.dataio.source import Source
from speechbrain_slm.utils.store import StoreWriter

BOUNDARY = 30
TAGS = {"de": 31, "en": 32, "fr": 33}


def counted(packed, rows):
    return dict(
        zip(packed.source.columns, packed.count(rows).tolist(), strict=True)
    )


def naive_stories(source, epoch):
    """Tell an epoch with Python loops: (tokens, kinds) of every story."""
    store = source.store
    for story in source.order(epoch).tolist():
        story_id = store.story_ids[story].as_py()
        held = dict(zip(store.languages, store.bases[:, story], strict=True))
        there = [name for name in source.languages if held[name] >= 0]
        count = np.diff(store.sentence_offsets)[[story]]
        settings = (source._knots[1][0], source.span, source.seed, epoch)
        path = language_paths(np.array([story]), count, len(there), *settings)
        tokens, kinds, before = [BOUNDARY], ["boundary"], None
        for sentence, choice in enumerate(path):
            language = there[choice]
            if source.tags is not None and language != before:
                number = source.languages.index(language)
                tokens.append(int(source.tags[number]))
                kinds.append("tag")
            units = store.story(story_id, language)[sentence].tolist()
            tokens += units
            kinds += [language] * len(units)
            before = language
        yield tokens, kinds


def partial_store(folder):
    """Write stories in one, two or all of three languages."""
    generator = np.random.default_rng(2)
    writer = StoreWriter(folder, TOKENIZER, "manifest", 1)
    rows = []
    for story in range(40):
        count = generator.integers(1, 6)
        for number, language in enumerate(("de", "en", "fr")):
            if story % 7 >= 4 and (story + number) % 3:
                continue
            sentences = [
                generator.integers(0, 30, generator.integers(1, 8))
                for _ in range(count)
            ]
            rows.append((f"s{story}", language, "alto", sentences))
    writer.write(0, rows)
    writer.finish()
    return UnitStore(folder)


@pytest.fixture(scope="module")
def partial(tmp_path_factory):
    return partial_store(tmp_path_factory.mktemp("partial") / "store")


@pytest.mark.parametrize(
    "languages", [["en"], ["fr", "en"], ["en", "de", "fr"], ["de"]]
)
@pytest.mark.parametrize("span", [1, 2])
@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("kind", ["whole", "partial"])
def test_rows_equal_naive_loop(
    three_languages, partial, languages, span, tagged, kind, monkeypatch
):
    """Rows and counts, with stories over the ends of blocks and epochs."""
    monkeypatch.setattr("speechbrain_slm.dataio.packing.BLOCK", 7)
    store = partial if kind == "partial" else UnitStore(three_languages)
    tags = [TAGS[name] for name in languages] if tagged else None
    source = Source(store, languages, 0.6, span, seed=3, tags=tags)
    expected, kinds = [], []
    for epoch in range(3):
        for tokens, found in naive_stories(source, epoch):
            expected += tokens
            kinds += found
    length = 37
    rows = len(expected) // length
    packed = Concatenated(source, length, BOUNDARY)
    shuffled = np.random.default_rng(0).permutation(rows)
    found = np.empty((rows, length), dtype=np.int64)
    found[shuffled] = packed.rows(shuffled)
    assert found.ravel().tolist() == expected[: rows * length]
    fresh = Concatenated(source, length, BOUNDARY)
    for number in [0, 1, 2, 5, rows // 2, rows]:
        counts = counted(fresh, number)
        for name in [*languages, "boundary", "tag"]:
            seen = kinds[: number * length].count(name)
            assert counts[name] == seen, (number, name)


def test_rows_longer_than_an_epoch(store_folder):
    source = Source(UnitStore(store_folder), ["en"])
    packed = Concatenated(source, 1, BOUNDARY)
    epoch = packed.rows_before(1)
    row = Concatenated(source, 3 * epoch, BOUNDARY).rows(np.array([1]))[0]
    singles = packed.rows(np.arange(3 * epoch, 6 * epoch))
    assert row.tolist() == singles.ravel().tolist()
    assert (row == BOUNDARY).sum() == 3 * source.num_stories


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("row_length", [64, 24, 10])
def test_best_fit_holds_every_story_once(
    three_languages, row_length, tagged, monkeypatch
):
    """Every unit of an epoch once; long stories cut between sentences."""
    monkeypatch.setattr("speechbrain_slm.dataio.packing.BLOCK", 7)
    tags = [TAGS["fr"], TAGS["de"]] if tagged else None
    store = UnitStore(three_languages)
    source = Source(store, ["fr", "de"], 0.5, seed=4, tags=tags)
    packed = BestFit(source, row_length, BOUNDARY)
    for epoch in range(2):
        edges = packed.rows_before(epoch), packed.rows_before(epoch + 1)
        rows = packed.rows(np.arange(*edges)[::-1])
        pieces, padding = [], 0
        for row in rows.tolist():
            while row[-1] == BOUNDARY:
                row.pop()
                padding += 1
            text = " ".join(map(str, row))
            pieces += text.split(str(BOUNDARY))[1:]
        # Without tags, the concatenation of a story's pieces is the story.
        symbols = [int(token) for piece in pieces for token in piece.split()]
        units = sorted(token for token in symbols if token < BOUNDARY)
        told = [tokens for tokens, _ in naive_stories(source, epoch)]
        expected = [token for tokens in told for token in tokens]
        assert units == sorted(t for t in expected if t < BOUNDARY)
        short = [tokens[1:] for tokens in told if len(tokens) <= row_length]
        whole = {" ".join(map(str, tokens)) for tokens in short}
        assert whole <= {piece.strip() for piece in pieces}
        if row_length == 64:
            assert len(pieces) == source.num_stories == len(whole)
        before, after = (counted(packed, edge) for edge in edges)
        counts = {name: after[name] - before[name] for name in after}
        assert counts["fr"] + counts["de"] == len(units)
        assert counts["boundary"] == len(pieces)
        assert counts["tag"] == sum(token > BOUNDARY for token in symbols)
        assert sum(list(counts.values())[:-2]) == rows.size - padding


def test_best_fit_counts_as_it_goes(store_folder):
    source = Source(UnitStore(store_folder), ["en", "fr"])
    packed = BestFit(source, 40, BOUNDARY)
    last = packed.rows_before(2)
    for number in (3, last, 7, last - 1):
        fresh = BestFit(source, 40, BOUNDARY)
        assert packed.count(number).tolist() == fresh.count(number).tolist()


def test_row_shorter_than_the_longest_sentence(store_folder):
    source = Source(UnitStore(store_folder), ["en"])
    with pytest.raises(ValueError, match=r"row_length is 7; .* takes 8"):
        BestFit(source, 7, BOUNDARY)
    assert BestFit(source, 8, BOUNDARY).rows(np.arange(3)).shape == (3, 8)


def test_single_language_stories_never_break_interleaving(partial):
    """A story in one language is told in it; the others still switch."""
    source = Source(partial, ["en", "fr"], 1.0)
    assert source.num_partial > 0
    assert source.num_stories == sum(
        (partial.bases[1:, story] >= 0).any() for story in range(40)
    )
    stream = source.tell(0, np.arange(source.num_stories))
    names = partial.bases[1:, source.order(0)] >= 0
    paths = np.split(stream.languages, stream.heads[1:])
    for path, there in zip(paths, names.T, strict=True):
        assert there[path].all()
        switches = (np.diff(path) != 0).sum()
        assert switches == (len(path) - 1 if there.all() else 0)


def test_shuffled_alignment_takes_other_stories(three_languages):
    store = UnitStore(three_languages)
    source = Source(store, ["en", "fr", "de"], shuffle_alignment=True)
    positions = np.arange(source.num_stories)
    counts = np.diff(store.sentence_offsets)
    found = []
    for epoch in range(2):
        stories = source.order(epoch)[positions]
        told = [
            source._partners(stories, np.full(40, language), epoch)
            for language in range(3)
        ]
        assert told[0].tolist() == stories.tolist()
        for other in told[1:]:
            assert (counts[other] == counts[stories]).all()
            assert (other != stories).all()
            # A permutation: no sentence is lost or doubled.
            assert sorted(other.tolist()) == sorted(stories.tolist())
        assert (told[1] != told[2]).all()
        found.append(dict(zip(stories.tolist(), told[1].tolist(), strict=True)))
    assert found[0] != found[1]
    aligned = Source(store, ["en", "fr", "de"]).tell(0, positions)
    shuffled = source.tell(0, positions)
    assert (aligned.languages == shuffled.languages).all()
    assert (aligned.addresses != shuffled.addresses).any()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_aligned_share(tmp_path, share):
    """So many stories switch; each other one keeps its language for good."""
    names = ["de", "en", "fr"]
    folder = write_store(tmp_path / "store", languages=names, stories=1500)
    store = UnitStore(folder)
    source = Source(store, names, 1.0, aligned_share=share, seed=4)
    told = [set() for _ in range(1500)]
    for epoch in range(3):
        stream = source.tell(epoch, np.arange(1500))
        paths = np.split(stream.languages, stream.heads[1:])
        for story, path in zip(source.order(epoch), paths, strict=True):
            told[story] |= {*path.tolist()}
    several = np.array([len(languages) > 1 for languages in told])
    assert abs(several.mean() - share) <= 5 * 0.5 / np.sqrt(1500)
    assert source.num_partial == (~several).sum()
    single = [language for one in told if len(one) == 1 for language in one]
    counts = np.bincount(single, minlength=3)
    assert np.abs(counts - len(single) / 3).max() <= 5 * np.sqrt(1500) / 2
    # What is logged: an epoch is one pass, and all that it holds is counted.
    packed = Concatenated(source, 1, BOUNDARY)
    rows = packed.rows_before(1)
    assert packed.passes(rows) == 1
    found = counted(packed, rows)
    assert sum(found[name] for name in [*names, "boundary"]) == rows
    if share == 1:
        plain = Source(store, names, 1.0, seed=4).tell(2, np.arange(1500))
        assert (plain.addresses == stream.addresses).all()


def test_aligned_share_of_stories_that_lack_a_language(partial):
    names, tags = ["en", "fr"], [TAGS["en"], TAGS["fr"]]
    settings = {"aligned_share": 0.0, "seed": 1, "tags": tags}
    source = Source(partial, names, **settings)
    assert source.num_stories == Source(partial, names).num_stories
    stream = source.tell(0, np.arange(source.num_stories))
    stories = np.repeat(
        source.order(0), np.diff([*stream.heads, len(stream.lengths)])
    )
    assert (partial.bases[1 + stream.languages, stories] >= 0).all()
    # One tag a story; with other stories' sentences, the same ones in all.
    assert stream.totals()[-3] == source.num_stories
    shuffled = Source(partial, names, shuffle_alignment=True, **settings)
    others = shuffled.tell(0, np.arange(source.num_stories))
    assert sorted(others.addresses) == sorted(stream.addresses)
    assert (others.addresses != stream.addresses).any()


def test_curriculum_over_the_switch_probability(tmp_path):
    store = UnitStore(write_store(tmp_path / "store", stories=600))
    units = sum(store.info["counts"][n]["units"] for n in ("en", "fr")) / 2
    knots = {0: 0.0, round(units + 600): 0.0, round(2 * (units + 600)): 0.8}
    source = Source(store, ["en", "fr"], knots)
    rates = []
    for epoch in range(4):
        stream = source.tell(epoch, np.arange(600))
        rates.append(stream.changed.sum() / (len(stream.lengths) - 600))
    # Epoch 0: none. Epoch 1: from 0 to 0.8. Then 0.8.
    assert rates[0] == 0
    for rate, expected in zip(rates[1:], (0.4, 0.8, 0.8), strict=True):
        assert abs(rate - expected) < 5 * 0.5 / np.sqrt(2000)


@pytest.mark.parametrize("num_languages", [1, 2, 3, 4])
@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_realised_statistics_equal_what_was_asked(
    tmp_path, num_languages, probability
):
    names = ["de", "en", "fr", "it"][:num_languages]
    folder = write_store(tmp_path / "store", languages=names, stories=1500)
    store = UnitStore(folder)
    packed = Concatenated(Source(store, names, probability), 1, BOUNDARY)
    rows = packed.rows_before(1)
    counts = counted(packed, rows)
    units = np.array([counts[name] for name in names])
    assert units.sum() + counts["boundary"] == rows
    junctions = counts["sentences"] - counts["boundary"]
    expected = probability if num_languages > 1 else 0.0
    # Five standard errors of Bernoulli draws.
    error = 5 * 0.5 / np.sqrt(junctions)
    assert abs(counts["switches"] / junctions - expected) <= error
    error = 5 * 0.5 / np.sqrt(counts["boundary"])
    assert np.abs(units / units.sum() - 1 / num_languages).max() <= error


def test_epochs_differ_and_seeds_differ(store_folder):
    store = UnitStore(store_folder)

    def row(seed, index):
        source = Source(store, ["en", "fr"], seed=seed)
        packed = Concatenated(source, 200, BOUNDARY)
        return packed.rows(np.array([index])).tolist()

    assert row(1, 0) == row(1, 0)
    assert row(1, 0) != row(2, 0)
    assert row(1, 0) != row(1, 20)


def test_span_is_kept():
    paths = language_paths(
        np.arange(500), np.full(500, 9), 3, 0.7, 3, seed=1, epoch=0
    ).reshape(500, 3, 3)
    assert (paths == paths[:, :, :1]).all()


def test_paths_do_not_depend_on_the_batch():
    stories = np.arange(50)
    counts = np.arange(50) % 7 + 1
    together = language_paths(stories, counts, 2, 0.5, 1, 9, 4)
    ones = zip(stories[:, None], counts[:, None], strict=True)
    alone = [language_paths(*one, 2, 0.5, 1, 9, 4) for one in ones]
    assert together.tolist() == np.concatenate(alone).tolist()


def test_uniform_is_uniform():
    draws = as_uniform(hash_integers(3, np.arange(100_000)))
    assert draws.min() >= 0
    assert draws.max() < 1
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    chi_squared = ((counts - 5000) ** 2 / 5000).sum()
    assert chi_squared < 50  # 19 degrees of freedom: p = 1e-4


@pytest.mark.parametrize(
    "probability",
    [1.5, -0.1, float("nan"), "0.5", {0: 0.5, 9: 2}, {-1: 0.5}],
)
def test_refused_probabilities(store_folder, probability):
    store, message = UnitStore(store_folder), "^switch_probability.* is .*; exp"
    with pytest.raises(ValueError, match=message):
        Source(store, ["en", "fr"], probability)


def test_refusals(store_folder):
    store = UnitStore(store_folder)
    with pytest.raises(ValueError, match="names a language twice"):
        Source(store, ["en", "en"])
