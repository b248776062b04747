import hashlib
import resource
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from units_example import sha256, write_corpus, write_manifest

from speechbrain_slm.units import manifest
from speechbrain_slm.units import rows as rows_module
from speechbrain_slm.units.manifest import (
    content_identity,
    distinct_utterances,
    map_manifest,
    map_manifests,
    read_manifest,
    sample_utterances,
)
from speechbrain_slm.utils import scratch

LANGUAGES = ["en", "fr"]


def row(sentence=0, language="en", **changes):
    return {
        "story_id": "s",
        "sentence": sentence,
        "language": language,
        "speaker": "alto",
        "audio": f"{sentence}{language}.flac",
        "num_samples": 16000,
        "sample_rate": 16000,
        "sha256": sha256(f"{sentence}{language}"),
    } | changes


def read(path):
    """Check a manifest in both ways, which must agree on what they say."""
    outcomes = []
    for check in (
        lambda: read_manifest(path, LANGUAGES),
        lambda: map_manifest(path, LANGUAGES, path.parent / "copy.arrow"),
    ):
        try:
            outcomes.append(check())
        except (ValueError, FileNotFoundError) as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def read_rows(folder, rows):
    return read(write_manifest(folder / "train.parquet", rows))


def small_blocks(monkeypatch, size):
    monkeypatch.setattr(rows_module, "BLOCK", size)
    monkeypatch.setattr(scratch, "BLOCK", size)


def test_audio_paths_are_relative_to_the_manifest(tmp_path):
    table = read_rows(tmp_path, [row(), row(1, audio="/elsewhere/a.flac")])
    found = table["audio"].to_pylist()
    assert found == [f"{tmp_path}/0en.flac", "/elsewhere/a.flac"]


def test_copy_is_what_reading_gives(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "COPIED_ROWS", 7)
    path = write_corpus(tmp_path)
    whole = read(path)
    copy = map_manifest(path, LANGUAGES, tmp_path / "copy.arrow")
    assert copy["story_id"].num_chunks == 11
    # Stories need not be told in order.
    order = np.random.default_rng(0).permutation(len(whole))
    rows = whole.take(pa.array(order)).to_pylist()
    mixed = read_rows(tmp_path, rows)
    assert mixed["sha256"].to_pylist() == [row["sha256"] for row in rows]


def test_a_good_file_is_never_read_as_a_whole(tmp_path, monkeypatch):
    path = write_corpus(tmp_path)
    whole, other = read_manifest(path, LANGUAGES), tmp_path / "train.csv"
    pa.csv.write_csv(pa.parquet.read_table(path), other)
    monkeypatch.setattr(manifest, "read_manifest", None)
    for one in (path, other):
        copy = map_manifest(one, LANGUAGES, tmp_path / f"{one.suffix}.arrow")
        assert copy.equals(whole)
        assert len(copy) == 72


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([], "no rows"),
        ([{}, {}], "stand more than once"),
        ([{"sentence": 1}], "numbered from 1"),
        ([{"sentence": -1}, {}], "numbered from -1"),
        ([{}, {"sentence": 2}], "without a gap"),
        ([{}, {}, {"sentence": 2}], "stand more than once"),
        ([{}, {"sentence": 1}, {"language": "fr"}], "and 2 in another"),
        ([{}, {"language": "de"}], r"unknown language\(s\) de"),
        ([{"audio": ""}], "'audio' is empty"),
        ([{"story_id": None}], "'story_id' is empty"),
        ([{"num_samples": None}], "'num_samples' is empty"),
        *(
            ([{}, {"sentence": 1, "sha256": name}], f"1: sha256 is '{name}'")
            for name in ("0en", "A" * 64, "g" * 64, "0" * 65)
        ),
        *(
            ([{}, {"sentence": 1, name: value}], f"1: {name} is {value};.*flac")
            for name in ("num_samples", "sample_rate")
            for value in (0, -1)
        ),
    ],
)
def test_unusable_manifests_are_refused(tmp_path, changes, text):
    found = read_rows(tmp_path, [row() | one for one in changes])
    with pytest.raises(ValueError, match=text):
        raise ValueError(found)


