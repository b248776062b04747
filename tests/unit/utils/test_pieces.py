"""A piece that was damaged is told from a whole one, wherever the damage is."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speechbrain_slm.utils.pieces import (
    DamagedPiece,
    find_piece,
    read_piece,
    write_piece,
)

TABLE = pa.table({"name": ["a", None, "é"], "count": [1, 2, None]})
FACTS = {"identity": "x", "ledger": [{"reason": "silence"}]}


def test_a_whole_piece_is_read(tmp_path):
    write_piece(tmp_path / "a.parquet", TABLE, FACTS)
    table, facts = read_piece(tmp_path / "a.parquet", ["count"])
    assert table.equals(TABLE.select(["count"]))
    assert facts == FACTS
    assert find_piece(tmp_path / "b.parquet") is None


def test_any_byte_that_changed_is_found(tmp_path):
    path = tmp_path / "a.parquet"
    write_piece(path, TABLE, FACTS)
    content = path.read_bytes()
    generator = random.Random(0)
    for place in generator.sample(range(len(content)), 60):
        damaged = bytearray(content)
        damaged[place] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(DamagedPiece, match=r"a\.parquet is damaged"):
            read_piece(path)
    path.write_bytes(content[:-9])
    assert find_piece(path) is None


def test_a_table_that_carries_no_sum_is_no_piece(tmp_path):
    pq.write_table(TABLE, tmp_path / "a.parquet")
    assert find_piece(tmp_path / "a.parquet") is None
