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

from speechbrain_slm.units.extraction import extract_utterances
from speechbrain_slm.units.fitting import fit_bpe, fit_tokenizer
from speechbrain_slm.units.manifest import read_manifest
from speechbrain_slm.units.tokenizers.base import describe
from speechbrain_slm.units.tokenizers.bpe import UnitBPE
from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans
from speechbrain_slm.units.tokenizers.mimi import Mimi
from speechbrain_slm.units.tokenizers.ssl_kmeans import SSLKMeans

CLUSTERS = 12
FIT_RANKS = Path(__file__).with_name("fit_ranks.py")


def fit(table, folder, seed=0, num_clusters=CLUSTERS):
    tokenizer = MelKMeans(num_clusters)
    return fit_tokenizer(tokenizer, {"train": table}, folder, 4.0, seed)


def test_fitted_once_and_refused_when_changed(tmp_path):
    table = read_manifest(write_corpus(tmp_path / "corpus"), ["en", "fr"])
    folder = tmp_path / "tokenizer"
    identity = fit(table, folder).identity
    before = digests(folder)
    (folder / ".tmp-0000001a-tokenizer.json").write_text("left by a killed run")
    assert fit(table, folder).identity == identity
    assert fit(table, tmp_path / "again").identity == identity
    with pytest.raises(ValueError, match="seed: expected 1, found 0"):
        fit(table, folder, seed=1)
    with pytest.raises(ValueError, match=r"config\.num_clusters"):
        fit(table, folder, num_clusters=13)
    with pytest.raises(ValueError, match="speech: expected"):
        fit(table.slice(0, 12), folder)
    assert digests(folder) == before


def test_a_fit_needs_seconds(tmp_path):
    with pytest.raises(ValueError, match="fit_seconds is null"):
        fit_tokenizer(MelKMeans(CLUSTERS), {"train": []}, tmp_path, None, 0)


def test_bad_audio_does_not_stop_the_fit(tmp_path):
    table = read_manifest(write_corpus(tmp_path / "corpus"), ["en", "fr"])
    (tmp_path / "corpus" / "audio" / "train-000.flac").write_bytes(b"")
    assert fit(table, tmp_path / "tokenizer").vocabulary_size == CLUSTERS


def test_missing_audio_of_any_split_is_named_before_the_fit(tmp_path):
    manifests = {
        split: read_manifest(
            write_corpus(tmp_path / "corpus", split=split), ["en", "fr"]
        )
        for split in ("train", "valid")
    }
    folder = tmp_path / "tokenizer"
    audio = tmp_path / "corpus" / "audio"
    for split in manifests:
        name = f"{split}-003.flac"
        (audio / name).rename(tmp_path / name)
        with pytest.raises(FileNotFoundError, match=f"{name} does not exist"):
            fit_tokenizer(MelKMeans(CLUSTERS), manifests, folder, 4.0, 0)
        assert not folder.exists()
        (tmp_path / name).rename(audio / name)
    fit_tokenizer(MelKMeans(CLUSTERS), manifests, folder, 4.0, 0)
    # What is fitted needs no audio.
    (audio / "train-003.flac").unlink()
    fit_tokenizer(MelKMeans(CLUSTERS), manifests, folder, 4.0, 0)


def test_bpe_sees_the_training_split_alone(tmp_path):
    train = read_manifest(write_corpus(tmp_path / "corpus"), ["en", "fr"])
    valid = read_manifest(
        write_corpus(tmp_path / "corpus", split="valid"), ["en", "fr"]
    )
    tokenizer = fit(train, tmp_path / "tokenizer")
    for name, tables in (("one", [train]), ("both", [train, valid])):
        extract_utterances(tables, tokenizer, tmp_path / name)
    settings = {"vocabulary_size": 20, "max_piece_length": 4}
    one, both = (
        fit_bpe(
            tokenizer,
            {"train": train},
            tmp_path / name,
            tmp_path / f"bpe-{name}",
            **settings,
        )
        for name in ("one", "both")
    )
    assert one.identity == both.identity
    with pytest.raises(ValueError, match=r"settings\.vocabulary_size"):
        fit_bpe(
            tokenizer,
            {"train": train},
            tmp_path / "one",
            tmp_path / "bpe-one",
            **settings | {"vocabulary_size": 21},
        )


