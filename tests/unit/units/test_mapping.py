import hashlib
import resource

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from units_example import write_corpus, write_manifest

from speechbrain_slm.units import mapping
from speechbrain_slm.units.manifest import read_manifest
from speechbrain_slm.units.mapping import map_manifest, map_manifests

ROW = {
    "story_id": "s",
    "sentence": 0,
    "language": "en",
    "speaker": "alto",
    "audio": "0.flac",
    "num_samples": 16000,
    "sample_rate": 16000,
    "sha256": hashlib.sha256(b"").hexdigest(),
}


def both(path, folder):
    """Check a manifest in both ways; return the tables or the messages."""
    outcomes = []
    for read in (
        lambda: read_manifest(path, ["en", "fr"]),
        lambda: map_manifest(path, ["en", "fr"], folder / "copy.arrow"),
    ):
        try:
            outcomes.append(read())
        except (ValueError, FileNotFoundError) as error:
            outcomes.append(str(error))
    return outcomes


def test_copy_is_what_reading_gives(tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "COPIED_ROWS", 7)
    path = write_corpus(tmp_path)
    whole, copy = both(path, tmp_path)
    assert copy.equals(whole)
    assert copy["story_id"].num_chunks == 11
    # Stories need not be told in order.
    order = np.random.default_rng(0).permutation(len(whole))
    rows = whole.take(pa.array(order)).to_pylist()
    whole, copy = both(write_manifest(path, rows), tmp_path)
    assert copy.equals(whole)
    assert copy["sha256"].to_pylist() == [row["sha256"] for row in rows]


def test_a_good_file_is_never_read_as_a_whole(tmp_path, monkeypatch):
    path = write_corpus(tmp_path)
    table = pa.parquet.read_table(path)
    pa.csv.write_csv(table, tmp_path / "train.csv")
    monkeypatch.setattr(mapping, "read_manifest", None)
    copy = map_manifest(path, ["en", "fr"], tmp_path / "copy.arrow")
    assert len(copy) == len(table) == 72
    other = tmp_path / "train.csv"
    assert copy == map_manifest(other, ["en", "fr"], tmp_path / "csv.arrow")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{}, {}],
        [{"sentence": 1}],
        [{"sentence": -1}, {"sentence": 0}],
        [{}, {"sentence": 2}],
        [{}, {"sentence": 1}, {"language": "fr"}],
        [{"language": "de"}],
        [{}, {}, {"sentence": 2}],
        [{"sha256": "0"}],
        [{"audio": ""}],
        [{"story_id": None}],
        [{"num_samples": None}],
    ],
)
def test_what_is_wrong_is_told_as_by_reading(tmp_path, rows):
    rows = [ROW | changes for changes in rows]
    path = write_manifest(tmp_path / "train.parquet", rows)
    whole, copy = both(path, tmp_path)
    assert isinstance(whole, str)
    assert copy == whole


def test_files_of_other_kinds(tmp_path):
    # Another table, a torn file, none, and a CSV file, which is no fault.
    other = tmp_path / "train.parquet"
    pa.parquet.write_table(pa.table({"a": [1]}), other)
    for path in (other, tmp_path / "absent.parquet"):
        whole, copy = both(path, tmp_path)
        assert isinstance(whole, str)
        assert copy == whole
    other.write_bytes(b"PAR1")
    whole, copy = both(other, tmp_path)
    assert isinstance(whole, str)
    assert copy == whole
    lines = [",".join(ROW), ",".join(map(str, ROW.values()))]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    whole, copy = both(tmp_path / "train.csv", tmp_path)
    assert copy.equals(whole)
    assert len(whole) == 1


def test_full_disk_is_told_at_once(tmp_path, monkeypatch):
    path = write_corpus(tmp_path)
    monkeypatch.setattr(mapping, "read_manifest", None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            map_manifest(path, ["en", "fr"], tmp_path / "copy.arrow")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_splits_are_named_after_their_files(tmp_path):
    paths = [write_corpus(tmp_path / s, split=s) for s in ("train", "eval")]
    tables = map_manifests(paths, ["en", "fr"], tmp_path / "copies")
    assert list(tables) == ["train", "eval"]
    for split, path in zip(tables, paths, strict=True):
        assert tables[split].equals(read_manifest(path, ["en", "fr"]))
    twin = tmp_path / "other" / "eval.csv"
    for wrong in ([], [*paths, twin]):
        with pytest.raises(ValueError, match="expected one file or more"):
            map_manifests(wrong, ["en", "fr"], tmp_path / "copies")
