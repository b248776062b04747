"""Checks 1, 2, 3 and 5 (the store's side): extraction that can be trusted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from processes import ROOT, command, run, start, wait_until
from units_example import (
    RATE,
    LoudnessTokenizer,
    clip,
    digests,
    entry,
    extract,
    results,
    write_corpus,
    write_manifest,
)

from speechbrain_slm.utils.jobs import FolderInUse, lock_folder
from speechbrain_slm.utils.ledger import LEDGER, NOTHING_LEFT, TooManyLeftOut
from speechbrain_slm.utils.store_format import read_info, read_tables


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def recipe(data, output, ranks=1, **overrides):
    folder = ROOT / "recipes" / "TinyStories" / "units"
    settings = {
        "units": "{num_clusters: 8}",
        "bpe": "{vocabulary_size: 30}",
        "stories_per_shard": 5,
        "data_folder": data,
        "output_folder": output,
    }
    script, yaml_file = folder / "train.py", folder / "hparams" / "mini.yaml"
    return command(script, yaml_file, ranks, **settings | overrides)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Three splits, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("splits")
    for split in ("train", "valid", "cloze"):
        write_corpus(folder, split=split)
    code, output = run(recipe(folder, folder / "whole"))
    assert code == 0, output
    return folder


def test_pieces_that_cannot_be_are_told_before_anything_is_encoded(
    splits, tmp_path
):
    code, output = run(recipe(splits, tmp_path, bpe="{vocabulary_size: 5}"))
    assert code == 1, output
    assert "vocabulary_size is 5; expected more than the 8 units" in output
    assert not utterances(tmp_path)


def utterances(folder):
    return set(folder.rglob("utterances-*.arrow"))


def stores(folder):
    return {
        name: digest
        for name, digest in results(folder).items()
        if name.startswith(("train/", "valid/", "cloze/", "tokenizer/"))
        or name == LEDGER
    }


def test_two_ranks_then_one(splits, tmp_path):
    """A killed run of two ranks goes on with one, in other shards."""
    extraction = "{utterances_per_shard: %d, batch_seconds: 1}"
    process = start(recipe(splits, tmp_path, 2, extraction=extraction % 3))
    wait_until(lambda: len(utterances(tmp_path)) > 3, process)
    # Its ranks have sessions of their own; torchrun takes them along.
    process.terminate()
    process.communicate()
    files = utterances(tmp_path)
    code, output = run(recipe(splits, tmp_path, extraction=extraction % 40))
    assert code == 0, output
    assert files <= utterances(tmp_path)
    assert stores(tmp_path) == stores(splits / "whole")


def test_array_jobs_at_the_same_time_then_a_run_that_assembles(
    splits, tmp_path
):
    both = {"units_folder": tmp_path, "num_jobs": 2}
    jobs = [
        start(recipe(splits, tmp_path / f"job-{job}", job=job, **both))
        for job in range(2)
    ]
    for job in jobs:
        output, _ = job.communicate(timeout=120)
        assert job.returncode == 0, output
    assert not (tmp_path / "train").exists()
    assert len(files := utterances(tmp_path)) == 2
    code, output = run(recipe(splits, tmp_path))
    assert code == 0, output
    assert utterances(tmp_path) == files
    assert stores(tmp_path) == stores(splits / "whole")


def test_a_second_run_that_logs_elsewhere_changes_nothing(splits, tmp_path):
    whole = splits / "whole"
    before = results(whole)
    with lock_folder(whole / ".run"):
        again = recipe(splits, tmp_path, units_folder=whole, max_rejects=1)
        code, output = run(again)
    assert code == 1, output
    assert "is being written by another process" in output
    assert results(whole) == before


def test_what_killed_runs_left_is_removed(corpus, tmp_path):
    for name in (".", "utterances", "train"):
        folder = tmp_path / "out" / name
        folder.mkdir(exist_ok=True, parents=True)
        (folder / ".tmp-0000001a-x.arrow").write_bytes(b"half")
    extract(corpus, tmp_path / "out", LoudnessTokenizer())
    assert not list((tmp_path / "out").rglob(".tmp-*"))


@pytest.fixture
def extracted(corpus, tmp_path):
    """A folder with a store, and the digests of what is there."""
    extract(corpus, tmp_path, LoudnessTokenizer())
    before = digests(tmp_path)
    yield tmp_path
    assert digests(tmp_path) == before


def test_second_process_is_refused(corpus, extracted):
    with lock_folder(extracted), pytest.raises(FolderInUse):
        extract(corpus, extracted, LoudnessTokenizer())


def test_complete_store_is_reused(corpus, extracted):
    names = ("train/store.json", "train/units-00000.arrow")
    times = [(extracted / name).stat().st_mtime_ns for name in names]
    extract(corpus, extracted, LoudnessTokenizer())
    again = [(extracted / name).stat().st_mtime_ns for name in names]
    assert again == times


def test_damaged_store_is_not_reused(corpus, extracted):
    path = extracted / "train" / "units-00000.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"units-00000\.arrow differs"):
        extract(corpus, extracted, LoudnessTokenizer())
    shutil.rmtree(path.parent)
    extract(corpus, extracted, LoudnessTokenizer())


def test_other_codebook_of_the_same_size_has_another_identity(corpus, tmp_path):
    for codebook in "bc":
        extract(corpus, tmp_path / codebook, LoudnessTokenizer(codebook))
    one, other = (read_info(tmp_path / name / "train") for name in "bc")
    assert one["tokenizer"]["identity"] != other["tokenizer"]["identity"]
    # The units are the same: only the identity tells the stores apart.
    assert one["files"] == other["files"]


def write_bad(folder):
    """Write audio that went bad after its manifest was written."""
    entries = {}

    def add(name, wav, rate=RATE, subtype=None, **lies):
        path = folder / name
        soundfile.write(path, wav, rate, subtype)
        entries[name] = {**entry(path), **lies}
        return path

    for suffix in ("wav", "flac", "ogg", "mp3"):
        for harm in ("empty", "truncated", "zeroed"):
            # Each file its own content, or they would be one utterance.
            lie = {"sha256": f"{len(entries):064d}"}
            path = add(f"{harm}.{suffix}", clip(3, 1.0), **lie)
            content = path.read_bytes()
            half = content[: len(content) // 2]
            harmed = {"empty": b"", "truncated": half}
            path.write_bytes(harmed.get(harm, bytes(len(content))))
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        wav = clip(4)
        wav[100] = value
        add(f"{name}.wav", wav, subtype="FLOAT")
    add("silent.wav", np.zeros(6400))
    add("short.wav", clip(5, 0.005))
    add("rate.wav", clip(6, 0.4, 8000), 8000, sample_rate=RATE)
    add("samples.wav", clip(7), num_samples=6401)
    soundfile.write(add("replaced.wav", clip(8)), clip(9), RATE)
    return entries


REASONS = {
    "empty.wav": "0 bytes",
    "empty.mp3": "0 bytes",
    "truncated.wav": "cut short",
    "zeroed.flac": "cannot be decoded",
    "nan.wav": "NaN",
    "inf.wav": "infinite",
    "silent.wav": "every sample is 0",
    "short.wav": "too short",
    "rate.wav": "8000 Hz; the manifest says",
    "samples.wav": "6400 samples at 16000 Hz; the manifest says 6401",
    "replaced.wav": "SHA-256",
}


def spoken(story_id, *sentences):
    """Return manifest rows, of each sentence one for each language."""
    return [
        {"story_id": story_id, "sentence": number, "language": language}
        | {"speaker": "alto", **one}
        for number, pair in enumerate(sentences)
        for language, one in zip(("en", "fr"), pair, strict=False)
    ]


def ledger_of(folder):
    return list(map(json.loads, (folder / LEDGER).read_text().splitlines()))


def test_bad_audio_goes_in_every_language(tmp_path):
    entries = write_bad(tmp_path)
    good = []
    for number in range(4):
        path = tmp_path / f"good-{number}.flac"
        soundfile.write(path, clip([9, number]), RATE)
        good.append(entry(path))
    rows = []
    for number, bad in enumerate(entries.values()):
        audio = (good[0], good[1]), (good[2], bad), (good[3], good[2])
        rows += spoken(f"story-{number:02d}", *audio)
    # A story of which nothing is left.
    rows += spoken("lost", (good[0], entries["empty.wav"]))
    manifest = write_manifest(tmp_path / "train.parquet", rows)
    tokenizer = LoudnessTokenizer()
    extract(manifest, tmp_path / "out", tokenizer, max_rejects=1.0)

    ledger = ledger_of(tmp_path / "out")
    reasons = {
        Path(line["audio"]).name: line["reason"]
        for line in ledger
        if "audio" in line and not line["audio"].endswith(good[2]["audio"])
    }
    assert entries.keys() <= reasons.keys()
    for name, text in REASONS.items():
        assert text in reasons[name]
    for number in range(len(entries)):
        here = [x for x in ledger if x["story_id"] == f"story-{number:02d}"]
        places = [(x["sentence"], x["language"]) for x in here]
        assert places == [(1, "en"), (1, "fr")]
        assert "another language" in here[0]["reason"]
    assert ledger[-1]["story_id"] == "lost"
    assert ledger[-1]["reason"] == NOTHING_LEFT

    info, tables = read_tables(tmp_path / "out" / "train")
    for language in ("en", "fr"):
        assert info["counts"][language]["sentences"] == 2 * len(entries)
    assert all("lost" not in t["story_id"].to_pylist() for t in tables)


def test_stereo_and_stated_rate_are_kept_with_a_note(tmp_path):
    stereo, telephone = tmp_path / "stereo.wav", tmp_path / "telephone.wav"
    soundfile.write(stereo, np.stack([clip(1), clip(2)], axis=1), RATE)
    soundfile.write(telephone, clip(3, 0.4, 8000), 8000)
    rows = spoken("s", [entry(stereo)], [entry(telephone)])
    manifest = write_manifest(tmp_path / "train.parquet", rows)
    extract(manifest, tmp_path / "out", LoudnessTokenizer(), max_rejects=0)
    notes = ledger_of(tmp_path / "out")
    assert [(note["action"], note["reason"]) for note in notes] == [
        ("kept", "2 channels mixed down"),
        ("kept", "resampled from 8000 Hz"),
    ]
    _, tables = read_tables(tmp_path / "out" / "train")
    assert tables[0]["sentence_ends"].to_pylist() == [[10, 20]]


def test_too_many_rejects_leave_no_store(tmp_path):
    manifest = write_corpus(tmp_path)
    bad = tmp_path / "audio" / "train-003.flac"
    content = bad.read_bytes()
    bad.write_bytes(content[:500])
    folder = tmp_path / "out"
    with pytest.raises(TooManyLeftOut, match="1 of 30 audio files"):
        extract(manifest, folder, LoudnessTokenizer(), max_rejects=0.01)
    assert not (folder / "train").exists()
    assert "train-003.flac" in (folder / LEDGER).read_text()
    # Mended, a rerun reads it again and the result is as if never broken.
    bad.write_bytes(content)
    extract(manifest, folder, LoudnessTokenizer(), max_rejects=0.01)
    extract(manifest, tmp_path / "other", LoudnessTokenizer())
    assert results(folder) == results(tmp_path / "other")


def test_missing_audio_is_named_before_anything_is_encoded(tmp_path):
    manifest = write_corpus(tmp_path)
    (tmp_path / "audio" / "train-003.flac").unlink()
    with pytest.raises(FileNotFoundError, match=r"train-003\.flac does not"):
        extract(manifest, tmp_path / "out", LoudnessTokenizer())
    assert not utterances(tmp_path / "out")
