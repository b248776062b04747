import os

import numpy as np
import pyarrow as pa
import pytest
import torch
from units_example import LoudnessTokenizer, read_utterances, write_corpus

from speechbrain_slm.units.extraction import extract_utterances
from speechbrain_slm.units.manifest import read_manifest
from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans
from speechbrain_slm.units.utterances import Utterances, utterance_files


@pytest.fixture
def table(tmp_path):
    return read_manifest(write_corpus(tmp_path / "corpus"), ["en", "fr"])


def run(table, folder, tokenizer=None, **options):
    options = {"utterances_per_shard": 4} | options
    tokenizer = tokenizer or LoudnessTokenizer()
    extract_utterances([table], tokenizer, folder, **options)
    return read_utterances(folder)


def reasons(found):
    return [reason for reason in found["reason"].to_pylist() if reason]


class WatchingTokenizer(LoudnessTokenizer):
    """Remembers what it was given."""

    def __init__(self, equal_lengths=False):
        super().__init__()
        self.equal_lengths = equal_lengths
        self.batches = []
        self.languages = []

    def encode(self, wavs, lengths, languages=None):
        self.batches.append(lengths.tolist())
        self.languages += languages
        return super().encode(wavs, lengths)


def test_shared_audio_is_encoded_once_and_more_goes_on(table, tmp_path):
    tokenizer = WatchingTokenizer()
    few = len(run(table.slice(0, 10), tmp_path / "out", tokenizer))
    assert 0 < few == len(tokenizer.languages) < 30
    found = run(table, tmp_path / "out", tokenizer)
    assert len(table) == 72
    names = found["sha256"].to_pylist()
    assert names == sorted(set(table["sha256"].to_pylist()))
    assert sorted(tokenizer.languages) == ["en"] * 15 + ["fr"] * 15


def test_audio_of_two_languages_is_encoded_in_each(table, tmp_path):
    class Offset(LoudnessTokenizer):
        def encode(self, wavs, lengths, languages=None):
            encoded = super().encode(wavs, lengths)
            return [
                units // 2 + 8 * (language == "fr")
                for units, language in zip(encoded, languages, strict=True)
            ]

    twin = table[:1].set_column(2, table.schema.field(2), [["fr"]])
    both = pa.concat_tables([table[:1], twin])
    found = run(both, tmp_path / "out", Offset())
    assert sorted(found["language"].to_pylist()) == ["en", "fr"]
    utterances = Utterances(tmp_path / "out")
    one, two = utterances.units(utterances.locate(both))
    assert (one + 8 == two).all()


def test_batches_do_not_change_units(table, tmp_path):
    generator = torch.manual_seed(0)
    tokenizer = MelKMeans(num_clusters=16)
    noise = torch.randn(8, 8000, generator=generator)
    points = tokenizer.features(noise, torch.full((8,), 8000))
    tokenizer.fit({"": [one.numpy() for one in points]}, seed=0)
    alone = run(table, tmp_path / "a", tokenizer, batch_seconds=0.1)
    assert run(table, tmp_path / "b", tokenizer, num_workers=3).equals(alone)


@pytest.mark.parametrize("equal", [False, True])
def test_batches_are_of_a_size_and_little_padding(table, tmp_path, equal):
    tokenizer = WatchingTokenizer(equal)
    run(table, tmp_path, tokenizer, utterances_per_shard=30, batch_seconds=2)
    padded = [max(batch) * len(batch) for batch in tokenizer.batches]
    assert max(padded) <= 2 * 16000
    assert sum(padded) < 1.05 * sum(map(sum, tokenizer.batches))
    # 30 files of 7 lengths.
    assert len(padded) <= 9
    alike = [len(set(batch)) == 1 for batch in tokenizer.batches]
    assert all(alike) == equal


def test_ranks_share_the_work_and_another_world_size_goes_on(
    table, tmp_path, monkeypatch
):
    whole, shared = run(table, tmp_path / "whole"), tmp_path / "shared"
    monkeypatch.setenv("LOCAL_RANK", "0")
    # Ranks that come after the others here find less to do than beside them.
    work = (0, 3, 4, 10), (0, 2, 9, 20), (1, 2, 2, 25), (0, 1, 100, 30)
    for rank, size, shard, done in work:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(size))
        assert len(run(table, shared, utterances_per_shard=shard)) == done
    assert read_utterances(shared).equals(whole)


def test_array_jobs_share_the_work_at_any_time(table, tmp_path):
    whole, shared = run(table, tmp_path / "whole"), tmp_path / "shared"
    found = []
    for job in (2, 0, 3, 1):
        tokenizer = WatchingTokenizer()
        run(table, shared, tokenizer, job=job, num_jobs=4)
        found.append(len(tokenizer.languages))
    assert sum(found) == 30
    assert max(found) - min(found) <= 1
    assert read_utterances(shared).equals(whole)
    # Nothing is left to do for whoever comes next.
    tokenizer = WatchingTokenizer()
    run(table, shared, tokenizer)
    assert not tokenizer.languages
    with pytest.raises(ValueError, match="job is 4; expected 0 to 3"):
        run(table, shared, job=4, num_jobs=4)


