import itertools
from collections import Counter

import numpy as np
import pytest

from speechbrain_slm.models.ngram import UnitNgram

SIZE = 5


def sequences(count, seed):
    generator = np.random.default_rng(seed)
    return [
        generator.integers(0, SIZE, generator.integers(1, 9))
        for _ in range(count)
    ]


def from_the_definition(fitted, order, history, symbol):
    """Return p(symbol | history) of Witten and Bell, by counting tuples."""
    follows = Counter(
        tuple(one[end - length : end + 1].tolist())
        for one in fitted
        for length in range(order)
        for end in range(max(length, 1), len(one))
    )

    def p(history):
        shorter = p(history[1:]) if history else 1 / SIZE
        counts = [follows[(*history, other)] for other in range(SIZE)]
        if not (total := sum(counts)):
            return shorter
        types = np.count_nonzero(counts)
        count = follows[(*history, symbol)]
        return (count + types * shorter) / (total + types)

    return p(tuple(history)[len(history) - min(order - 1, len(history)) :])


# Of two sequences, some symbols stand at a beginning alone.
@pytest.mark.parametrize("count", [2, 12])
@pytest.mark.parametrize("order", [1, 2, 4, 12])
def test_equals_the_definition(order, count):
    fitted = sequences(count, seed=0)
    found = UnitNgram(fitted, order, SIZE).log_probs(sequences(6, seed=1))
    for logs, ids in zip(found, sequences(6, seed=1), strict=True):
        expected = [
            from_the_definition(fitted, order, ids[:end].tolist(), ids[end])
            for end in range(1, len(ids))
        ]
        np.testing.assert_allclose(np.exp(logs), expected, rtol=1e-12)


def test_the_probabilities_of_a_symbol_add_up_to_one():
    model = UnitNgram(sequences(12, seed=2), 3, SIZE)
    for history in itertools.product(range(SIZE), repeat=2):
        every = [np.array([*history, symbol]) for symbol in range(SIZE)]
        total = sum(np.exp(logs[-1]) for logs in model.log_probs(every))
        assert total == pytest.approx(1, rel=1e-12)
