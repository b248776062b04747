"""Numbers that are out of range, or none."""

import math

import numpy as np
import pytest

from speechbrain_slm.utils.numbers import check_number


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (0, {"at_least": 0}),
        (1, {"at_most": 1}),
        (1e-9, {"above": 0}),
        (np.float32(0.5), {"below": 1}),
        (np.int64(3), {"whole": True, "at_least": 3}),
        (10**400, {"whole": True}),
    ],
)
def test_in_range(value, bounds):
    check_number("n", value, **bounds)


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (-1, {"at_least": 0}, "n is -1; expected a number of at least 0"),
        (0, {"above": 0}, "n is 0; expected a number above 0"),
        (1, {"above": 0, "below": 1}, "above 0 and below 1"),
        (2, {"at_least": 0, "at_most": 1}, "of at least 0 and at most 1"),
        (2.0, {"whole": True}, "n is 2.0; expected an integer"),
        (True, {}, "n is True; expected a number"),
        ("1", {}, "n is '1'"),
        (None, {}, "n is None"),
        ([1], {"above": 0}, r"n is \[1\]"),
        (math.nan, {}, "n is nan"),
        (math.inf, {"at_least": 0}, "n is inf"),
        (-math.inf, {"at_most": 0}, "n is -inf"),
    ],
)
def test_out_of_range(value, bounds, message):
    with pytest.raises(ValueError, match=message):
        check_number("n", value, **bounds)
