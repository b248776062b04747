"""Best-fit packing of lengths."""

import numpy as np
import pytest

from speechbrain_slm.dataio.best_fit import best_fit


@pytest.mark.parametrize("row_length", [8, 100, 1024])
@pytest.mark.parametrize("number", [1, 3, 500])
def test_rows_are_never_overfull_nor_empty(row_length, number):
    generator = np.random.default_rng(row_length + number)
    lengths = generator.integers(1, row_length + 1, number)
    rows = best_fit(lengths, row_length)
    loads = np.bincount(rows, lengths)
    assert loads.max() <= row_length
    assert loads.min() > 0
    # Two rows that are at most half full would have been one.
    assert (loads <= row_length // 2).sum() <= 1


@pytest.mark.parametrize(
    ("lengths", "row_length", "rows"),
    [
        ([8, 8], 8, 2),
        ([4] * 6, 8, 3),
        ([3] * 5, 8, 3),
        ([5, 3, 4, 2, 2], 8, 2),
        ([1] * 9, 8, 2),
        ([6, 5, 3, 2], 8, 2),
    ],
)
def test_small_cases(lengths, row_length, rows):
    found = best_fit(np.array(lengths), row_length)
    assert found.max() + 1 == rows
    assert np.bincount(found, lengths).max() <= row_length


@pytest.mark.parametrize("row_length", [1024, 2048])
def test_padding_of_story_lengths(row_length):
    generator = np.random.default_rng(0)
    lengths = generator.lognormal(np.log(401) - 0.35**2 / 2, 0.35, 100_000)
    lengths = np.clip(lengths.astype(int), 1, row_length)
    rows = best_fit(lengths, row_length)
    padding = 1 - lengths.sum() / (row_length * (rows.max() + 1))
    assert padding < 0.01
