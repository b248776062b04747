"""Tables that users bring: what a file is, and what its rows hold."""

import csv
import json
import os
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speechbrain_slm.utils.columns import CSV_BLOCK, open_csv
from speechbrain_slm.utils.files import as_stored, check_file, files_in
from speechbrain_slm.utils.tables import read_table
from speechbrain_slm.utils.user_tables import SUFFIXES, as_text, iterate_rows

ROWS = [
    {"id": "01", "n": "1", "text": "Zoë\nsaid:\t“no”"},
    {"id": "1", "n": "2", "text": ""},
]
SCHEMA = pa.schema([("id", pa.string())])


def write(path, rows=ROWS):
    """Write a table in the format that its name says."""
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        with open(path, "w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, delimiter=mark)
            writer.writerows([rows[0].keys(), *(r.values() for r in rows)])
    return path


def read(path, columns=("id", "text")):
    return [row.values for row in iterate_rows(path, columns)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_rows_as_text(tmp_path, suffix):
    rows = ROWS
    if suffix == ".tsv":
        rows = [{**row, "text": row["text"][:3]} for row in ROWS]
    expected = [{key: row[key] for key in ("id", "text")} for row in rows]
    assert read(write(tmp_path / f"a{suffix}", rows)) == expected
    if suffix == ".arrow":
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(tmp_path / "b.arrow", table.schema) as writer:
            writer.write_table(table)
        assert read(tmp_path / "b.arrow") == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_column_is_named(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", [{"id": "a", "n": "1"}])
    with pytest.raises(ValueError, match=r"missing column\(s\) text; found id"):
        read(path)


def test_text_is_text_whatever_it_looks_like():
    values = ["01", 1, 10**12, "1.0", None]
    expected = ["01", "1", "1000000000000", "1.0", ""]
    assert list(map(as_text, values)) == expected
    for other in (1.0, True, ["a"], b"a", "\ud800"):
        with pytest.raises(ValueError, match="expected text"):
            as_text(other)


def test_a_line_that_is_no_row_costs_that_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"id": 1}\n{"id": \n\n[2]\n{"text": {"a": 1}, "id": "2a"}\n'
    )
    rows = list(iterate_rows(path, ["id", "text"]))
    assert [row.number for row in rows] == [0, 1, 2, 3]
    assert [bool(row.fault) for row in rows] == [False, True, True, False]
    assert rows[3].values == {"id": "2a", "text": {"a": 1}}
    (tmp_path / "a.tsv").write_text("id\ttext\n1\ta\n2\n3\tb\tc\n")
    rows = list(iterate_rows(tmp_path / "a.tsv", ["id", "text"]))
    faults = ["", "found 1 fields", "found 3 fields"]
    assert [row.fault[:14] for row in rows] == faults
    path.write_text("[1]\n" * 5)
    with pytest.raises(ValueError, match="none of the first 5 lines is a row"):
        read(path)


def test_quotation_marks_of_a_tsv(tmp_path):
    said = ['"Stop," she said.', '"Stop."', 'It is 5" long.', "Stop."]
    path = tmp_path / "a.tsv"
    path.write_text("id\ttext\n" + "".join(f"1\t{text}\n" for text in said))
    assert [row["text"] for row in read(path)] == said
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", quoting=quoting)
            writer.writerows([["id", "text"], *(["1", text] for text in said)])
        assert [row["text"] for row in read(path)] == said


def test_line_ends_in_a_csv_of_any_size(tmp_path):
    path, text = tmp_path / "a.csv", "a line\n" * 700
    count = CSV_BLOCK // len(text) + 100
    write(path, [{"id": str(n), "text": text} for n in range(count)])
    assert path.stat().st_size > CSV_BLOCK
    table = read_table(path, SCHEMA, ["id"])
    assert table["text"].to_pylist() == [text] * count
    assert [row["text"] for row in read(path)] == [text] * count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('id,text\n1,"a\n2,b\n', r"a\.csv, line 3: .*quotation mark"),
        # As spreadsheets write where the comma is the decimal point.
        ("id;text\n1;a\n", "seem to be separated by ';'"),
        ("id,text,id\n1,a,2\n", "column id stands twice"),
    ],
)
def test_a_csv_that_is_none_is_told(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.csv")


def test_columns_of_a_typed_table_are_not_guessed(tmp_path):
    csv_file, parquet = tmp_path / "a.csv", tmp_path / "a.parquet"
    csv_file.write_text("id,group,speaker\n01,01,1089\n1,1,\n")
    columns = {"id": [1, 2], "group": [0, None], "speaker": ["1089", ""]}
    pq.write_table(pa.table(columns), parquet)
    for path, ids, groups in (
        (csv_file, ["01", "1"], ["01", "1"]),
        (parquet, ["1", "2"], ["0", ""]),
    ):
        table = read_table(path, SCHEMA, ["id"], optional=["group", "speaker"])
        expected = {"id": ids, "group": groups, "speaker": ["1089", ""]}
        assert table.to_pydict() == expected
    pq.write_table(pa.table({"id": [1.0, 2.0]}), parquet)
    with pytest.raises(ValueError, match="'id' should be text"):
        read_table(parquet, SCHEMA, ["id"])


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "cp1252", "utf-32"]
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_another_encoding_is_told(tmp_path, encoding, suffix):
    path = write(tmp_path / f"a{suffix}")
    text = path.read_text(encoding="utf-8-sig").replace("“no”", "")
    if suffix == ".jsonl":
        text = '{"id": "ë", "text": ""}\n'
    path.write_bytes(text.encode(encoding))
    message = rf"a\{suffix}: expected text in UTF-8"
    with pytest.raises(ValueError, match=message):
        read(path)
    if suffix == ".csv":
        with pytest.raises(ValueError, match=message), open_csv(path) as reader:
            reader.read_all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"/annex/objects/SHA256E-s1--0.csv\n", "git annex get"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04", "zip"),
        (None, "may be half a file"),
    ],
)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_what_is_no_table_is_said(tmp_path, content, message, suffix):
    path = write(tmp_path / f"a{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match=rf"a\{suffix} .*{message}"):
        read(path)


def test_what_gives_nothing_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    for call in (read, lambda path: read_table(path, SCHEMA, ["id"])):
        with pytest.raises(ValueError, match="is a pipe"):
            call(tmp_path / "a.csv")
    # The system makes up files that wait until something happens.
    with pytest.raises(ValueError, match="is empty"):
        check_file("/proc/self/status", "a table")


def test_hidden_files_of_a_folder_are_not_listed(tmp_path):
    hidden = "._a.csv .ipynb_checkpoints/a.csv __MACOSX/a.csv ~$a.csv Thumbs.db"
    for name in ("a.csv", "b/c.csv", *hidden.split()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    names = [str(p.relative_to(tmp_path)) for p in files_in(tmp_path)]
    assert names == ["a.csv", "b/c.csv"]
    assert len(files_in(tmp_path, deep=False)) == 1


def test_a_name_in_another_unicode_form_is_found(tmp_path):
    there = tmp_path / unicodedata.normalize("NFD", "Zoë") / "é.csv"
    there.parent.mkdir()
    there.write_text("x")
    wanted = tmp_path / "Zoë" / unicodedata.normalize("NFD", "é.csv")
    assert as_stored(wanted) == there == check_file(wanted, "a table")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_file(tmp_path / ("x" * 300), "a table")
