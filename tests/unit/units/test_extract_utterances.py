import numpy as np
import pytest
import torch
from units_example import LoudnessTokenizer, digests, write_corpus

from speechbrain_slm.units.extraction import (
    extract_utterances,
    forget_rejects,
    read_utterances,
)
from speechbrain_slm.units.manifest import read_manifest
from speechbrain_slm.units.mel_kmeans import MelKMeans
from speechbrain_slm.utils.locking import FolderInUse, lock_folder


@pytest.fixture
def table(tmp_path):
    return read_manifest(write_corpus(tmp_path / "corpus"), ["en", "fr"])


def run(table, folder, tokenizer=None, **options):
    options = {"utterances_per_shard": 4} | options
    tokenizer = tokenizer or LoudnessTokenizer()
    extract_utterances([table], tokenizer, folder, **options)
    return digests(folder)


class CountingTokenizer(LoudnessTokenizer):
    """Remembers how many waveforms it was given."""

    seen = 0

    def encode(self, wavs, lengths):
        self.seen += len(lengths)
        return super().encode(wavs, lengths)


def test_shared_audio_is_encoded_once(table, tmp_path):
    tokenizer = CountingTokenizer()
    run(table, tmp_path / "out", tokenizer)
    assert len(table) == 72
    assert tokenizer.seen == 30
    assert len(read_utterances(tmp_path / "out")) == 30


def test_batches_do_not_change_units(table, tmp_path):
    generator = torch.manual_seed(0)
    tokenizer = MelKMeans(num_clusters=16)
    tokenizer.fit(torch.randn(8, 8000, generator=generator), seed=0)
    alone = run(table, tmp_path / "a", tokenizer, batch_seconds=0.1)
    assert run(table, tmp_path / "b", tokenizer, num_workers=3) == alone


def test_ranks_share_the_work_and_another_world_size_goes_on(
    table, tmp_path, monkeypatch
):
    whole = run(table, tmp_path / "whole")
    shared = tmp_path / "shared"
    monkeypatch.setenv("LOCAL_RANK", "0")
    for rank, size, shards in ((0, 3, 3), (0, 2, 6), (1, 2, 7), (0, 1, 8)):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(size))
        run(table, shared)
        assert len(list(shared.glob("*.arrow"))) == shards
    assert digests(shared) == whole


def test_other_audio_is_refused(table, tmp_path):
    before = run(table, tmp_path / "out")
    with pytest.raises(ValueError, match="utterances: expected"):
        run(table.slice(0, 10), tmp_path / "out")
    with pytest.raises(ValueError, match="num_shards: expected 3, found 8"):
        run(table, tmp_path / "out", utterances_per_shard=10)
    assert digests(tmp_path / "out") == before


def test_another_cut_into_as_many_shards_is_refused(table, tmp_path):
    folder = tmp_path / "out"
    whole = run(table, folder, utterances_per_shard=7)
    (folder / "utterances-00004.arrow").unlink()
    with pytest.raises(ValueError, match="per_shard: expected 6, found 7"):
        run(table, folder, utterances_per_shard=6)
    assert run(table, folder, utterances_per_shard=7) == whole


def test_a_damaged_shard_is_named(table, tmp_path):
    run(table, tmp_path / "out")
    path = tmp_path / "out" / "utterances-00002.arrow"
    content = path.read_bytes()
    for damage in (b"", content[:100], b"x" * len(content)):
        path.write_bytes(damage)
        for read in (read_utterances, forget_rejects):
            with pytest.raises(ValueError, match=r"00002\.arrow is damaged"):
                read(tmp_path / "out")
    path.unlink()
    run(table, tmp_path / "out")
    assert path.read_bytes() == content


def test_complete_work_needs_no_audio(table, tmp_path):
    before = run(table, tmp_path / "out")
    for path in (tmp_path / "corpus" / "audio").iterdir():
        path.unlink()
    assert run(table, tmp_path / "out") == before


def test_units_beyond_the_vocabulary_are_refused(table, tmp_path):
    class Broken(LoudnessTokenizer):
        def encode(self, wavs, lengths):
            return [np.array([70000]) for _ in lengths]

    with pytest.raises(ValueError, match=r"flac.*unit 70000 is outside"):
        run(table, tmp_path / "out", Broken())


def test_lock_is_exclusive_and_ends_with_its_block(tmp_path):
    with (
        lock_folder(tmp_path),
        pytest.raises(FolderInUse, match=str(tmp_path)),
        lock_folder(tmp_path),
    ):
        pass
    with lock_folder(tmp_path):
        pass
