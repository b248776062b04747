import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT
from tiny_models import save_encoder, save_mimi
from units_example import (
    LoudnessTokenizer,
    digests,
    read_utterances,
    write_corpus,
)

from speechbrain_slm.units import fitting
from speechbrain_slm.units.extraction import extract_utterances
from speechbrain_slm.units.fitting import fit_bpe, fit_tokenizer
from speechbrain_slm.units.manifest import read_manifest
from speechbrain_slm.units.tokenizers.base import describe
from speechbrain_slm.units.tokenizers.bpe import UnitBPE
from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans
from speechbrain_slm.units.tokenizers.mimi import Mimi
from speechbrain_slm.units.tokenizers.ssl_kmeans import SSLKMeans

pytestmark = pytest.mark.long

CLUSTERS = 12
FIT_RANKS = Path(__file__).with_name("fit_ranks.py")
BPE = {"vocabulary_size": 20, "max_piece_length": 4}


def corpus(folder, split="train", **options):
    path = write_corpus(folder / "corpus", split=split, **options)
    return read_manifest(path, ["en", "fr"])


@pytest.fixture
def table(tmp_path):
    return corpus(tmp_path)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(fitting, "UTTERANCES_PER_SHARD", 4)


def fit(table, folder, seed=0, num_clusters=CLUSTERS, seconds=4.0):
    tokenizer = MelKMeans(num_clusters)
    return fit_tokenizer(tokenizer, {"train": table}, folder, seconds, seed)


def test_fitted_once_and_refused_when_changed(table, tmp_path):
    folder = tmp_path / "tokenizer"
    identity = fit(table, folder).identity
    before = digests(folder)
    (folder / ".tmp-0000001a-tokenizer.json").write_text("left by a killed run")
    assert fit(table, folder).identity == identity
    assert fit(table, tmp_path / "again").identity == identity
    for changed, text in (
        ({"table": table, "seed": 1}, "seed: expected 1, found 0"),
        ({"table": table, "num_clusters": 13}, r"config\.num_clusters"),
        ({"table": table.slice(0, 12)}, "speech: expected"),
        ({"table": table, "seconds": None}, "fit_seconds is null"),
    ):
        with pytest.raises(ValueError, match=text):
            fit(folder=folder, **changed)
    assert digests(folder) == before


def test_bad_audio_and_features_do_not_stop_the_fit(
    table, tmp_path, monkeypatch
):
    (tmp_path / "corpus" / "audio" / "train-000.flac").write_bytes(b"")
    features = MelKMeans.features

    def one_infinite(self, wavs, lengths):
        found = features(self, wavs, lengths)
        found[0][-1, -1] = float("inf")
        return found

    monkeypatch.setattr(MelKMeans, "features", one_infinite)
    assert fit(table, tmp_path / "tokenizer").fitted


def test_missing_audio_of_any_split_is_named_before_the_fit(tmp_path):
    manifests = {split: corpus(tmp_path, split) for split in ("train", "valid")}
    folder, audio = tmp_path / "tokenizer", tmp_path / "corpus" / "audio"
    what = MelKMeans(CLUSTERS), manifests, folder, 4.0, 0
    for split in manifests:
        name = f"{split}-003.flac"
        (audio / name).rename(tmp_path / name)
        with pytest.raises(FileNotFoundError, match=f"{name} does not exist"):
            fit_tokenizer(*what)
        assert not folder.exists()
        (tmp_path / name).rename(audio / name)
    fit_tokenizer(*what)
    # What is fitted needs no audio.
    (audio / "train-003.flac").unlink()
    fit_tokenizer(MelKMeans(CLUSTERS), *what[1:])


