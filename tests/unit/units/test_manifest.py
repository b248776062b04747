import hashlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from units_example import write_corpus, write_manifest

from speechbrain_slm.units import rows as rows_module
from speechbrain_slm.units.manifest import (
    content_identity,
    distinct_utterances,
    read_manifest,
    sample_utterances,
)
from speechbrain_slm.units.mapping import map_manifest
from speechbrain_slm.utils import scratch


def sha256(name):
    return hashlib.sha256(name.encode()).hexdigest()


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


def read(folder, rows, languages=("en", "fr")):
    path = write_manifest(folder / "train.parquet", rows)
    return read_manifest(path, languages)


def test_audio_paths_are_relative_to_the_manifest(tmp_path):
    table = read(tmp_path, [row(), row(1, audio="/elsewhere/a.flac")])
    assert table["audio"].to_pylist() == [
        f"{tmp_path}/0en.flac",
        "/elsewhere/a.flac",
    ]


def test_a_csv_file_does_as_well(tmp_path):
    lines = [row(), row(1)]
    text = [",".join(lines[0])]
    text += [",".join(map(str, line.values())) for line in lines]
    (tmp_path / "train.csv").write_text("\n".join(text))
    table = read_manifest(tmp_path / "train.csv", ["en"])
    assert table.equals(read(tmp_path, lines))


def test_unusable_manifests_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no row"):
        read(tmp_path, [])
    with pytest.raises(ValueError, match=r"unknown language\(s\) fr"):
        read(tmp_path, [row(), row(language="fr")], ["en"])
    with pytest.raises(ValueError, match="another"):
        read(tmp_path, [row(), row(1), row(language="fr")])


@pytest.mark.parametrize("name", ["0en", "A" * 64, "g" * 64, "0" * 65])
def test_what_is_no_sha256_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"row 1: sha256 is '{name}'"):
        read(tmp_path, [row(), row(1, sha256=name)])


def test_each_audio_is_listed_once_in_any_order_of_rows(tmp_path):
    table = read_manifest(write_corpus(tmp_path), ["en", "fr"])
    table = pa.concat_tables([table, table.slice(5)])
    backwards = table.take(pa.array(range(len(table) - 1, -1, -1)))
    for one in (table, backwards):
        rows = distinct_utterances(one)["row"].astype(int)
        listed = one["sha256"].take(pa.array(rows)).to_pylist()
        assert listed == sorted(set(table["sha256"].to_pylist()))


def test_rows_that_disagree_on_an_audio_are_refused(tmp_path):
    table = read(tmp_path, [row(), row(1, sha256=sha256("0en"), num_samples=5)])
    with pytest.raises(ValueError, match="num_samples as 5 and 16000"):
        distinct_utterances(table)


def test_sample_has_the_same_amount_of_each_language_and_speaker(
    tmp_path, monkeypatch
):
    rows = [
        row(0, language, story_id=f"{language}{number}", speaker=speaker)
        | {"sha256": sha256(f"{language}{speaker}{number}")}
        for language in ("en", "fr")
        for speaker, count in (("alto", 40), ("bass", 10))
        for number in range(count)
    ]
    for number, one in enumerate(rows):
        one["story_id"] = f"s{number}"
    table = read(tmp_path, rows)
    drawn = sample_utterances(table, 20, seed=1)
    assert len({one["sha256"] for one in drawn}) == len(drawn) == 20
    strata = Counter((one["language"], one["speaker"]) for one in drawn)
    assert set(strata.values()) == {5}
    assert len(strata) == 4
    assert sample_utterances(table, 20, seed=1) == drawn
    monkeypatch.setattr(rows_module, "BLOCK", 7)
    monkeypatch.setattr(scratch, "BLOCK", 7)
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
    monkeypatch.setattr(rows_module, "BLOCK", 3)
    monkeypatch.setattr(scratch, "BLOCK", 3)
    table = pa.table({"a": list("xyzxyzx"), "b": range(7)})
    for columns in (["a"], ["b", "a"]):
        whole = slow_identity(table, columns)
        assert content_identity(table, columns) == whole
        some = np.array([6, 0, 2, 3])
        part = slow_identity(table.take(pa.array(some)), columns)
        assert content_identity(table, columns, some) == part


@pytest.mark.parametrize("name", ["num_samples", "sample_rate"])
@pytest.mark.parametrize("value", [0, -1])
def test_counts_of_less_than_one_are_refused_by_name(tmp_path, name, value):
    rows = [row(), row(1, **{name: value})]
    with pytest.raises(ValueError, match=rf"row 1: {name} is {value};.*1en"):
        read(tmp_path, rows)
    path, copy = tmp_path / "train.parquet", tmp_path / "copy.arrow"
    with pytest.raises(ValueError, match=f"row 1: {name} is {value}"):
        map_manifest(path, ["en", "fr"], copy)
