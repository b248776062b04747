import numpy as np
import pytest
from scipy.stats import binomtest

from speechbrain_slm.evaluation.statistics import wilson_interval


@pytest.mark.parametrize("n", [1, 7, 600, 1871])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_equals_scipy(n, confidence):
    for successes in {0, n // 3, n // 2, n}:
        expected = binomtest(successes, n).proportion_ci(confidence, "wilson")
        found = wilson_interval(successes, n, confidence)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_stays_inside_zero_and_one():
    for n in range(1, 40):
        assert wilson_interval(0, n)[0] == 0.0
        assert wilson_interval(n, n)[1] == 1.0


def test_ties_are_covered():
    # Items of which a third ties: the interval holds the true mean at least
    # as often as it promises.
    generator = np.random.default_rng(0)
    credits = generator.choice(
        [0, 0.5, 1], (1000, 200), p=[0.3, 1 / 3, 11 / 30]
    )
    mean = 0.5 / 3 + 11 / 30
    ends = [wilson_interval(total, 200) for total in credits.sum(axis=1)]
    assert np.mean([low <= mean <= high for low, high in ends]) >= 0.95


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (2, 1), (-1, 3)])
def test_refuses_what_is_no_proportion(successes, n):
    with pytest.raises(ValueError, match="expected at least one item"):
        wilson_interval(successes, n)


def test_refuses_a_confidence_in_percent():
    with pytest.raises(ValueError, match="confidence is 95"):
        wilson_interval(1, 2, confidence=95)
