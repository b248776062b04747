import itertools

import pyarrow as pa
import pytest
from units_example import (
    LoudnessTokenizer,
    digests,
    extract,
    read_utterances,
    sha256,
    write_corpus,
    write_manifest,
)

from speechbrain_slm.units.assembly import assemble_stores
from speechbrain_slm.units.extraction import extract_utterances
from speechbrain_slm.units.manifest import read_manifest
from speechbrain_slm.units.rejects import drop_rejected, leave_out_rejects
from speechbrain_slm.units.tokenizers.base import describe, saved_files
from speechbrain_slm.units.tokenizers.bpe import UnitBPE
from speechbrain_slm.units.utterances import (
    SCHEMA,
    Utterances,
    write_utterances,
)
from speechbrain_slm.utils.store_format import read_tables


@pytest.fixture
def table(tmp_path):
    return read_manifest(write_corpus(tmp_path), ["en", "fr"])


@pytest.fixture
def kept(table, tmp_path):
    """What is left of a manifest of which nothing is lost."""
    utterances = tmp_path / "utterances"
    extract_utterances([table], LoudnessTokenizer(), utterances)
    return leave_out_rejects({"train": table}, utterances, tmp_path, 0)


def stored(folder):
    """Return a store's sentences as {(story, language): [[unit, ...], ...]}."""
    _, tables = read_tables(folder)
    return {
        (row["story_id"], row["language"]): [
            row["units"][start:end]
            for start, end in itertools.pairwise([0, *row["sentence_ends"]])
        ]
        for row in pa.concat_tables(tables).to_pylist()
    }


def expected(table, utterances):
    """Assemble the slow way: a row at a time."""
    units = {row["sha256"]: row["units"] for row in utterances.to_pylist()}
    stories = {}
    for row in sorted(table.to_pylist(), key=lambda row: row["sentence"]):
        key = (row["story_id"], row["language"])
        stories.setdefault(key, []).append(units[row["sha256"]])
    return stories


def test_store_holds_each_story_in_each_language(tmp_path):
    manifest = write_corpus(tmp_path, stories=7)
    table = read_manifest(manifest, ["en", "fr"])
    extract(manifest, tmp_path / "out", LoudnessTokenizer())
    utterances = read_utterances(tmp_path / "out" / "utterances")
    stories = stored(tmp_path / "out" / "train")
    assert stories == expected(table, utterances)
    # In the manifest's order, and all languages of a story in one file.
    assert list(stories) == list(expected(table, utterances))
    _, tables = read_tables(tmp_path / "out" / "train")
    assert [len(shard) for shard in tables] == [4, 4, 4, 2]


def test_story_that_several_tell_has_no_speaker(tmp_path):
    manifest = write_corpus(tmp_path, stories=5)
    rows = read_manifest(manifest, ["en", "fr"]).to_pylist()
    speakers = {row["story_id"]: row["speaker"] for row in rows}
    for row in rows:
        if row["story_id"] == rows[0]["story_id"] and row["sentence"] == 1:
            row["speaker"], speakers[row["story_id"]] = "another", ""
    write_manifest(manifest, rows)
    extract(manifest, tmp_path / "out", LoudnessTokenizer())
    _, tables = read_tables(tmp_path / "out" / "train")
    for story in pa.concat_tables(tables).to_pylist():
        assert story["speaker"] == speakers[story["story_id"]]
    assert "" in speakers.values()


def test_order_of_rows_inside_a_story_does_not_count(table, kept, tmp_path):
    order = [("sentence", "descending"), ("language", "ascending")]
    mixed = {"mixed": table.sort_by(order)}
    mixed = leave_out_rejects(mixed, tmp_path / "utterances", tmp_path, 0)
    assemble_stores(kept | mixed, LoudnessTokenizer(), tmp_path)
    assert stored(tmp_path / "train") == stored(tmp_path / "mixed")