def test_bpe_of_more_speech_than_it_takes(tmp_path, monkeypatch):
    table = read_manifest(write_corpus(tmp_path / "corpus"), ["en", "fr"])
    tokenizer = LoudnessTokenizer()
    folder = tmp_path / "utterances"
    extract_utterances([table], tokenizer, folder, utterances_per_shard=7)
    settings = {"vocabulary_size": 20, "max_piece_length": 4}
    monkeypatch.setattr("speechbrain_slm.units.fitting.BPE_UTTERANCES", 20)
    bpe = fit_bpe(
        tokenizer, {"train": table}, folder, tmp_path / "bpe", **settings
    )
    # Those whose SHA-256 come first, whatever file they stand in.
    units = read_utterances(folder)["units"].to_pylist()
    base = describe(tokenizer)
    first = UnitBPE.fit(base, units[:20], **settings)
    assert bpe.identity == first.identity
    assert bpe.identity != UnitBPE.fit(base, units, **settings).identity


def test_a_finished_tokenizer_encodes_other_splits(tmp_path):
    train, other = (
        read_manifest(
            write_corpus(tmp_path / "corpus", split=split), ["en", "fr"]
        )
        for split in ("train", "other")
    )
    settings = {"vocabulary_size": 20, "max_piece_length": 4}

    def run(manifests, fitted_on, folder, clusters=CLUSTERS, **changes):
        tokenizer = fit_tokenizer(
            MelKMeans(clusters), fitted_on, folder, 4.0, 0
        )
        utterances = tmp_path / "utterances"
        extract_utterances(manifests.values(), tokenizer, utterances)
        return tokenizer.identity, fit_bpe(
            tokenizer,
            fitted_on,
            utterances,
            folder / "bpe",
            **settings | changes,
        ).identity

    folder = tmp_path / "tokenizer"
    fitted = run({"train": train}, {"train": train}, folder)
    before = digests(folder)
    assert run({"other": other}, None, folder) == fitted
    # Also for the training split of another corpus.
    assert run({"train": other}, None, folder) == fitted
    with pytest.raises(ValueError, match=r"num_clusters: expected 9, found 12"):
        run({"other": other}, None, folder, clusters=9)
    with pytest.raises(ValueError, match=r"max_piece_length: expected 5"):
        run({"other": other}, None, folder, max_piece_length=5)
    with pytest.raises(FileNotFoundError, match=r"none/tokenizer\.json"):
        run({"other": other}, None, tmp_path / "none")
    with pytest.raises(ValueError, match=r"of other; expected one of train"):
        run({"other": other}, {"other": other}, tmp_path / "none")
    assert digests(folder) == before


def test_a_codec_must_be_the_one_that_is_kept(tmp_path):
    for seed in (0, 1):
        save_mimi(tmp_path / str(seed), seed)
    first, other = Mimi(tmp_path / "0"), Mimi(tmp_path / "1")
    folder = tmp_path / "tokenizer"
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json does not"):
        fit_tokenizer(first, None, folder, None, 0)
    fit_tokenizer(first, {}, folder, None, 0)
    assert fit_tokenizer(first, None, folder, None, 0) is first
    with pytest.raises(ValueError, match="weights: expected"):
        fit_tokenizer(other, None, folder, None, 0)


class Killed(BaseException):
    pass


def test_a_killed_fit_goes_on_with_the_features_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr("speechbrain_slm.units.fitting.UTTERANCES_PER_SHARD", 4)
    save_encoder(tmp_path / "model")
    table = read_manifest(write_corpus(tmp_path / "corpus"), ["en", "fr"])
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

    expected = run(tmp_path / "whole")
    batches = len(encoded)
    assert batches > 3
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        run(folder, killed_at=2)
    with pytest.raises(Killed):
        run(folder, killed_at="fit")
    assert len(encoded) == batches - 2
    assert list((folder / "features").glob("*.npy"))
    assert run(folder) == expected
    assert encoded == []
    assert not (folder / "features").exists()