def test_bpe_sees_the_training_split_alone(table, tmp_path):
    valid = corpus(tmp_path, "valid")
    tokenizer = fit(table, tmp_path / "tokenizer")

    def run(name, **settings):
        folders = tmp_path / name, tmp_path / f"bpe-{name}"
        return fit_bpe(tokenizer, {"train": table}, *folders, **settings)

    found = []
    for name, tables in (("one", [table]), ("both", [table, valid])):
        extract_utterances(tables, tokenizer, tmp_path / name)
        found.append(run(name, **BPE).identity)
    assert found[0] == found[1]
    with pytest.raises(ValueError, match=r"settings\.vocabulary_size"):
        run("one", **BPE | {"vocabulary_size": 21})


def test_bpe_of_more_speech_than_it_takes(table, tmp_path, monkeypatch):
    tokenizer, folder = LoudnessTokenizer(), tmp_path / "utterances"
    extract_utterances([table], tokenizer, folder, 7)
    monkeypatch.setattr(fitting, "BPE_UTTERANCES", 20)
    bpe = fit_bpe(tokenizer, {"train": table}, folder, tmp_path / "bpe", **BPE)
    # Those whose SHA-256 come first, whatever file they stand in.
    units = read_utterances(folder)["units"].to_pylist()
    first, whole = (
        UnitBPE.fit(describe(tokenizer), some, **BPE).identity
        for some in (units[:20], units)
    )
    assert bpe.identity == first != whole