def test_files_of_other_kinds_are_refused(tmp_path):
    other = tmp_path / "train.parquet"
    pa.parquet.write_table(pa.table({"a": [1]}), other)
    assert "column" in read(other)
    assert "does not exist" in read(tmp_path / "absent.parquet")
    other.write_bytes(b"PAR1")
    assert "train.parquet" in read(other)


def test_full_disk_is_told_at_once(tmp_path, monkeypatch):
    path = write_corpus(tmp_path)
    monkeypatch.setattr(manifest, "read_manifest", None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            map_manifest(path, LANGUAGES, tmp_path / "copy.arrow")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_splits_are_named_after_their_files(tmp_path):
    paths = [write_corpus(tmp_path / s, split=s) for s in ("train", "eval")]
    tables = map_manifests(paths, LANGUAGES, tmp_path / "copies")
    assert list(tables) == ["train", "eval"]
    for split, path in zip(tables, paths, strict=True):
        assert tables[split].equals(read_manifest(path, LANGUAGES))
    twin = tmp_path / "other" / "eval.csv"
    for wrong in ([], [*paths, twin]):
        with pytest.raises(ValueError, match="expected one file or more"):
            map_manifests(wrong, LANGUAGES, tmp_path / "copies")


def test_each_audio_is_listed_once_in_any_order_of_rows(tmp_path):
    table = read_manifest(write_corpus(tmp_path), LANGUAGES)
    table = pa.concat_tables([table, table.slice(5)])
    backwards = table.take(pa.array(range(len(table) - 1, -1, -1)))
    for one in (table, backwards):
        rows = distinct_utterances(one)["row"].astype(int)
        listed = one["sha256"].take(pa.array(rows)).to_pylist()
        assert listed == sorted(set(table["sha256"].to_pylist()))


def test_rows_that_disagree_on_an_audio_are_refused(tmp_path):
    rows = [row(), row(1, sha256=sha256("0en"), num_samples=5)]
    table = read_rows(tmp_path, rows)
    with pytest.raises(ValueError, match="num_samples as 5 and 16000"):
        distinct_utterances(table)


def test_sample_has_the_same_amount_of_each_language_and_speaker(
    tmp_path, monkeypatch
):
    rows = [
        row(0, language, speaker=speaker, sha256=sha256(name), story_id=name)
        for language in LANGUAGES
        for speaker, count in (("alto", 40), ("bass", 10))
        for name in (f"{language}{speaker}{n}" for n in range(count))
    ]
    table = read_rows(tmp_path, rows)
    drawn = sample_utterances(table, 20, seed=1)
    assert len({one["sha256"] for one in drawn}) == len(drawn) == 20
    strata = Counter((one["language"], one["speaker"]) for one in drawn)
    assert list(strata.values()) == [5] * 4
    assert sample_utterances(table, 20, seed=1) == drawn
    small_blocks(monkeypatch, 7)
    assert sample_utterances(table, 20, seed=1) == drawn
    assert sample_utterances(table, 20, seed=2) != drawn


def slow_identity(table, columns):
    """As defined: columns as lines of text."""
    digest = hashlib.sha256()
    for name in columns:
        text = "\n".join(map(str, table[name].to_pylist()))
        digest.update(f"{name}\n{len(table)}\n{text}\n".encode())
    return digest.hexdigest()


def test_identity_of_content_is_that_of_its_lines(monkeypatch):
    small_blocks(monkeypatch, 3)
    table = pa.table({"a": list("xyzxyzx"), "b": range(7)})
    for columns in (["a"], ["b", "a"]):
        whole = slow_identity(table, columns)
        assert content_identity(table, columns) == whole
        some = np.array([6, 0, 2, 3])
        part = slow_identity(table.take(pa.array(some)), columns)
        assert content_identity(table, columns, some) == part
