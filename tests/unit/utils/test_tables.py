"""Tables are checked where they are read, and errors name the file."""

import re

import pyarrow as pa
import pytest

from speechbrain_slm.utils.files import HeldFile
from speechbrain_slm.utils.tables import (
    ITEMS,
    ITEMS_KEY,
    MANIFEST,
    MANIFEST_KEY,
    check_matched,
    read_table,
    write_table,
)


def rows(count=3, **last):
    """Return manifest rows, the last one's values replaced by ``last``."""
    table = [
        dict(zip(MANIFEST.names, row, strict=True))
        for n in range(count)
        for row in [("s", n, "en", "alto", f"{n}.flac", 800, 16000, f"{n}")]
    ]
    table[-1].update(last)
    return table


def write_csv(path, table):
    lines = [",".join(table[0])]
    lines += [",".join(map(str, row.values())) for row in table]
    path.write_text("\n".join(lines) + "\n")


def refused(path, message):
    """Expect an error that names the file and says what is wrong."""
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path, MANIFEST, MANIFEST_KEY)
    assert str(path) in str(caught.value)


def test_csv_and_parquet_give_the_same_table(tmp_path):
    table = pa.Table.from_pylist(rows(), schema=MANIFEST)
    write_table(tmp_path / "a.parquet", table)
    write_csv(tmp_path / "a.csv", rows())
    for name in ("a.parquet", "a.csv"):
        found = read_table(tmp_path / name, MANIFEST, MANIFEST_KEY)
        assert found.equals(table)


@pytest.mark.parametrize("field", MANIFEST, ids=MANIFEST.names)
def test_a_hole_is_named(tmp_path, field):
    message = f"row 2: column '{field.name}' is empty"
    path = tmp_path / "a.parquet"
    holes = [None, ""] if field.type == pa.string() else [None]
    for hole in holes:
        table = rows(**{field.name: hole})
        write_table(path, pa.Table.from_pylist(table))
        refused(path, message)
    if "" in holes:
        write_csv(tmp_path / "a.csv", table)
        refused(tmp_path / "a.csv", message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1], [2], [3]], "should be int64"),
        (["1", "2", "x"], "should be int64.*'x'"),
        ([0.5, 1.0, 2.0], "should be int64.*0.5"),
    ],
)
def test_a_column_of_a_wrong_type(tmp_path, values, message):
    table = pa.Table.from_pylist(rows()).drop_columns("num_samples")
    table = table.append_column("num_samples", pa.array(values))
    write_table(tmp_path / "a.parquet", table)
    refused(tmp_path / "a.parquet", f"'num_samples' {message}")
    write_csv(tmp_path / "a.csv", rows(num_samples="many"))
    refused(tmp_path / "a.csv", "'num_samples' should be int64.*'many'")


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_damaged_file(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "csv":
        write_csv(path, rows())
    else:
        write_table(path, pa.Table.from_pylist(rows(), schema=MANIFEST))
    content = path.read_bytes()
    for damage in (b"", content[: len(content) - 5] + b"\xff,", b"\0" * 99):
        path.write_bytes(damage)
        refused(path, re.escape(str(path)))
    if suffix == "parquet":
        # The footer is whole, a page is not.
        path.write_bytes(content[:4] + b"\xff" * 40 + content[44:])
        refused(path, "cannot be read as Parquet")


def test_keys_twice_and_columns_and_files_that_are_not_there(tmp_path):
    write_csv(tmp_path / "a.csv", rows(sentence=1))
    message = "1 key.s. stand more than once, first .*'sentence': 1"
    refused(tmp_path / "a.csv", message)
    with pytest.raises(ValueError, match=r"missing column\(s\) item_id, "):
        read_table(tmp_path / "a.csv", ITEMS, ITEMS_KEY)
    (tmp_path / "a.csv").rename(tmp_path / "a.txt")
    refused(tmp_path / "a.txt", r"expected a \.parquet or a \.csv file")
    with pytest.raises(FileNotFoundError, match=r"b\.csv does not exist"):
        read_table(tmp_path / "b.csv", MANIFEST, MANIFEST_KEY)


def test_an_empty_manifest_is_refused():
    empty = pa.Table.from_pylist([], schema=MANIFEST)
    with pytest.raises(ValueError, match=r"a.csv: no rows; expected"):
        check_matched("a.csv", empty, ["en"])


def test_a_file_is_replaced_while_it_is_opened(tmp_path, monkeypatch):
    path, new = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"one")
    new.write_bytes(b"two")
    as_always = pa.OSFile
    with HeldFile(path, "anything") as held:
        assert held.file.read() == b"one"

    def replaced(name):
        new.replace(path)
        return as_always(name)

    # Its hash would be of one file, and its rows of the other.
    monkeypatch.setattr(pa, "OSFile", replaced)
    with pytest.raises(ValueError, match="was replaced while it was read"):
        HeldFile(path, "anything")
