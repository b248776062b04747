import json
import math
import runpy

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_store
from processes import ROOT

from speechbrain_slm.utils.atomic import read_json
from speechbrain_slm.utils.store import StoreWriter
from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY, write_table

TOOL = str(ROOT / "tools" / "inspect_units.py")
INSPECT = runpy.run_path(TOOL)
RATE = 50.0  # units a second
FRAMES = 10  # of each sentence
PHONES = ("a", "b")


def write_spoken(folder, deduplicated=False, config=None, several=()):
    """Write a store, its manifest and its phones; of some, several speakers.

    Each of two sentences, of five frames a phone, is spoken by two speakers
    in English, who share the units of "a" alone; in French by one speaker.
    """
    tokenizer = {"identity": "codebook-a", "vocabulary_size": 8}
    tokenizer |= {"frame_rate": RATE, "deduplicated": deduplicated}
    tokenizer["config"] = config or {}
    writer = StoreWriter(folder / "store", tokenizer, "manifest-a", 3)
    units = {
        ("en", "alto"): [[0] * 5 + [1] * 5, [1] * 5 + [0] * 5],
        ("en", "bass"): [[0] * 5 + [2] * 5, [2] * 5 + [0] * 5],
        ("fr", "alto"): [[3] * 5 + [4] * 5, [4] * 5 + [3] * 5],
    }
    stories = [("s0", "alto", "en"), ("s0", "alto", "fr"), ("s1", "bass", "en")]
    manifest, phones = [], []
    for shard, (story_id, speaker, language) in enumerate(stories):
        sentences = units[language, speaker]
        name = "" if story_id in several else speaker
        writer.write(shard, [(story_id, language, name, sentences)])
        for number in range(2):
            key = (story_id, number, language)
            samples, text = 16000 * FRAMES / RATE, f"Sentence {number}."
            sound = ("none.flac", int(samples), 16000, "0")
            manifest.append((*key, speaker, *sound, text))
            for phone, start in zip(PHONES, (0.0, 0.1), strict=True):
                name = phone if number == 0 else PHONES[phone == "a"]
                phones.append((*key, start, name))
    writer.finish()
    for name, rows, columns in (
        ("manifest", manifest, (*MANIFEST.names, "text")),
        ("phones", phones, (*MANIFEST_KEY, "start", "phone")),
    ):
        values = list(map(list, zip(*rows, strict=True)))
        write_table(folder / f"{name}.parquet", pa.table(values, columns))
    return folder


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    return write_spoken(tmp_path_factory.mktemp("spoken"))


def say(capsys, *arguments):
    INSPECT["main"](list(map(str, arguments)))
    return capsys.readouterr().out


def inspect(capsys, *arguments):
    return json.loads(say(capsys, *arguments, "--json"))


def test_everything_is_measured(spoken, capsys):
    tables = "--manifest", spoken / "manifest.parquet"
    tables += "--phones", spoken / "phones.parquet"
    record = inspect(capsys, spoken / "store", *tables)
    assert record["store"] == read_json(spoken / "store" / "store.json")
    one = {"stories": 1, "sentences": 2, "units": 20}
    time = {"hours": pytest.approx(0.4 / 3600), "units_per_second": RATE}
    tellers = ("en", "alto"), ("en", "bass"), ("fr", "alto")
    assert record["spoken"] == [
        {"language": language, "speaker": speaker, **one, **time}
        for language, speaker in tellers
    ]
    codebook = record["codebook"]
    assert (codebook["vocabulary_size"], codebook["dead"]) == (8, 3)
    english = codebook["languages"]["en"]
    entropy = 0.5 * math.log(2) + 0.5 * math.log(4)
    assert english["perplexity"] == pytest.approx(math.exp(entropy))
    english, french = (record["languages"][name] for name in ("en", "fr"))
    assert english["deduplication_ratio"] == 0.2
    assert english["units_per_frame"] == pytest.approx(1.0)
    assert english["sentence_lengths"]["0.5"] == FRAMES
    assert english["pnmi"] == pytest.approx(1.0)
    # Unit 0 tells nothing of the speaker, units 1 and 2 all: half the frames.
    assert english["speaker_nmi"] == pytest.approx(0.5)
    voices = {"same_sentence": 0.5, "other_sentence": 1.0}
    assert english["voices"] == {**voices, "ratio": 0.5, "pairs": 2}
    assert "speaker_nmi" not in french
    assert french["voices"] == {"pairs": 0}
    assert [one["text"] for one in record["sample"]] == ["Sentence 0."] * 2


