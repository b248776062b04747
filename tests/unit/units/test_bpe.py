import numpy as np
import pytest

from speechbrain_slm.units.tokenizers.bpe import MODEL, NUM_CHARACTERS, UnitBPE

BASE = {"identity": "1a", "vocabulary_size": 50, "frame_rate": 25.0}
BASE |= {"deduplicated": True, "config": {"type": "fake"}}


def sentences(count=60, seed=0, words=10):
    """Draw sentences from a small vocabulary of unit words."""
    generator = np.random.default_rng([seed, 1])
    lexicon = np.random.default_rng(0).integers(0, 50, (30, 5))
    drawn = (generator.integers(0, 30, words) for _ in range(count))
    return [lexicon[words].ravel() for words in drawn]


def fitted(vocabulary_size=150):
    return UnitBPE.fit(BASE, sentences(), vocabulary_size)


def test_pieces_stand_for_the_same_units():
    bpe = fitted()
    unseen = [np.random.default_rng(3).integers(0, 50, n) for n in (1, 7, 90)]
    for units in sentences(20, seed=5) + unseen + [np.arange(50)]:
        (pieces,) = bpe.encode([units])
        assert bpe.decode(pieces).tolist() == units.tolist()
        assert 0 <= pieces.min() <= pieces.max() < bpe.vocabulary_size
    assert bpe.vocabulary_size == 150


def test_fit_is_repeatable():
    assert fitted().model == fitted().model
    bpe = fitted()
    assert fitted().identity == bpe.identity != fitted(140).identity
    other = UnitBPE(BASE | {"identity": "2b"}, bpe.model, {})
    assert other.identity != bpe.identity


def test_unit_outside_the_alphabet_raises():
    for unit in (50, 70000, -1):
        with pytest.raises(ValueError, match="sentence 1 has a unit"):
            fitted().encode([[1, 2], [3, unit]])


def test_no_units_give_no_pieces():
    assert [len(pieces) for pieces in fitted().encode([[], [4]])] == [0, 1]


def test_long_sentences_are_not_left_out():
    # sentencepiece drops sentences above 4192 bytes unless told otherwise.
    units = sentences(1, words=1000)[0]
    bpe = UnitBPE.fit(BASE, [units], 150)
    assert len(bpe.encode([units])[0]) < len(units) / 3


def test_impossible_vocabularies_are_refused():
    big = BASE | {"vocabulary_size": NUM_CHARACTERS + 1}
    for base, size, text in (
        (BASE, 50, "more than the 50 units"),
        (BASE, 20000, "Vocabulary size too high"),
        (big, 60000, "Set bpe to null"),
    ):
        with pytest.raises(ValueError, match=text):
            UnitBPE.fit(base, sentences(), size)


def test_saved_bpe_is_the_same(tmp_path):
    bpe = fitted()
    bpe.save(tmp_path)
    loaded = UnitBPE.load(tmp_path)
    assert (loaded.identity, loaded.config) == (bpe.identity, bpe.config)
    units = sentences(1, seed=7)
    assert loaded.encode(units)[0].tolist() == bpe.encode(units)[0].tolist()
    for damaged in (fitted(140).model, bpe.model[:50], b""):
        (tmp_path / MODEL).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"bpe\.model is not the model"):
            UnitBPE.load(tmp_path)
