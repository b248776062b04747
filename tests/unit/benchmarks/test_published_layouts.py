"""Layouts of published benchmarks, made small, and every way to break one."""

import itertools
import shutil
from unicodedata import normalize

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from speechbrain_slm.benchmarks import spoken_items
from speechbrain_slm.benchmarks.spoken_items import Clip, Item, write_prepared
from speechbrain_slm.benchmarks.spoken_story_cloze import read_story_cloze
from speechbrain_slm.benchmarks.utterance_pairs import read_utterance_pairs
from speechbrain_slm.benchmarks.zerospeech import read_zerospeech
from speechbrain_slm.units.manifest import read_manifest
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.tables import (
    ITEMS,
    ITEMS_EMPTY,
    ITEMS_KEY,
    read_table,
)

RATE = 8000
TRIPLE = ("mutual", "correct", "incorrect")


def write_wav(path, seconds=0.1, subtype="PCM_16", seed=0):
    """Write noise; another seed gives other samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    wav = generator.uniform(-0.5, 0.5, round(seconds * RATE))
    soundfile.write(path, wav, RATE, subtype=subtype)
    return path


def write_files(folder, *names):
    for seed, name in enumerate(names):
        write_wav(folder / name, seed=seed)
    return folder


def prepared(folder, clips, items, max_seconds=None):
    """Write both tables, and read them as the next stages do."""
    write_prepared(folder, clips, items, max_seconds)
    languages = {clip.language for clip in clips}
    rows = read_manifest(folder / "speech.parquet", languages).to_pylist()
    items = read_table(folder / "items.parquet", ITEMS, ITEMS_KEY, ITEMS_EMPTY)
    paths = {(row["story_id"], row["language"]): row["audio"] for row in rows}
    return rows, items.to_pylist(), paths


# Spoken StoryCloze.


def test_pairs_are_matched_by_story(tmp_path):
    """Neither the index nor the order of the files says what is what."""
    expected = {
        "12": ["12_correct.wav", "12_incorrect.wav"],
        "a_tale": ["3_a_tale_correct.wav", "7_a_tale_incorrect.wav"],
        "b": ["0_b_correct.wav", "0_b_incorrect.wav"],
    }
    folder = write_files(
        tmp_path / "sSC", *sorted(itertools.chain(*expected.values()))
    )
    (folder / "0_b_correct.txt").touch()
    clips, items = read_story_cloze({"fr": folder}, "pairs", "sSC", "lea")
    rows, items, paths = prepared(tmp_path / "out", clips, items)
    assert {(row["speaker"], row["sentence"]) for row in rows} == {("lea", 0)}
    assert len(items) == len(expected)
    for item in items:
        pair = [paths[item[side], "fr"] for side in ("right", "wrong")]
        names = [path.split("/")[-1] for path in pair]
        assert names == expected[item["item_id"]]
        assert item["prompt"] == ""
        assert item["prompt_language"] == item["ending_language"] == "fr"


def test_triples_give_every_direction(tmp_path):
    names = [f"{story}_{part}.wav" for story in ("x_1", "y") for part in TRIPLE]
    folders = {
        language: write_files(tmp_path / language, *names)
        for language in ("en", "fr")
    }
    clips, items = read_story_cloze(folders, "triples", "sTC")
    rows, items, paths = prepared(tmp_path / "out", clips, items)
    assert (len(rows), len(items)) == (12, 8)
    directions = set()
    for item in items:
        one, two = item["prompt_language"], item["ending_language"]
        directions.add((one, two))
        names = (("prompt", one), ("right", two), ("wrong", two))
        for (side, key), part in zip(names, TRIPLE, strict=True):
            path = folders[key] / f"{item['item_id']}_{part}.wav"
            assert paths[item[side], key] == str(path)
    assert len(directions) == 4


A = ["0_a_correct.wav", "0_a_incorrect.wav"]


@pytest.mark.parametrize(
    ("layout", "names", "message"),
    [
        (
            "pairs",
            [*A, "1_b_correct.wav"],
            "'b' has .*1_b.* and no 'incorrect'",
        ),
        ("pairs", [*A, "4_a_correct.wav"], "stands twice: .*0_a_.* and .*4_a_"),
        ("pairs", [*A, "0_a_mutual.wav"], "0_a_mutual.wav is of no story"),
        ("pairs", ["_correct.wav"], "_correct.wav is of no story"),
        ("pairs", ["song.wav"], "song.wav is of no story"),
        ("pairs", ["a_right.flac"], "a_right.flac is of no story"),
        ("triples", A, "'0_a' has .* and no 'mutual'"),
        ("pairs", [], "holds no .wav or .flac file"),
        ("quads", ["a_correct.wav"], "expected pairs or triples"),
    ],
)
def test_a_folder_that_is_no_story_cloze(tmp_path, layout, names, message):
    folder = write_files(tmp_path / "in", *names)
    folder.mkdir(exist_ok=True)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_story_cloze({"en": folder}, layout, "sSC")


def test_a_story_that_one_language_lacks_is_named(tmp_path):
    names = [f"{story}_{part}.wav" for story in "ab" for part in TRIPLE]
    folders = {
        "en": write_files(tmp_path / "en", *names[:3]),
        "fr": write_files(tmp_path / "fr", *names),
    }
    with pytest.raises(ValueError, match=r"'b' has .*fr and no 'en'"):
        read_story_cloze(folders, "triples", "sSC")
    with pytest.raises(FileNotFoundError, match="none is no folder"):
        read_story_cloze({"en": tmp_path / "none"}, "pairs", "sSC")


def test_stories_are_told_from_what_a_system_leaves(tmp_path):
    """Hidden files are no stories, and a name is one in either Unicode form."""
    names = [f"Zo\u00eb_{part}.wav" for part in TRIPLE[1:]]
    folders = {
        "en": write_files(tmp_path / "en", *names),
        "fr": write_files(
            tmp_path / "fr", *(normalize("NFD", name) for name in names)
        ),
    }
    (tmp_path / "en" / f"._{names[0]}").write_bytes(b"\0\5\x16\7")
    clips, _ = read_story_cloze(folders, "pairs", "sSC")
    assert len(clips) == 4
    stories = {clip.story_id for clip in clips}
    assert stories == {"sSC.Zo\u00eb.correct", "sSC.Zo\u00eb.incorrect"}


# What every benchmark becomes.


def test_manifest_and_items_are_of_one_run(tmp_path, monkeypatch):
    """A run that fails between the two leaves those of the run before."""
    folder = write_files(tmp_path / "in", "a_correct.wav", "a_incorrect.wav")
    clips, items = read_story_cloze({"en": folder}, "pairs", "sSC")
    out = tmp_path / "out"
    write_prepared(out, clips, items)
    before = {path: path.read_bytes() for path in out.glob("*.parquet")}
    assert len(before) == 2
    real = spoken_items.write_table

    def fails(path, table):
        if path.name == "items.parquet":
            raise OSError("the disk is gone")
        real(path, table)

    monkeypatch.setattr(spoken_items, "write_table", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        write_prepared(out, [c._replace(speaker="tim") for c in clips], items)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_long_files_are_cropped_into_copies(tmp_path, subtype):
    source = tmp_path / "in"
    long = write_wav(source / "0_a_correct.wav", 0.5, subtype)
    short = write_wav(source / "0_a_incorrect.wav", 0.2, subtype)
    before = sha256_file(long)
    found = read_story_cloze({"en": source}, "pairs", "sSC")
    rows, _, paths = prepared(tmp_path / "out", *found, 0.25)
    notes = pq.read_table(tmp_path / "out/speech.parquet")["note"].to_pylist()
    assert notes == [f"the first 2000 of 4000 samples of {long.resolve()}", ""]
    cropped = paths["sSC.a.correct", "en"]
    assert str(tmp_path / "out/audio") in cropped
    part, rate = soundfile.read(cropped)
    np.testing.assert_array_equal(part, soundfile.read(long)[0][:2000])
    entry = rate, rows[0]["num_samples"], rows[0]["sha256"]
    assert entry == (RATE, 2000, sha256_file(cropped))
    assert paths["sSC.a.incorrect", "en"] == str(short)
    assert sha256_file(long) == before


def test_audio_that_is_none_is_named(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    write_wav(tmp_path / "empty.wav", 0)
    write_wav(tmp_path / "good.wav")
    for names, message in (
        ("gone", r"gone.wav does not exist"),
        ("text", r"text.wav cannot be read as audio"),
        ("empty", r"empty.wav .*holds no sample"),
        ("gone text", r"stands twice: .*gone.*text"),
        ("good", "max_seconds is 0"),
    ):
        clips = [
            Clip("a", "en", "lea", tmp_path / f"{name}.wav")
            for name in names.split()
        ]
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            write_prepared(tmp_path, clips, [Item(*"abcdefg")], 0)
    with pytest.raises(ValueError, match="no item"):
        write_prepared(tmp_path, clips, [])
    assert not list(tmp_path.glob("*.parquet"))


# sWUGGY and sBLIMP.

# Two pairs in two voices, shuffled; the second word is unknown, once
# without a frequency.
LEXICAL = """id,filename,voice,frequency,word,phones,length,correct
1,aa,A,,blick,B L IH K,4,0
2,bb,A,0,tapir,T EY P ER,4,1
1,cc,B,12,brick,B R IH K,4,1
1,dd,A,12,brick,B R IH K,4,1
2,ee,A,,,T EY F ER,4,0
1,ff,B,,blick,B L IH K,4,0
2,gg,B,,,T EY F ER,4,0
2,hh,B,,tapir,T EY P ER,4,1
"""
# The same id in two phenomena is not the same pair.
SYNTACTIC = """id,filename,voice,type,subtype,transcription,correct
5,s1,A,agreement,plural,"dogs eat, and run",1
5,s2,A,binding,gender,she hurts himself,0
5,s3,A,binding,gender,she hurts herself,1
5,s4,A,agreement,plural,"dogs eats, and run",0
"""


def gold(folder, text):
    """Write gold.csv, and a WAV file for each row."""
    names = [f"{row.split(',')[1]}.wav" for row in text.splitlines()[1:]]
    write_files(folder, *names)
    (folder / "gold.csv").write_text(text)
    return folder


def sides(items):
    names = ("right", "wrong", "group", "subset")
    return {tuple(item[name] for name in names) for item in items}


def test_swuggy(tmp_path):
    clips, items = read_zerospeech(gold(tmp_path / "dev", LEXICAL), "sWUGGY")
    rows, items, paths = prepared(tmp_path / "out", clips, items)
    speakers = {(r["language"], r["story_id"], r["speaker"]) for r in rows}
    assert {("en", "sWUGGY.aa", "A"), ("en", "sWUGGY.cc", "B")} < speakers
    assert sides(items) == {
        ("sWUGGY.dd", "sWUGGY.aa", "1", "in-vocabulary"),
        ("sWUGGY.cc", "sWUGGY.ff", "1", "in-vocabulary"),
        ("sWUGGY.bb", "sWUGGY.ee", "2", "out-of-vocabulary"),
        ("sWUGGY.hh", "sWUGGY.gg", "2", ""),
    }
    assert {item["prompt"] for item in items} == {""}
    assert paths["sWUGGY.aa", "en"] == str(tmp_path / "dev/aa.wav")


def test_sblimp(tmp_path):
    clips, items = read_zerospeech(gold(tmp_path, SYNTACTIC), "sBLIMP")
    _, items, _ = prepared(tmp_path / "out", clips, items)
    assert sides(items) == {
        ("sBLIMP.s1", "sBLIMP.s4", "agreement/plural/5", "agreement"),
        ("sBLIMP.s3", "sBLIMP.s2", "binding/gender/5", "binding"),
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("frequency", "count", r"missing column\(s\) frequency; found id, fi"),
        ("2,hh,B,,tapir,T EY P ER,4,1\n", "", "hh.wav .* stand in no row"),
        ("hh,B", "hh,C", "id '2', voice 'B' has a wrong file .gg. and no rig"),
        ("ff,B", "ff,C", "id '1', voice 'B' has a right file .cc. and no wro"),
        ("2,hh", "2,bb", "key.* stand more than once.*bb"),
        ("bb,A", "bb,", "column 'voice' is empty"),
        (",4,1\n2,ee", ",4,2\n2,ee", "row 3: correct is '2'; expected 1"),
        ("B,12", "B,often", "row 2: frequency is 'often'"),
        ("B,12", "B,-1", "row 2: frequency is '-1'"),
        ("brick,B R", "brick,B,R", "gold.csv cannot be read as CSV"),
    ],
)
def test_a_gold_table_that_is_none(tmp_path, old, new, message):
    assert old in LEXICAL
    gold(tmp_path, LEXICAL)
    (tmp_path / "gold.csv").write_text(LEXICAL.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as caught:
        read_zerospeech(tmp_path, "sWUGGY")
    assert str(tmp_path) in str(caught.value)


def test_zerospeech_files_that_are_not_there(tmp_path):
    folder = gold(tmp_path / "dev", LEXICAL)
    (folder / "cc.wav").unlink()
    found = read_zerospeech(folder, "sWUGGY")
    with pytest.raises(FileNotFoundError, match=r"cc.wav does not exist"):
        write_prepared(tmp_path / "out", *found)
    message = rf"{tmp_path}/gold.csv does not exist.* comes with"
    with pytest.raises(FileNotFoundError, match=message) as caught:
        read_zerospeech(tmp_path, "sBLIMP")
    assert "stage" not in str(caught.value)
    with pytest.raises(ValueError, match="expected sWUGGY or sBLIMP"):
        read_zerospeech(folder, "sSIMI")
    (folder / "gold.csv").write_text(f"{LEXICAL.splitlines()[0]}\n")
    with pytest.raises(ValueError, match="has no row"):
        read_zerospeech(folder, "sWUGGY")


# Code-switched pairs.


@pytest.fixture
def code_switched(tmp_path):
    names = [f"{s}/{n}.wav" for s in ("correct", "wrong") for n in ("1", "2")]
    return write_files(tmp_path / "fr_en/test", *names)


def test_files_of_one_name_are_a_pair(tmp_path, code_switched):
    found = read_utterance_pairs(code_switched, "CSZS", "fr-en")
    rows, items, paths = prepared(tmp_path / "out", *found)
    assert len(rows) == 4
    assert [item["item_id"] for item in items] == ["1", "2"]
    for item in items:
        name = f"{item['item_id']}.wav"
        assert paths[item["right"], "fr-en"].endswith(f"/correct/{name}")
        assert paths[item["wrong"], "fr-en"].endswith(f"/wrong/{name}")
        assert item["prompt"] == ""


def test_a_table_of_pairs(tmp_path, code_switched):
    """What looks like a number is a name, and what is missing has a default."""
    table = code_switched / "pairs.csv"
    absolute = code_switched / "wrong/1.wav"
    table.write_text(
        "pair,right,wrong,speaker,group,subset\n"
        f"01,correct/1.wav,{absolute},1089,01,007\n"
        "1,correct/2.wav,wrong/2.wav,,1,\n"
    )
    found = read_utterance_pairs(table, "mine", "fr", "tim")
    rows, items, paths = prepared(tmp_path / "out", *found)
    assert paths["mine.01.wrong", "fr"] == str(absolute)
    assert paths["mine.1.right", "fr"] == str(code_switched / "correct/2.wav")
    assert [row["speaker"] for row in rows] == ["1089"] * 2 + ["tim"] * 2
    groups = [(item["group"], item["subset"]) for item in items]
    assert groups == [("01", "007"), ("1", "")]


def test_pairs_that_are_none(tmp_path, code_switched):
    write_wav(code_switched / "wrong/3.wav")
    with pytest.raises(
        ValueError, match=r"'3' has .*wrong/3.wav and no 'correct'"
    ):
        read_utterance_pairs(code_switched, "CSZS", "fr-en")
    write_wav(code_switched / "wrong/3.flac")
    with pytest.raises(
        ValueError, match=r"'3' stands twice: .*3.flac and .*3.wav"
    ):
        read_utterance_pairs(code_switched, "CSZS", "fr-en")
    shutil.rmtree(code_switched / "wrong")
    with pytest.raises(FileNotFoundError, match="wrong is no folder"):
        read_utterance_pairs(code_switched, "CSZS", "fr-en")
    table = code_switched / "pairs.csv"
    with pytest.raises(FileNotFoundError, match=r"pairs.csv does not exist"):
        read_utterance_pairs(table, "CSZS", "fr-en")
    for text, message in (
        ("pair,right\na,b\n", "missing column.* wrong"),
        ("pair,right,wrong\na,b,\n", "column 'wrong' is empty"),
        ("pair,right,wrong\na,b,c\na,d,e\n", "stand more than once"),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_utterance_pairs(table, "CSZS", "fr-en")
