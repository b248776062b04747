import hashlib

import numpy as np
import pyarrow as pa
import pytest

from speechbrain_slm.units import rows
from speechbrain_slm.units.rows import KeyIndex, keys
from speechbrain_slm.utils import scratch


def table(count, repeats=1, chunks=3):
    """Make rows whose keys stand ``repeats`` times each, mixed."""
    names = [
        hashlib.sha256(str(number // repeats).encode()).hexdigest()
        for number in range(count)
    ]
    order = np.random.default_rng(0).permutation(count)
    whole = pa.table(
        {
            "sha256": [names[number] for number in order],
            "language": ["en"] * count,
            "num_samples": pa.array([5] * count, pa.int64()),
            "sample_rate": pa.array([7] * count, pa.int32()),
        }
    )
    size = -(-count // chunks)
    return pa.concat_tables(
        whole.slice(start, size) for start in range(0, count, size)
    )


@pytest.mark.parametrize("repeats", [1, 3])
def test_index_is_in_the_order_of_sha256(monkeypatch, repeats):
    monkeypatch.setattr(rows, "BLOCK", 7)
    monkeypatch.setattr(scratch, "BLOCK", 7)
    whole = table(60, repeats)
    index = KeyIndex(whole)
    every = whole["sha256"].to_pylist()
    assert [every[row] for row in index.records["row"]] == sorted(every)
    first = index.first()["row"]
    assert [every[row] for row in first] == sorted(set(every))
    # The first of each in the table's own order.
    assert all(every.index(every[row]) == row for row in first)
    wanted = keys(whole.combine_chunks().to_batches()[0])
    found = index.find(wanted)
    assert [every[row] for row in found] == every
    assert set(found) == set(first)


@pytest.mark.parametrize(
    "changes", [{"language": "fr"}, {"num_samples": 6}, {"sample_rate": 8}]
)
def test_everything_that_decides_the_units_is_in_the_key(changes):
    whole = table(20)
    other = [row | changes for row in whole.to_pylist()]
    batch = pa.RecordBatch.from_pylist(other, schema=whole.schema)
    assert (KeyIndex(whole).find(keys(batch)) == -1).all()
    assert (KeyIndex(whole.slice(0, 0)).find(keys(batch)) == -1).all()
