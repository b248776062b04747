import numpy as np
import pytest
from scipy import stats
from sklearn.metrics.pairwise import cosine_similarity

from speechbrain_slm.evaluation.alignment.metrics import (
    PairSums,
    matched_galleries,
    retrieval,
    unit_vectors,
)


def states(count=60, width=8, seed=0):
    """Sources, related targets and unrelated mismatches, far from zero."""
    generator = np.random.default_rng(seed)
    sources, noise, mismatches = generator.normal(size=(3, count, width))
    return sources + 1, sources + noise + 2, mismatches + 2


def summary(sources, targets, mismatches, cuts=()):
    sums = PairSums()
    parts = [np.split(side, cuts) for side in (sources, targets, mismatches)]
    for part in zip(*parts, strict=True):
        sums.add(*part)
    return sums.summary()


def gram_cka(one, other):
    """CKA by its other formula: HSIC of the N x N Gram matrices."""
    centring = np.eye(len(one)) - 1 / len(one)
    grams = [centring @ side @ side.T @ centring for side in (one, other)]
    hsic = [np.trace(a @ b) for a, b in (grams, grams[:1] * 2, grams[1:] * 2)]
    return hsic[0] / np.sqrt(hsic[1] * hsic[2])


def test_summary_is_that_of_the_definitions():
    sources, targets, mismatches = states()
    found = summary(sources, targets, mismatches)
    right = np.diagonal(cosine_similarity(sources, targets))
    wrong = np.diagonal(cosine_similarity(sources, mismatches))
    assert found["n"] == 60
    for name, values in (
        ("cosine", right),
        ("mismatched", wrong),
        ("margin", right - wrong),
    ):
        low, high = stats.norm.interval(0.95, values.mean(), stats.sem(values))
        expected = [values.mean(), low, high]
        names = name, f"{name}_low", f"{name}_high"
        assert [found[n] for n in names] == pytest.approx(expected, abs=1e-12)
    assert found["cka"] == pytest.approx(gram_cka(sources, targets), abs=1e-12)
    expected = gram_cka(sources, mismatches)
    assert found["cka_mismatched"] == pytest.approx(expected, abs=1e-12)
    assert found["cka"] > 2 * found["cka_mismatched"]


def test_cutting_into_parts_changes_nothing():
    whole, cut = summary(*states()), summary(*states(), cuts=[1, 7, 50])
    assert whole == pytest.approx(cut, abs=1e-12)


def test_cka_bears_states_far_from_zero():
    sources, targets, mismatches = states()
    far = summary(sources + 1e6, targets - 1e6, mismatches)
    near = summary(sources, targets, mismatches)
    assert far["cka"] == pytest.approx(near["cka"], rel=1e-6)


def test_cka_is_one_under_rotation_scale_and_shift():
    sources, _, mismatches = states()
    rotation = stats.ortho_group.rvs(8, random_state=3)
    turned = summary(sources, 3 * sources @ rotation + 5, mismatches)
    assert turned["cka"] == pytest.approx(1, abs=1e-12)
    assert turned["cosine"] < 0.9
    stretched = summary(sources, sources * np.arange(8) ** 2, mismatches)
    assert stretched["cka"] < 0.9


def test_no_margin_where_the_mismatch_is_as_good():
    sources, targets, _ = states()
    found = summary(sources, targets, targets)
    assert found["margin"] == found["margin_low"] == found["margin_high"] == 0
    assert found["cka"] == found["cka_mismatched"]


def test_states_that_do_not_vary():
    same = np.ones((5, 4))
    found = summary(same, same, same)
    assert found["cosine"] == pytest.approx(1)
    assert found["cka"] == 0
    assert (unit_vectors(np.zeros((2, 3))) == 0).all()


def by_loops(matrix, rows, columns):
    """Count by the definition: strictly above all rivals."""
    hits = []
    for i, right in enumerate(np.diagonal(matrix)):
        rivals = matrix[i, rows[i]], matrix[columns[i], i]
        hits.append([right > max(others) for others in rivals])
    forward, backward = np.array(hits).T
    return forward.mean(), backward.mean(), (forward & backward).mean()


def three(scores):
    return tuple(scores[key] for key in ("p1_forward", "p1_backward", "mexa"))


def test_retrieval_is_that_of_the_definition():
    sources, targets, _ = states()
    matrix = cosine_similarity(sources, targets)
    others = ~np.eye(60, dtype=bool)
    scores = retrieval(matrix)
    assert three(scores) == pytest.approx(by_loops(matrix, others, others))
    assert scores["mexa"] < min(scores["p1_forward"], scores["p1_backward"])
    assert scores["chance"] == pytest.approx(1 / 60)
    interval = stats.binomtest(round(60 * scores["mexa"]), 60)
    ends = scores["mexa_low"], scores["mexa_high"]
    assert ends == pytest.approx(interval.proportion_ci(method="wilson"))
    generator = np.random.default_rng(5)
    masks = generator.random((2, 60, 60)) < 0.2
    masks[:, np.arange(60), (np.arange(60) + 1) % 60] = True
    masks &= others
    found = three(retrieval(matrix, *masks))
    assert found == pytest.approx(by_loops(matrix, *masks))
    assert found != three(scores)


def test_identical_states_are_all_found_and_ties_are_not():
    vectors = unit_vectors(states()[0])
    assert three(retrieval(vectors @ vectors.T)) == (1, 1, 1)
    assert three(retrieval(np.ones((7, 7)))) == (0, 0, 0)


def test_random_similarities_are_found_by_chance():
    """An element is the largest of its row and column once in 2n - 1."""
    matrices = np.random.default_rng(0).random((400, 10, 10))
    found = np.mean([three(retrieval(matrix)) for matrix in matrices], axis=0)
    assert found == pytest.approx([1 / 10, 1 / 10, 1 / 19], abs=0.015)


def test_galleries_hold_the_nearest_of_a_voice():
    generator = np.random.default_rng(0)
    lengths = generator.integers(3, 20, 50)
    speakers = generator.choice(["a", "b", "c"], 50)
    galleries = matched_galleries(lengths, speakers, size=6, seed=1)
    for i, row in enumerate(galleries):
        assert not row[i]
        assert set(speakers[row]) == {speakers[i]}
        others = (speakers == speakers[i]) & (np.arange(50) != i)
        gaps = np.sort(np.abs(lengths[others] - lengths[i]))
        found = np.sort(np.abs(lengths[row] - lengths[i]))
        np.testing.assert_array_equal(found, gaps[:5])
    again = matched_galleries(lengths, speakers, size=6, seed=2)
    assert (again != galleries).any()


def test_small_galleries_have_their_own_chance():
    lengths, speakers = np.array([3, 3, 3]), ["a", "a", "b"]
    galleries = matched_galleries(lengths, speakers, size=3, seed=0)
    assert galleries.sum(axis=1).tolist() == [1, 1, 0]
    chance = retrieval(np.eye(3), galleries, galleries)["chance"]
    assert chance == pytest.approx((0.5 + 0.5 + 1) / 3)
