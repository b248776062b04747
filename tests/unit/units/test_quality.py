import numpy as np
import pytest
from speechbrain.utils.edit_distance import wer_details_for_batch, wer_summary

from speechbrain_slm.units.quality import (
    codebook_use,
    edit_distance,
    frame_labels,
    normalized_mutual_information,
    voice_distance,
)


def draw(*shape, high=5, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape)


def test_perplexity_of_even_and_of_single_use():
    assert codebook_use(np.full(64, 3))["perplexity"] == pytest.approx(64)
    one = codebook_use(np.array([0, 9, 0]))
    assert one == {"perplexity": 1.0, "dead": 2}


def test_mutual_information_is_that_of_the_formula():
    labels, units = draw(2000), draw(2000, high=3, seed=1)
    units = np.where(draw(2000, high=2, seed=2), labels % 3, units)
    joint = np.zeros((5, 3))
    np.add.at(joint, (labels, units), 1 / 2000)
    rows, columns = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    information = (joint * np.log(joint / (rows * columns))).sum()
    expected = information / -(rows * np.log(rows)).sum()
    assert 0.1 < expected < 0.9
    found = normalized_mutual_information(labels, units)
    assert found == pytest.approx(expected)


def test_names_serve_as_labels():
    names = np.array(["x", "y"])[draw(100, high=2)]
    assert normalized_mutual_information(names, draw(100, high=2)) > 0.999
    with pytest.raises(ValueError, match=r"all \['x'\]"):
        normalized_mutual_information(np.array(["x", "x"]), np.array([1, 2]))


def test_frames_before_the_first_phone_have_none():
    labels = frame_labels([0.05, 0.1], ["a", "b"], 4, 25.0)
    assert labels.tolist() == ["", "a", "b", "b"]


def test_edit_distance_is_speechbrains():
    for seed in range(50):
        one, other = (
            draw(1 + n % 14, high=4, seed=n) for n in (seed, 3 * seed + 7)
        )
        details = wer_details_for_batch(["a"], [one], [other])
        edits = wer_summary(details)["num_edits"]
        expected = edits / max(len(one), len(other))
        assert edit_distance(one, other) == pytest.approx(expected)
    empty = np.zeros(0, int)
    assert edit_distance(empty, empty) == 0
    assert edit_distance(empty, one) == edit_distance(one, empty) == 1


def test_random_units_are_as_far_in_one_sentence_as_in_others():
    texts = [number for number in range(20) for _ in range(2)]
    found = voice_distance(texts, ["x", "y"] * 20, draw(40, 30, high=50))
    assert found["pairs"] == 20
    assert found["ratio"] == pytest.approx(1.0, abs=0.02)


def test_every_two_voices_of_a_sentence_are_compared():
    texts, speakers = ["s", "t"] * 3, ["x", "x", "y", "y", "z", "z"]
    units = [np.array([3, n % 2]) for n in range(6)]
    found = voice_distance(texts, speakers, units)
    assert list(found.values()) == [0.0, 0.5, 0.0, 6]
    # A codebook of one unit is no good codebook.
    assert voice_distance(texts, speakers, [units[0]] * 6)["ratio"] is None


@pytest.mark.parametrize(
    ("texts", "speakers"),
    [(["s", "t"], ["x", "x"]), (["s", "s"], ["x", "y"]), ([], [])],
)
def test_where_there_is_nothing_to_compare(texts, speakers):
    units = draw(len(texts), 4)
    assert voice_distance(texts, speakers, units) == {"pairs": 0}
