import json
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import processes
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from speech_example import (
    FAILURES,
    LANGUAGES,
    RATE,
    REASONS,
    SPEAKERS,
    Humming,
    hum,
    rows_of,
    speak,
    texts_of,
)

from speechbrain_slm.speech import story_shards, synthesis
from speechbrain_slm.speech.audio_files import check_whole, encode
from speechbrain_slm.speech.merging import merge_parts
from speechbrain_slm.speech.shard_speech import SCHEMA, part_path
from speechbrain_slm.speech.story_shards import Shard
from speechbrain_slm.speech.utterances import Limits, Trim
from speechbrain_slm.utils.distributed import init_distributed
from speechbrain_slm.utils.jobs import FolderInUse, lock_folder
from speechbrain_slm.utils.ledger import TooManyLeftOut
from speechbrain_slm.utils.pieces import write_piece
from speechbrain_slm.utils.tables import ITEMS, STORIES, write_table

pytestmark = pytest.mark.long

PARTS = ("prompt", "right", "wrong", "topic")


def make_stories(generator, number=24, items=8):
    """Return stories: name -> sentences as (English, French)."""
    counts = {f"s{n:02d}": generator.randint(2, 5) for n in range(number)}
    for n in range(items):
        lengths = zip(PARTS, (3, 1, 1, 1), strict=True)
        counts |= {f"x{n}.{part}": length for part, length in lengths}
    return {
        name: [(f"{name} says {n}.", f"{name} dit {n}.") for n in range(count)]
        for name, count in counts.items()
    }


def write_stories(folder, stories):
    rows = [
        {"story_id": name, "sentence": n, "en": en, "fr": fr}
        for name, sentences in stories.items()
        for n, (en, fr) in enumerate(sentences)
    ]
    write_table(folder / "text.parquet", pa.Table.from_pylist(rows))
    names = [name[:-7] for name in stories if name.endswith(".prompt")]
    write_items(folder / "items.parquet", names)


def write_items(path, names, without_prompt=""):
    rows = [
        dict.fromkeys(ITEMS.names, "en")
        | {part: f"{name}.{part}" for part in PARTS[:3]}
        | {"item_id": name}
        | ({"prompt": ""} if name == without_prompt else {})
        for name in names
    ]
    write_table(path, pa.Table.from_pylist(rows, schema=ITEMS))


def run(folder, tts=None, **changes):
    options = {"tts": tts or Humming(), "speakers": SPEAKERS}
    options |= {"trim": Trim(-60.0, 0.05), "max_left_out": 0.9}
    options |= {"stories_per_shard": 20, **changes}
    return speak(folder / "text.parquet", folder, **options)


