import pytest
from units_example import digests, write_corpus

from speechbrain_slm.units.extraction import extract_utterances
from speechbrain_slm.units.fitting import fit_bpe, fit_tokenizer
from speechbrain_slm.units.manifest import read_manifest
from speechbrain_slm.units.mel_kmeans import MelKMeans

CLUSTERS = 12


def fit(table, folder, seed=0, num_clusters=CLUSTERS):
    tokenizer = MelKMeans(num_clusters)
    return fit_tokenizer(tokenizer, {"train": table}, folder, 4.0, seed)


def test_fitted_once_and_refused_when_changed(tmp_path):
    table = read_manifest(write_corpus(tmp_path / "corpus"), ["en", "fr"])
    folder = tmp_path / "tokenizer"
    identity = fit(table, folder).identity
    before = digests(folder)
    (folder / ".tmp-1a-tokenizer.json").write_text("left by a killed run")
    assert fit(table, folder).identity == identity
    assert fit(table, tmp_path / "again").identity == identity
    with pytest.raises(ValueError, match="seed: expected 1, found 0"):
        fit(table, folder, seed=1)
    with pytest.raises(ValueError, match=r"config\.num_clusters"):
        fit(table, folder, num_clusters=13)
    with pytest.raises(ValueError, match="speech: expected"):
        fit(table.slice(0, 12), folder)
    assert digests(folder) == before


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
            train,
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
            train,
            tmp_path / "one",
            tmp_path / "bpe-one",
            **settings | {"vocabulary_size": 21},
        )
