"""Published sets of spoken pairs, made small, and every way to break one."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from processes import load_script
from published_sets import (
    SALMON,
    sound,
    write_pairs,
    write_rows,
    write_salmon,
    write_story_cloze,
)

from speechbrain_slm.benchmarks.pair_rows import PairRows, read_pair_rows
from speechbrain_slm.units.manifest import read_manifest
from speechbrain_slm.utils.tables import read_items

ROOT = Path(__file__).parents[3]
prepare = load_script(ROOT / "recipes/ZeroSpeech/zerospeech_prepare.py")
PAIRS = {"positive": "positive", "negative": "negative"}
SPOKEN = {
    "positive": "positive_audio",
    "negative": "negative_audio",
    "pair": ["task", "ind"],
    "subset": "task",
    "subsets": list(SALMON),
}


def prepared(folder, **benchmarks):
    """Prepare benchmarks; return their items and the audio of each story."""
    prepare.prepare_zerospeech(benchmarks, folder)
    rows = read_manifest(folder / "speech.parquet", ["en"]).to_pylist()
    items, _ = read_items(folder / "items.parquet")
    return items.to_pylist(), {row["story_id"]: row for row in rows}


def content(row):
    return Path(row["audio"]).read_bytes()


def test_salmon_has_a_subset_for_each_part(tmp_path):
    source = str(write_salmon(tmp_path / "in"))
    items, rows = prepared(
        tmp_path / "out", SALMon={**SPOKEN, "source": source}
    )
    assert (len(items), len(rows)) == (24, 48)
    for item in items:
        part, ind = item["item_id"].split(".")
        seed = SALMON.index(part), int(ind)
        assert (item["subset"], item["prompt"]) == (part, "")
        for number, side in enumerate(("right", "wrong")):
            row = rows[item[side]]
            assert content(row) == sound(*seed, number)["bytes"]
            assert (row["num_samples"], row["sample_rate"]) == (4800, 16000)
            assert row["speaker"] == "unknown"


def test_voices_in_a_column_are_grouped(tmp_path):
    """Ids begin anew in each subtype: three columns name a pair."""
    told = {**PAIRS, "source": str(write_pairs(tmp_path / "in"))}
    told |= {"speaker": "voice", "subset": "type"}
    names = ["type", "subtype", "id"]
    items, rows = prepared(tmp_path / "out", sBLIMP={**told, "pair": names})
    assert len(items) == 12
    by_id = {item["item_id"]: item for item in items}
    item = by_id["binding.plural.2.B"]
    assert (item["group"], item["subset"]) == ("binding/plural/2", "binding")
    assert content(rows[item["right"]]) == sound(2, 1, 1, 1)["bytes"]
    assert content(rows[item["wrong"]]) == sound(2, 1, 1, 0)["bytes"]
    assert rows[item["wrong"]]["speaker"] == "B"
    assert len({item["group"] for item in items}) == 6
    with pytest.raises(ValueError, match=r"row 2: '0\.A' stands twice"):
        prepared(tmp_path / "other", sBLIMP={**told, "pair": ["id"]})


def test_voices_in_folders_are_grouped(tmp_path):
    folder = write_story_cloze(tmp_path / "in")
    told = {"positive": "correct_audio", "negative": "negative_audio"}
    told |= {"pair": ["id"]}
    told["source"] = {name: str(folder / "sSC" / name) for name in ("af", "bm")}
    items, rows = prepared(tmp_path / "out", ms_sSC=told, tSC=None)
    groups = [(item["item_id"], item["group"]) for item in items]
    assert groups == [
        (f"story-{number}.{voice}", f"story-{number}")
        for voice in ("af", "bm")
        for number in range(3)
    ]
    right = rows["ms_sSC.story-1.bm.right"]
    assert right["speaker"] == "bm"
    assert right["sample_rate"] == 24000
    assert content(right) == sound(0, 1, 1, 0, rate=24000)["bytes"]


def test_audio_as_paths(tmp_path):
    """Paths start from the table's folder, or are absolute."""
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.wav").write_bytes(sound(seed)["bytes"])
    row = {"n": 7, "positive": "a.wav", "negative": str(tmp_path / "b.wav")}
    source = write_rows(tmp_path / "t.parquet", [row])
    told = {**PAIRS, "pair": ["n"], "source": str(source), "language": "en"}
    (item,), rows = prepared(tmp_path / "out", mine=told)
    assert item["item_id"] == "7"
    assert rows["mine.7.right"]["audio"] == str(tmp_path / "a.wav")
    assert rows["mine.7.wrong"]["audio"] == str(tmp_path / "b.wav")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positive": None}, "row 1: positive: no audio"),
        (
            {"negative": {"bytes": b"RIFF", "path": None}},
            "row 1: negative: bad",
        ),
        (
            {"positive": {"bytes": None, "path": "x.wav"}},
            r"x\.wav does not exi",
        ),
        ({"id": None}, "row 1: id is empty; expected"),
        ({"id": 0}, r"row 1: '0\.A' stands twice"),
        ({"voice": " "}, "row 1: voice is empty"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, change, message):
    rows = [
        {**{side: sound(n, side == "positive") for side in PAIRS}, "id": n}
        for n in range(3)
    ]
    rows = [{**row, "voice": "A"} for row in rows]
    rows[1] |= change
    source = write_rows(tmp_path / "in.parquet", rows)
    told = PairRows(str(source), **PAIRS, pair=["id"], speaker="voice")
    with pytest.raises(ValueError, match=message) as caught:
        read_pair_rows("set", told, tmp_path / "out")
    assert str(source) in str(caught.value)


def test_other_columns_and_settings_are_named(tmp_path):
    folder = write_salmon(tmp_path / "in", rows=1)
    told = {**SPOKEN, "source": str(folder)}
    for change, message in (
        (
            {"positive": "positive"},
            r"positive; found task, ind, positive_audio",
        ),
        ({"pair": []}, "SALMon: found .*; expected source, positive, negative"),
        ({"part": "task"}, "found .*part; expected source"),
        ({"pair": "ind"}, "pair is 'ind', .*expected a list of columns"),
        ({"subset": None}, "subset is None; expected .* the column in which"),
    ):
        with pytest.raises(ValueError, match=message):
            prepared(tmp_path / "out", SALMon={**told, **change})
    (folder / SALMON[4] / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(
        ValueError, match=r"task holds bg_alignment, .* expected"
    ):
        prepared(tmp_path / "out", SALMon=told)
    empty = pq.read_table(folder / SALMON[0]).slice(0, 0)
    pq.write_table(empty, tmp_path / "empty.parquet")
    told["source"] = str(tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match=r"empty\.parquet has no row"):
        prepared(tmp_path / "out", SALMon=told)
    told["source"] = str(tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"nowhere is no file.*hf downlo"
    ):
        prepared(tmp_path / "out", SALMon=told)
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.long
def test_a_set_is_read_through_datasets(tmp_path):
    """``hub:`` reads a folder of the hub's form, too; audio is not decoded."""
    pytest.importorskip("datasets")
    folder = write_pairs(tmp_path / "in", rows=1, voices=("A",))
    told = {**PAIRS, "source": f"hub:{folder}", "pair": ["type", "id"]}
    items, rows = prepared(tmp_path / "out", sBLIMP=told)
    assert [item["item_id"] for item in items] == ["agreement.0", "binding.0"]
    assert content(rows["sBLIMP.binding.0.right"]) == sound(0, 1, 0, 1)["bytes"]