def test_another_cut_into_as_many_shards_is_refused(kept, tmp_path):
    """Shard 0 of 4 stories, then shards of 5 from 5 on, would lack one."""

    def assemble(size):
        tokenizer = LoudnessTokenizer()
        assemble_stores(kept, tokenizer, tmp_path, stories_per_shard=size)
        return digests(tmp_path / "train")

    whole = assemble(4)
    for name in ("store.json", "units-00001.arrow", "units-00002.arrow"):
        (tmp_path / "train" / name).unlink()
    with pytest.raises(ValueError, match="per_shard: expected 5, found 4"):
        assemble(5)
    assert assemble(4) == whole


def test_pieces_of_the_store_decode_to_its_units(table, kept, tmp_path):
    tokenizer = LoudnessTokenizer()
    utterances = read_utterances(tmp_path / "utterances")
    bpe = UnitBPE.fit(describe(tokenizer), utterances["units"].to_pylist(), 30)
    assemble_stores(kept, tokenizer, tmp_path, bpe)
    decoded = {
        key: [bpe.decode(pieces).tolist() for pieces in sentences]
        for key, sentences in stored(tmp_path / "train").items()
    }
    assert decoded == expected(table, utterances)
    info, _ = read_tables(tmp_path / "train")
    assert info["tokenizer"]["identity"] == bpe.identity
    assert info["tokenizer"]["vocabulary_size"] == 30
    # An LM is exported with what stands beside the units.
    saved = saved_files(tmp_path / "tokenizer", bpe.identity)
    assert {*saved} == {"tokenizer.json", "bpe/bpe.json", "bpe/bpe.model"}


def test_dropped_sentences_go_in_all_languages(tmp_path):
    keys, bad, rows = ("en", "fr", "de"), ("s1fr", "t0de", "t1en"), []
    for story, key, number in itertools.product("st", keys, range(3)):
        name = f"{story}{number}{key}"
        row = {"story_id": story, "sentence": number, "language": key}
        row |= {"num_samples": 1, "sample_rate": 1, "units": [1], "note": ""}
        row |= {"audio": name, "sha256": sha256(name)}
        rows.append(row | {"reason": "bad" * (name in bad)})
    names = [row["audio"] for row in reversed(rows)]
    batch = pa.RecordBatch.from_pylist(rows[::-1], schema=SCHEMA)
    write_utterances(tmp_path, batch)
    table, utterances = pa.Table.from_pylist(rows), Utterances(tmp_path)
    kept, ledger = drop_rejected(table, utterances, utterances.locate(table))
    audio = kept.table["audio"].take(pa.array(kept.rows)).to_pylist()
    expected = "s0en s2en s0fr s2fr s0de s2de t2en t2fr t2de"
    assert audio == expected.split()
    assert kept.utterances.tolist() == [names.index(name) for name in audio]
    reasons = [entry["reason"] == "bad" for entry in ledger]
    assert reasons == [n in (1, 4, 7) for n in range(9)]


def test_split_of_which_nothing_is_left_is_refused(tmp_path):
    table = read_manifest(write_corpus(tmp_path, stories=1), ["en", "fr"])

    class Mute(LoudnessTokenizer):
        def encode(self, wavs, lengths, languages=None):
            return [[] for _ in lengths]

    extract_utterances([table], Mute(), tmp_path / "utterances")
    split, folder = {"valid": table}, tmp_path / "utterances"
    with pytest.raises(ValueError, match="No story is left of valid"):
        leave_out_rejects(split, folder, tmp_path, 1.0)


def test_stores_are_of_the_utterances_that_were_looked_through(
    table, kept, tmp_path
):
    """An array job may publish more of them before the stores are made."""
    folder = tmp_path / "utterances"
    for number in range(40):
        row = [sha256(f"other {number}"), "en", 9, 16000, [7], "", ""]
        other = pa.record_batch([[value] for value in row], schema=SCHEMA)
        write_utterances(folder, other)
    assemble_stores(kept, LoudnessTokenizer(), tmp_path)
    utterances = read_utterances(folder)
    assert stored(tmp_path / "train") == expected(table, utterances)