def ledger_of(folder):
    lines = (folder / "left_out.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def expected_stories(stories, failures):
    """Say anew what shall be left: whole sentences, stories and items."""
    kept = {
        name: [pair for pair in pairs if not {*pair} & {*failures}]
        for name, pairs in stories.items()
    }
    hurt = {name for name in stories if kept[name] != stories[name]}
    items = {name.partition(".")[0] for name in hurt if "." in name}
    return {
        name: pairs
        for name, pairs in kept.items()
        if pairs and name.partition(".")[0] not in items
    }


@pytest.mark.parametrize("seed", range(4))
def test_sentences_stay_aligned_whatever_fails(tmp_path, seed):
    generator = random.Random(seed)
    stories = make_stories(generator)
    write_stories(tmp_path, stories)
    texts = texts_of(stories)
    bad = generator.sample(texts, [1, 9, 30, 60][seed])
    failures = {text: generator.choice(FAILURES) for text in bad}
    counts = run(tmp_path, Humming(failures))
    assert counts["failed"] == len(bad)

    left = expected_stories(stories, failures)
    found = {}
    for row in rows_of(tmp_path):
        key = row["story_id"], row["sentence"], row["language"]
        found[key] = row["text"]
        samples, _ = soundfile.read(tmp_path / row["audio"], dtype="int16")
        voice = SPEAKERS["hum"][row["language"]]
        np.testing.assert_array_equal(samples, hum(row["text"], voice))
    assert found == {
        (name, number, language): text
        for name, kept in left.items()
        for number, pair in enumerate(kept)
        for language, text in zip(LANGUAGES, pair, strict=True)
    }

    ledger = ledger_of(tmp_path)
    rows = [entry for entry in ledger if "sentence" in entry]
    assert len(rows) + len(found) == len(texts)
    for entry in rows:
        number = LANGUAGES.index(entry["language"])
        text = stories[entry["story_id"]][entry["sentence"]][number]
        assert entry["text"] == text
        if text in failures:
            kind = failures[text]
            assert entry["reason"] == REASONS.get(kind, kind)
    whole = {entry["story_id"] for entry in ledger if "sentence" not in entry}
    assert whole == stories.keys() - left.keys()
    items = pq.read_table(tmp_path / "items.parquet")
    for row in items.to_pylist():
        assert {row["prompt"], row["right"], row["wrong"]} <= left.keys()
    assert len(items) == sum(name.endswith(".prompt") for name in left)


def test_jobs_and_ranks_make_what_one_process_makes(tmp_path):
    stories = make_stories(random.Random(0))
    failures = {"s03 says 0.": "silence", "x2.wrong dit 0.": "clipped"}
    options = {"tts": Humming(failures), "stories_per_shard": 16}
    for name in ("one", "jobs", "ranks"):
        write_stories(tmp_path / name, stories)
    run(tmp_path / "one", **options)
    for job in (1, 0):
        run(tmp_path / "jobs", job=job, num_jobs=2, **options)
        assert not (tmp_path / "jobs" / "train.parquet").exists()
    counts = run(tmp_path / "jobs", **options)
    assert set(counts.values()) == {0}
    code, output = processes.run(
        processes.command(__file__, tmp_path / "ranks", ranks=2)[:-1],
        PYTHONPATH=f"{processes.ROOT}:{processes.ROOT / 'tests'}",
    )
    assert code == 0, output
    for name in ("train.parquet", "left_out.jsonl", "items.parquet"):
        found = {path.read_bytes() for path in tmp_path.glob(f"*/{name}")}
        assert len(found) == 1


def test_another_run_is_kept_out_of_its_shards(tmp_path):
    write_stories(tmp_path, make_stories(random.Random(0)))
    with (
        lock_folder(tmp_path / "parts" / "train" / "00001"),
        pytest.raises(FolderInUse, match="00001 is being written by another"),
    ):
        run(tmp_path)
    assert not (tmp_path / "train.parquet").exists()
    run(tmp_path)
    assert rows_of(tmp_path)


def replace_text_after_a_shard(folder, stories, monkeypatch):
    """Let the table be replaced once the first shard is spoken."""
    spoken = []
    real = synthesis.speak_shard

    def speak(*arguments):
        counts = real(*arguments)
        if not spoken:
            write_stories(folder, stories)
        spoken.append(arguments[0].number)
        return counts

    monkeypatch.setattr(synthesis, "speak_shard", speak)
    return spoken


def test_text_that_is_replaced_while_it_is_spoken(tmp_path, monkeypatch):
    stories = make_stories(random.Random(0), 9, 0)
    others = {
        name: [(f"Not {en}", f"Pas {fr}") for en, fr in pairs]
        for name, pairs in stories.items()
    }
    write_stories(tmp_path, stories)
    spoken = replace_text_after_a_shard(tmp_path, others, monkeypatch)
    with pytest.raises(ValueError, match=r"text\.parquet was changed"):
        run(tmp_path, stories_per_shard=3)
    assert spoken == [0]
    assert not (tmp_path / "train.parquet").exists()
    monkeypatch.undo()
    write_stories(tmp_path, stories)
    run(tmp_path, stories_per_shard=3)
    said = {row["text"] for row in rows_of(tmp_path)}
    assert said == set(texts_of(stories))


def test_the_manifest_is_of_the_text_that_is_there(tmp_path, monkeypatch):
    """The last shard has been spoken when the table is replaced."""
    stories = make_stories(random.Random(0), 4, 0)
    write_stories(tmp_path, stories)
    # The same text anew is no matter: array jobs write it so.
    replace_text_after_a_shard(tmp_path, stories, monkeypatch)
    run(tmp_path)
    monkeypatch.undo()
    (tmp_path / "parts" / "train" / "00000" / "rows.parquet").unlink()
    longer = {**stories, "t": [("One.", "Un."), ("Two.", "Deux.")]}
    replace_text_after_a_shard(tmp_path, longer, monkeypatch)
    with pytest.raises(ValueError, match=r"text\.parquet was changed"):
        run(tmp_path)
    assert not (tmp_path / "train.parquet").exists()


def test_a_part_that_was_damaged_is_made_again(tmp_path):
    write_stories(tmp_path, make_stories(random.Random(0), 4, 0))
    run(tmp_path)
    before = rows_of(tmp_path)
    part = tmp_path / "parts" / "train" / "00000" / "rows.parquet"
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    part.write_bytes(content)
    counts = run(tmp_path)
    assert counts["found"] > 0
    assert rows_of(tmp_path) == before


def test_what_others_put_there_is_neither_removed_nor_replaced(tmp_path):
    write_stories(tmp_path, make_stories(random.Random(0), 4, 0))
    theirs = tmp_path / "parts" / "train" / "00009" / "thesis.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    (theirs.parent / "rows.parquet").touch()
    paid = tmp_path / "parts" / "train" / "part-0000000.parquet"
    paid.write_text("paid for")
    run(tmp_path)
    assert theirs.exists()
    assert paid.exists()
    table = pa.table({"story_id": ["mine"]})
    write_table(tmp_path / "train.parquet", table)
    with pytest.raises(FileExistsError, match=r"train\.parquet stands where"):
        run(tmp_path, seed=2)
    assert pq.read_table(tmp_path / "train.parquet").equals(table)


def test_a_sentence_that_many_stories_share_is_much(tmp_path):
    """One utterance of many fails, and takes a third of all rows with it."""
    shared = ("Once.", "Il était.")
    stories = {
        f"s{n}": [shared, (f"{n}.", f"Nr {n}."), (f"x{n}", f"y{n}")]
        for n in range(30)
    }
    write_stories(tmp_path, stories)
    with pytest.raises(TooManyLeftOut, match=r"60 of 180 rows of train"):
        run(tmp_path, Humming({"Once.": "silence"}), max_left_out=0.3)


def test_a_voice_that_is_silent_ends_the_run_and_mends(tmp_path):
    stories = make_stories(random.Random(0), 6, 2)
    write_stories(tmp_path, stories)
    texts = texts_of(stories)
    silent = Humming(dict.fromkeys(texts, "silence"))
    with pytest.raises(TooManyLeftOut, match=r"max_left_out is 0\.00%"):
        run(tmp_path, silent, max_left_out=0)
    with pytest.raises(TooManyLeftOut, match=r"left out \(100\.00%\)"):
        run(tmp_path, silent)
    assert not (tmp_path / "train.parquet").exists()
    reasons = Counter(entry["reason"] for entry in ledger_of(tmp_path))
    assert reasons["silence"] == len(texts)
    run(tmp_path)
    assert len(rows_of(tmp_path)) == len(texts)
    assert not ledger_of(tmp_path)


def test_a_duration_at_the_limit_is_within():
    limits = Limits(shortest=0.02, longest=0.3, spare=1.0, clipped=1.0)
    # 0.02 * 35 is a little more than 0.7.
    assert limits.failure(np.ones(11200, np.int16), 16000, "x" * 35) is None
    reason, _ = limits.failure(np.ones(11199, np.int16), 16000, "x" * 35)
    assert reason == "too short"


@pytest.mark.parametrize("kind", ["wav", "opus"])
def test_other_formats(tmp_path, kind):
    write_stories(tmp_path, make_stories(random.Random(0), 3, 0))
    counts = run(tmp_path, audio_format=kind)
    before = rows_of(tmp_path)
    for row in before:
        assert row["audio"].endswith(f".{kind}")
        samples, rate = soundfile.read(tmp_path / row["audio"], dtype="int16")
        assert (len(samples), rate) == (row["num_samples"], RATE)
        voice = SPEAKERS["hum"][row["language"]]
        said = hum(row["text"], voice)
        assert len(samples) == len(said)
        assert np.corrcoef(samples, said)[0, 1] > 0.95
    torn = tmp_path / before[0]["audio"]
    torn.write_bytes(torn.read_bytes()[:-20])
    again = run(tmp_path, audio_format=kind)
    assert again["damaged"] == 1
    assert again["found"] == counts["spoken"] - 1


@pytest.mark.parametrize("kind", ["flac", "wav", "opus"])
def test_damage_before_the_sum_is_taken_is_found(kind):
    """What a killed run left is in no part yet, whose sum would tell."""
    samples = hum("Anna.", SPEAKERS["hum"]["en"])
    content = encode(samples, RATE, kind)
    whole = check_whole(content, kind, RATE)
    assert kind == "opus" or np.array_equal(whole, samples)
    generator = random.Random(0)
    for place in generator.sample(range(len(content)), 100):
        damaged = bytearray(content)
        damaged[place] ^= 1 << generator.randrange(8)
        found = check_whole(bytes(damaged), kind, RATE)
        assert found is None or np.array_equal(found, whole)


def test_loudness_is_set_and_changes_the_names(tmp_path):
    torch = pytest.importorskip("torch")
    from torchaudio.functional import loudness

    write_stories(tmp_path, make_stories(random.Random(0), 3, 0))
    run(tmp_path)
    before = {row["audio"] for row in rows_of(tmp_path)}
    run(tmp_path, loudness=-26.0)
    rows = rows_of(tmp_path)
    assert not before & {row["audio"] for row in rows}
    for row in rows:
        samples, _ = soundfile.read(tmp_path / row["audio"])
        found = float(loudness(torch.from_numpy(samples)[None], RATE))
        assert found == pytest.approx(-26.0, abs=0.3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio_format": "mp3"}, "'mp3'; expected flac or wav or opus"),
        ({"max_left_out": 1.5}, "max_left_out is 1.5; expected"),
        ({"stories_per_shard": 0}, "stories_per_shard is 0; expected"),
        ({"job": 2, "num_jobs": 2}, "job is 2; expected 0 to 1"),
    ],
)
def test_bad_options(tmp_path, changes, message):
    write_stories(tmp_path, make_stories(random.Random(0), 3, 0))
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **changes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no story"),
        ([("a", 0), ("a", 2)], "row 1: sentence 2 of story 'a'; expected"),
        ([("a", 1)], "row 0: sentence 1 of story 'a'; expected"),
        ([("a", 0), ("b", 0), ("a", 0)], "1 story_id.s. stand more than once"),
        ([("a", 0), ("b", 0), ("a", 1)], "row 2: sentence 1 of story 'a'"),
    ],
)
def test_bad_tables(tmp_path, rows, message, monkeypatch):
    # As if it were read in several batches.
    monkeypatch.setattr(story_shards, "_BATCH", 2)
    schema = pa.schema([*STORIES, ("en", pa.string()), ("fr", pa.string())])
    rows = [(*row, "One.", "Un.") for row in rows]
    rows = [dict(zip(schema.names, row, strict=True)) for row in rows]
    table = pa.Table.from_pylist(rows, schema)
    write_table(tmp_path / "text.parquet", table)
    with pytest.raises(ValueError, match=message):
        run(tmp_path)


