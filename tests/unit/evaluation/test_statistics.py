import numpy as np
import pytest
import scipy.stats
from scipy.stats import binomtest

from speechbrain_slm.evaluation.statistics import (
    bootstrap_interval,
    holm,
    mcnemar,
    paired_bootstrap,
    wilson_interval,
)


@pytest.mark.parametrize("n", [1, 7, 600, 1871])
def test_equals_scipy(n):
    for successes in {0, n // 3, n // 2, n}:
        expected = binomtest(successes, n).proportion_ci(0.95, "wilson")
        found = wilson_interval(successes, n)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert 0 <= found[0] <= found[1] <= 1


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


@pytest.mark.parametrize("distinct", [4, 150])
def test_bootstrap_equals_scipys(distinct):
    generator = np.random.default_rng(1)
    values = np.linspace(0, 1, distinct) if distinct > 4 else [0, 0.25, 0.5, 1]
    credits = generator.choice(values, 300)
    expected = scipy.stats.bootstrap(
        (credits,), np.mean, method="percentile", rng=generator
    ).confidence_interval
    np.testing.assert_allclose(
        bootstrap_interval(credits, seed=2), expected, atol=0.005
    )


@pytest.mark.parametrize("values", [[0, 0.5, 1], np.linspace(0, 1, 70)])
def test_bootstrap_knows_nothing_of_order_and_obeys_its_seed(values):
    credits = np.random.default_rng(0).choice(values, 101)
    found = bootstrap_interval(credits, seed=5)
    assert found == bootstrap_interval(np.sort(credits), seed=5)
    assert found == bootstrap_interval(list(credits), seed=5)
    ends = {bootstrap_interval(credits, seed) for seed in range(8)}
    assert len(ends) > 1


def test_mcnemar_equals_the_binomial_test():
    for better in range(0, 30):
        for worse in range(0, 12):
            first = np.repeat([1, 0, 1, 0], [better, worse, 3, 4])
            second = np.repeat([0, 1, 1, 0], [better, worse, 3, 4])
            counts = mcnemar(first, second)
            assert counts[:2] == (better, worse)
            n = better + worse
            expected = binomtest(better, n).pvalue if n else 1.0
            assert counts[2] == pytest.approx(expected, rel=1e-12)


def test_mcnemar_counts_a_half_credit_as_better_than_none():
    first = [0.5, 0.5, 1.0, 0.75, 0.3, 0.1 + 0.2]
    second = [0.0, 1.0, 0.5, 0.75, 0.3, 0.3]
    assert mcnemar(first, second) == (2, 1, 1.0)
    assert mcnemar(second, first) == (1, 2, 1.0)


def test_mcnemar_with_ties_errs_no_more_often_than_it_says():
    generator = np.random.default_rng(0)
    credits = generator.choice([0, 0.5, 1], (2000, 2, 80), p=[0.3, 0.3, 0.4])
    p = np.array([mcnemar(*pair)[2] for pair in credits])
    for level in (0.05, 0.2):
        assert 0.3 * level < np.mean(p <= level) <= level + 0.01


def test_paired_bootstrap_by_hand():
    # n = 3, one difference of 1: the mean is 0 with (2/3)^3 = 8/27.
    low, high, p = paired_bootstrap([1, 0, 1], [0, 0, 1], seed=0)
    assert (low, high) == (0.0, 1.0)
    assert p == pytest.approx(2 * 8 / 27, abs=0.02)
    # Never 0, however clear.
    low, high, p = paired_bootstrap(np.ones(9), np.zeros(9), seed=0)
    assert (low, high, p) == (1.0, 1.0, 2 / 10_001)


def test_paired_bootstrap_equals_scipys():
    generator = np.random.default_rng(4)
    first = generator.choice([0, 0.5, 1], 250, p=[0.3, 0.1, 0.6])
    second = np.where(generator.random(250) < 0.7, first, 1 - first)
    expected = scipy.stats.bootstrap(
        (first, second),
        lambda one, other, axis: (one - other).mean(axis),
        paired=True,
        method="percentile",
        rng=generator,
    ).confidence_interval
    low, high, p = paired_bootstrap(first, second, seed=1)
    np.testing.assert_allclose((low, high), expected, atol=0.006)
    assert (p < 0.05) == (low > 0 or high < 0)


def test_paired_bootstrap_turns_with_its_sides():
    generator = np.random.default_rng(0)
    for _ in range(5):
        first, second = generator.choice([0, 0.5, 1], (2, 120))
        low, high, p = paired_bootstrap(first, second, seed=7)
        assert low <= (first - second).mean() <= high
        other = paired_bootstrap(second, first, seed=7)
        np.testing.assert_allclose((-high, -low), other[:2], atol=0.02)
        # Two shares of 10,000 draws, doubled: 4 standard errors.
        assert p == pytest.approx(other[2], abs=0.06)


def test_holm_follows_its_definition():
    generator = np.random.default_rng(0)
    for size in (1, 2, 9):
        p = generator.random(size) ** 3
        found = holm(p.tolist())
        order = np.argsort(p)
        # From the definition: the largest (m - j) p_(j) so far.
        for rank, index in enumerate(order):
            steps = [(size - j) * p[order[j]] for j in range(rank + 1)]
            assert found[index] == pytest.approx(min(1, max(steps)))
        # Between no correction and Bonferroni's.
        assert (np.array(found) >= p).all()
        assert (np.array(found) <= np.minimum(1, size * p) + 1e-15).all()
    assert holm([]) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson_interval(0, 0), "expected at least one item"),
        (lambda: wilson_interval(2, 1), "expected at least one item"),
        (lambda: wilson_interval(-1, 3), "expected at least one item"),
        (lambda: bootstrap_interval([], 0), "at least one group"),
        (lambda: bootstrap_interval([0.5, np.nan], 0), "one finite number"),
        (lambda: mcnemar([1, 0], [1]), "2 and 1 credits"),
        (lambda: paired_bootstrap([1], [1, 1], 0), "1 and 2 credits"),
        (lambda: mcnemar([1, np.inf], [1, 0]), "one finite number"),
    ],
)
def test_refuses_what_cannot_be_tested(call, message):
    with pytest.raises(ValueError, match=message):
        call()