def test_a_store_alone_is_inspected(store_folder, capsys):
    record = inspect(capsys, store_folder)
    units = sum(row["units"] for row in record["spoken"])
    counts = read_json(store_folder / "store.json")["counts"]
    assert units == sum(count["units"] for count in counts.values())
    assert "hours" not in record["spoken"][0]
    assert record["languages"]["en"]["stories"] == 40
    assert record["languages"]["en"]["sentence_lengths"]["1.0"] == 7
    few = inspect(capsys, store_folder, "--stories", 9)["languages"]
    assert sum(found["stories"] for found in few.values()) == 9


def test_it_reads_well(spoken, store_folder, capsys):
    text = say(capsys, store_folder)
    assert "all 3 files are whole" in text
    assert "25 Hz, de-duplicated, vocabulary of 30" in text
    tables = "--manifest", spoken / "manifest.parquet"
    tables += "--phones", spoken / "phones.parquet"
    text = say(capsys, spoken / "store", *tables)
    assert "PNMI (1 is best): 1.000" in text
    assert "ratio (0 is best): 0.500 (2 pairs)" in text
    assert "s0 en alto: Sentence 0." in text


def test_who_tells_a_story_of_several_is_not_guessed(tmp_path, capsys):
    folder = write_spoken(tmp_path, several=["s0"])
    record = inspect(
        capsys, folder / "store", "--manifest", folder / "manifest.parquet"
    )
    english = record["languages"]["en"]
    # One story of one speaker is left: nothing to compare it with.
    assert "speaker_nmi" not in english
    assert english["voices"] == {"pairs": 0}
    assert [row["speaker"] for row in record["spoken"]] == ["", "bass", ""]
    assert "en       (several) " in say(capsys, folder / "store")


def test_a_story_that_lost_a_sentence_has_no_time(spoken, tmp_path, capsys):
    table = pq.read_table(spoken / "manifest.parquet")
    extra = {**table.to_pylist()[0], "sentence": 2, "text": "Dropped."}
    extra = pa.Table.from_pylist([extra], table.schema)
    table = pa.concat_tables([table, extra])
    write_table(tmp_path / "manifest.parquet", table)
    record = inspect(
        capsys, spoken / "store", "--manifest", tmp_path / "manifest.parquet"
    )
    assert ["hours" in row for row in record["spoken"]] == [False, True, True]
    assert record["languages"]["en"]["voices"] == {"pairs": 0}


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "edit"])
def test_a_damaged_file_is_named(tmp_path, damage):
    folder = write_store(tmp_path / "store")
    path = folder / "units-00001.arrow"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[: -9 if damage == "truncate" else None])
    if damage == "remove":
        path.unlink()
    elif damage == "edit":
        path = folder / "store.json"
        path.write_text(path.read_text().replace("25.0", "50.0"))
    with pytest.raises(ValueError, match=path.name):
        INSPECT["main"]([str(folder)])


@pytest.mark.parametrize(
    "change", [{"deduplicated": True}, {"config": {"base": {}, "bpe": {}}}]
)
def test_phones_need_a_unit_a_frame(tmp_path, change, capsys):
    folder = write_spoken(tmp_path, **change)
    with pytest.raises(ValueError, match="no place in time"):
        say(capsys, folder / "store", "--phones", folder / "phones.parquet")


def test_the_manifest_of_other_speech_is_refused(spoken, tmp_path, capsys):
    folder = write_store(tmp_path / "store")
    with pytest.raises(ValueError, match="holds no story of the store"):
        say(capsys, folder, "--manifest", spoken / "manifest.parquet")


def test_what_is_no_store_ends_with_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", [TOOL, str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: .* is not a complete unit"):
        runpy.run_path(TOOL, run_name="__main__")