def merge(folder, stories):
    """Merge a split of stories of one sentence; return the items' names."""
    shard = Shard("cloze", 0, folder / "cloze.parquet", 0, len(stories))
    row = dict.fromkeys(SCHEMA.names, "x")
    row |= dict.fromkeys(("sentence", "num_samples", "sample_rate", "size"), 0)
    table = pa.Table.from_pylist(
        [{**row, "story_id": name} for name in stories], SCHEMA
    )
    facts = {"identity": "", "utterances": 1, "failed": 0, "ledger": []}
    write_piece(part_path(folder, shard), table, facts)
    merge_parts({shard: ""}, folder, 0.0)
    return pq.read_table(folder / "items.parquet")["item_id"].to_pylist()


def test_an_item_goes_whose_story_is_not_there(tmp_path):
    """A translation may have left out a part of an item."""
    write_items(tmp_path / "items.parquet", "abc", without_prompt="c")
    # None of the items' stories: they are those of another run.
    assert merge(tmp_path, ["train-1"]) == ["a", "b", "c"]
    there = ["a.prompt", "a.right", "b.prompt", "b.right", "b.wrong"]
    there += ["c.right", "c.wrong"]
    assert merge(tmp_path, there) == ["b", "c"]


if __name__ == "__main__":
    init_distributed("cpu")
    failing = {"s03 says 0.": "silence", "x2.wrong dit 0.": "clipped"}
    run(Path(sys.argv[1]), Humming(failing), stories_per_shard=16)