def test_a_finished_tokenizer_encodes_other_splits(table, tmp_path):
    other = {"other": corpus(tmp_path, "other")}

    def run(manifests, fitted_on, folder, clusters=CLUSTERS, **changes):
        how = (fitted_on, folder, 4.0, 0)
        tokenizer = fit_tokenizer(MelKMeans(clusters), *how)
        utterances = tmp_path / "utterances"
        extract_utterances(manifests.values(), tokenizer, utterances)
        settings, place = BPE | changes, folder / "bpe"
        bpe = fit_bpe(tokenizer, fitted_on, utterances, place, **settings)
        return tokenizer.identity, bpe.identity

    folder = tmp_path / "tokenizer"
    fitted = run({"train": table}, {"train": table}, folder)
    before = digests(folder)
    assert run(other, None, folder) == fitted
    # Also for the training split of another corpus.
    assert run({"train": other["other"]}, None, folder) == fitted
    none = tmp_path / "none"
    for fitted_on, place, changes, text in (
        (None, folder, {"clusters": 9}, "num_clusters: expected 9, found 12"),
        (None, folder, {"max_piece_length": 5}, "piece_length: expected 5"),
        (None, none, {}, r"none/tokenizer\.json"),
        (other, none, {}, "of other; expected one of train"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=text):
            run(other, fitted_on, place, **changes)
    assert digests(folder) == before


class Killed(BaseException):
    pass


def test_a_killed_fit_goes_on_with_the_features_it_has(
    table, tmp_path, small_shards
):
    save_encoder(tmp_path / "model")
    encoded = []

    class Counting(SSLKMeans):
        killed_at = None

        def features(self, wavs, lengths):
            if len(encoded) == self.killed_at:
                raise Killed
            encoded.append(len(lengths))
            return super().features(wavs, lengths)

        def fit(self, frames, seed, scratch):
            if self.killed_at == "fit":
                raise Killed
            super().fit(frames, seed, scratch)

    def run(folder, killed_at=None):
        encoded.clear()
        tokenizer = Counting(tmp_path / "model", 2, CLUSTERS)
        tokenizer.killed_at = killed_at
        fit_tokenizer(tokenizer, {"train": table}, folder, 6.0, 0)
        return digests(folder)

    expected, batches = run(tmp_path / "whole"), len(encoded)
    assert batches > 3
    folder = tmp_path / "killed"
    for when in (2, "fit"):
        with pytest.raises(Killed):
            run(folder, when)
    assert len(encoded) == batches - 2
    assert list((folder / "features").glob("*.npy"))
    assert run(folder) == expected
    assert encoded == []
    assert not (folder / "features").exists()


def test_a_codebook_for_each_language_is_fitted_on_its_speech(table, tmp_path):
    tokenizer = MelKMeans(CLUSTERS, codebooks="language")
    manifests, store = {"train": table}, tmp_path / "utterances"
    fit_tokenizer(tokenizer, manifests, tmp_path / "both", 4.0, 0)
    assert tokenizer.vocabulary_size == 2 * CLUSTERS
    centroids = tokenizer.tensors
    assert (centroids["centroids.en"] != centroids["centroids.fr"]).any()
    extract_utterances([table], tokenizer, store)
    settings = BPE | {"vocabulary_size": 40}
    bpe = fit_bpe(tokenizer, manifests, store, tmp_path / "bpe", **settings)
    assert bpe.vocabulary_size == 40


def test_what_needs_no_fit_is_kept_and_pinned(tmp_path):
    for seed in (0, 1):
        save_mimi(tmp_path / str(seed), seed)
    folder = tmp_path / "tokenizer"

    def keep(tokenizer, manifests):
        # No manifest is looked at.
        return fit_tokenizer(tokenizer, manifests, folder, None, 0)

    first, other = Mimi(tmp_path / "0"), Mimi(tmp_path / "1")
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json does not"):
        keep(first, None)
    keep(first, {})
    assert keep(first, None) is first
    assert json.loads((folder / "tokenizer.json").read_text()) == {
        "config": first.config,
        "identity": first.identity,
        "source": str(tmp_path / "0"),
    }
    (tmp_path / "0").rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert keep(Mimi(moved), {}).identity == first.identity
    for tokenizer, manifests, text in (
        (other, None, "weights: expected"),
        (other, {}, r"config\.weights: expected"),
        (Mimi(moved, 2), {}, r"config\.num_codebooks"),
    ):
        with pytest.raises(ValueError, match=text):
            keep(tokenizer, manifests)


def test_ranks_wait_for_a_fit_longer_than_any_barrier(tmp_path):
    """Two ranks, a fit of 5 s, and barriers that give up after 2 s."""
    manifest = write_corpus(tmp_path / "corpus")
    expected = fit(read_manifest(manifest, ["en", "fr"]), tmp_path / "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = ["--nproc_per_node=2", FIT_RANKS, manifest, tmp_path / "two"]
    command = [*launch, *script, str(CLUSTERS)]
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    how = {"capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run(command, env=env, **how)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [expected.identity] * 2
    assert digests(tmp_path / "two") == digests(tmp_path / "one")


def test_features_that_were_damaged_are_made_again(
    table, tmp_path, monkeypatch, small_shards
):
    identity = fit(table, tmp_path / "whole").identity

    def killed(*_):
        raise Killed

    folder = tmp_path / "tokenizer"
    with monkeypatch.context() as patch:
        patch.setattr(MelKMeans, "fit", killed)
        with pytest.raises(Killed):
            fit(table, folder)
    paths = sorted((folder / "features").glob("*.npy"))
    assert len(paths) > 2
    # The exponents of the first number and of the last before the sum.
    for path, at in zip(paths, (131, -33), strict=False):
        content = bytearray(path.read_bytes())
        content[at] ^= 2
        path.write_bytes(content)
    assert fit(table, folder).identity == identity


@pytest.mark.parametrize(("pieces", "warned"), [(20, False), (300, True)])
def test_pieces_that_hardly_recur_are_warned_of(
    tmp_path, caplog, pieces, warned
):
    tables = {"train": corpus(tmp_path, stories=40)}
    tokenizer, folder = LoudnessTokenizer(), tmp_path / "utterances"
    extract_utterances(tables.values(), tokenizer, folder)
    settings = {"vocabulary_size": pieces, "max_piece_length": 8}
    fit_bpe(tokenizer, tables, folder, tmp_path / "bpe", **settings)
    lines = [one.getMessage() for one in caplog.records if one.levelno >= 30]
    assert len(lines) == warned
    assert all(f"vocabulary_size {pieces} " in line for line in lines)