def test_a_codebook_for_each_language_is_fitted_on_its_speech(tmp_path):
    table = read_manifest(write_corpus(tmp_path / "corpus"), ["en", "fr"])
    tokenizer = MelKMeans(CLUSTERS, codebooks="language")
    fit_tokenizer(tokenizer, {"train": table}, tmp_path / "both", 4.0, 0)
    assert tokenizer.vocabulary_size == 2 * CLUSTERS
    centroids = tokenizer.tensors
    assert (centroids["centroids.en"] != centroids["centroids.fr"]).any()
    store = tmp_path / "utterances"
    extract_utterances([table], tokenizer, store)
    settings = {"vocabulary_size": 40, "max_piece_length": 4}
    tables = {"train": table}
    bpe = fit_bpe(tokenizer, tables, store, tmp_path / "bpe", **settings)
    assert bpe.vocabulary_size == 40


def test_what_needs_no_fit_is_kept_and_pinned(tmp_path):
    for seed in (0, 1):
        save_mimi(tmp_path / str(seed), seed)
    folder = tmp_path / "tokenizer"

    def keep(tokenizer):
        # No manifest is looked at.
        return fit_tokenizer(tokenizer, {}, folder, 4.0, 0)

    first = keep(Mimi(tmp_path / "0"))
    saved = json.loads((folder / "tokenizer.json").read_text())
    assert saved == {
        "config": first.config,
        "identity": first.identity,
        "source": str(tmp_path / "0"),
    }
    (tmp_path / "0").rename(tmp_path / "moved")
    assert keep(Mimi(tmp_path / "moved")).identity == first.identity
    with pytest.raises(ValueError, match=r"config\.weights: expected"):
        keep(Mimi(tmp_path / "1"))
    with pytest.raises(ValueError, match=r"config\.num_codebooks"):
        keep(Mimi(tmp_path / "moved", 2))


def test_ranks_wait_for_a_fit_longer_than_any_barrier(tmp_path):
    """Two ranks, a fit of 5 s, and barriers that give up after 2 s."""
    manifest = write_corpus(tmp_path / "corpus")
    expected = fit(read_manifest(manifest, ["en", "fr"]), tmp_path / "one")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node=2", str(FIT_RANKS)),
            *(str(manifest), str(tmp_path / "two"), str(CLUSTERS)),
        ],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [expected.identity] * 2
    assert digests(tmp_path / "two") == digests(tmp_path / "one")


def test_features_that_were_damaged_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr("speechbrain_slm.units.fitting.UTTERANCES_PER_SHARD", 4)
    table = read_manifest(write_corpus(tmp_path / "corpus"), ["en", "fr"])
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


def test_features_that_are_not_finite_are_not_fitted_on(tmp_path, monkeypatch):
    table = read_manifest(write_corpus(tmp_path / "corpus"), ["en", "fr"])
    features = MelKMeans.features

    def one_infinite(self, wavs, lengths):
        found = features(self, wavs, lengths)
        found[0][-1, -1] = float("inf")
        return found

    monkeypatch.setattr(MelKMeans, "features", one_infinite)
    assert fit(table, tmp_path / "tokenizer").fitted


@pytest.mark.parametrize(("pieces", "warned"), [(20, False), (300, True)])
def test_pieces_that_hardly_recur_are_warned_of(
    tmp_path, caplog, pieces, warned
):
    table = read_manifest(
        write_corpus(tmp_path / "corpus", stories=40), ["en", "fr"]
    )
    tokenizer, folder = LoudnessTokenizer(), tmp_path / "utterances"
    extract_utterances([table], tokenizer, folder)
    settings = {"vocabulary_size": pieces, "max_piece_length": 8}
    fit_bpe(tokenizer, {"train": table}, folder, tmp_path / "bpe", **settings)
    lines = [
        record.getMessage()
        for record in caplog.records
        if record.levelname == "WARNING"
    ]
    assert [f"vocabulary_size {pieces} " in line for line in lines] == (
        [True] * warned
    )
