import pyarrow as pa
import pytest
from units_example import write_corpus, write_manifest

from speechbrain_slm.units.manifest import (
    distinct_utterances,
    read_manifest,
    sample_utterances,
)


def row(sentence=0, language="en", **changes):
    return {
        "story_id": "s",
        "sentence": sentence,
        "language": language,
        "speaker": "alto",
        "audio": f"{sentence}{language}.flac",
        "num_samples": 16000,
        "sample_rate": 16000,
        "sha256": f"{sentence}{language}",
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
    with pytest.raises(ValueError, match=r"'en' \('alto', 'bass'\)"):
        read(tmp_path, [row(), row(1, speaker="bass")])


def test_each_audio_is_listed_once_in_any_order_of_rows(tmp_path):
    table = read_manifest(write_corpus(tmp_path), ["en", "fr"])
    listed = distinct_utterances([table, table.slice(5)])
    assert listed["sha256"].to_pylist() == sorted(
        set(listed["sha256"].to_pylist())
    )
    assert set(listed["sha256"].to_pylist()) == set(table["sha256"].to_pylist())
    backwards = table.take(pa.array(range(len(table) - 1, -1, -1)))
    assert distinct_utterances([backwards]).equals(listed)


def test_rows_that_disagree_on_an_audio_are_refused(tmp_path):
    table = read(tmp_path, [row(), row(1, sha256="0en", num_samples=5)])
    with pytest.raises(ValueError, match="num_samples as 5 and 16000"):
        distinct_utterances([table])


def test_sample_has_the_same_amount_of_each_language_and_speaker(tmp_path):
    rows = [
        row(0, language, story_id=f"{language}{number}", speaker=speaker)
        | {"sha256": f"{language}{speaker}{number}"}
        for language in ("en", "fr")
        for speaker, count in (("alto", 40), ("bass", 10))
        for number in range(count)
    ]
    for number, one in enumerate(rows):
        one["story_id"] = f"s{number}"
    table = read(tmp_path, rows)
    drawn = [one["sha256"] for one in sample_utterances(table, 20, seed=1)]
    assert len(set(drawn)) == len(drawn) == 20
    for stratum in ("enalto", "enbass", "fralto", "frbass"):
        assert sum(name.startswith(stratum) for name in drawn) == 5
    again = [one["sha256"] for one in sample_utterances(table, 20, seed=1)]
    other = [one["sha256"] for one in sample_utterances(table, 20, seed=2)]
    assert again == drawn != other