def test_another_tokenizer_is_refused(table, tmp_path):
    before = run(table, tmp_path / "out")
    with pytest.raises(ValueError, match=r"tokenizer\.identity: expected"):
        run(table, tmp_path / "out", LoudnessTokenizer("other"))
    assert read_utterances(tmp_path / "out").equals(before)


def test_audio_is_read_again_where_the_manifest_was_mended(table, tmp_path):
    """A file is bad where the manifest is wrong about it."""
    rows = table.to_pylist()
    for row in rows:
        row["num_samples"] += row["sha256"] == rows[0]["sha256"]
    other = pa.Table.from_pylist(rows, schema=table.schema)
    assert len(reasons(run(other, tmp_path / "out"))) == 1
    run(table, tmp_path / "out")
    utterances = Utterances(tmp_path / "out")
    bad = utterances.has_text("reason")
    assert not bad[utterances.locate(table)].any()
    assert bad[utterances.locate(other)].any()


@pytest.mark.parametrize("damage", ["empty", "torn", "flipped"])
def test_a_damaged_shard_is_named_and_encoded_again(
    table, tmp_path, damage, caplog
):
    before = run(table, tmp_path / "out")
    path = utterance_files(tmp_path / "out")[2]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    harmed = {"empty": b"", "torn": content[:100], "flipped": content}[damage]
    path.write_bytes(harmed)
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        read_utterances(tmp_path / "out")
    tokenizer = WatchingTokenizer()
    after = run(table, tmp_path / "out", tokenizer)
    assert f"{path.name} is damaged" in caplog.text
    assert len(tokenizer.languages) == 4
    assert after.equals(before)


def test_any_bad_file_is_a_reason_and_ends_nothing(table, tmp_path):
    """A pipe would be waited for, a folder and a lie would end the run."""
    audio = tmp_path / "corpus" / "audio"
    paths = [audio / f"train-{number:03d}.flac" for number in range(4)]
    content = paths[3].read_bytes()
    makers = os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")
    for path, make in zip(paths, makers, strict=False):
        path.unlink()
        make(path)
    lie = bytearray(content)
    lie[21:26] = b"\xff" * 5
    paths[3].write_bytes(lie)
    told = reasons(run(table, tmp_path / "out"))
    assert len(told) == 4
    for text in ("is a pipe", "is a folder", "is a device", "samples at"):
        assert sum(text in reason for reason in told) == 1


def test_bad_audio_is_read_again_and_alone(table, tmp_path):
    bad = tmp_path / "corpus" / "audio" / "train-003.flac"
    content = bad.read_bytes()
    bad.write_bytes(content[:99])
    found = run(table, tmp_path / "out")
    assert len(reasons(found)) == 1
    bad.unlink()
    # What was found out is known, though the file is gone.
    assert run(table, tmp_path / "out").equals(found)
    bad.write_bytes(content)
    tokenizer = WatchingTokenizer()
    found = run(table, tmp_path / "out", tokenizer)
    assert len(tokenizer.languages) == 1
    # So is what was too long, once more is allowed.
    told = reasons(run(table, tmp_path / "short", max_seconds=0.35))
    assert 0 < sum("at most 0.35 s" in reason for reason in told) < 30
    assert run(table, tmp_path / "short").equals(found)
    # Complete work needs no audio.
    for path in bad.parent.iterdir():
        path.unlink()
    assert run(table, tmp_path / "out").equals(found)


def test_features_that_are_not_finite_give_no_units(table, tmp_path):
    class Overflowing(MelKMeans):
        """Of the longest utterances, the last feature overflows."""

        def features(self, wavs, lengths):
            found = super().features(wavs, lengths)
            for points, length in zip(found, lengths, strict=True):
                if length > 0.4 * self.sample_rate:
                    points[-1, -1] = np.inf
            return found

    tokenizer = Overflowing(4)
    points = np.random.default_rng(0).normal(size=(9, tokenizer.feature_size))
    tokenizer.fit({"": [points.astype(np.float32)]}, seed=0)
    found = run(table, tmp_path / "out", tokenizer).to_pylist()
    for row in found:
        long = row["num_samples"] > 0.4 * row["sample_rate"]
        assert ("not all finite" in row["reason"]) == long
        assert bool(row["units"]) != long


def out_of_memory():
    raise torch.OutOfMemoryError("no more memory")


@pytest.mark.parametrize(
    ("fail", "kind", "text"),
    [
        (lambda: [70000], ValueError, "flac.*unit 70000 is outside"),
        (out_of_memory, RuntimeError, "flac and 3 shorter.*no more mem"),
    ],
)
def test_what_an_encoder_fails_at_is_named(table, tmp_path, fail, kind, text):
    class Broken(LoudnessTokenizer):
        def encode(self, wavs, lengths, languages=None):
            return [np.array(fail()) for _ in lengths]

    with pytest.raises(kind, match=text):
        run(table, tmp_path / "out", Broken())
