import contextlib
import csv
import hashlib
import io
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from speech_example import LANGUAGES, rows_of
from units_example import clip

from speechbrain_slm.speech.imported import spoken
from speechbrain_slm.speech.imported.assembly import align
from speechbrain_slm.speech.imported.rows import Columns, Reader
from speechbrain_slm.speech.imported.sources import iterate_parts
from speechbrain_slm.speech.imported.spoken import import_spoken
from speechbrain_slm.utils import jobs
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.ledger import NOTHING_LEFT, TooManyLeftOut

pytestmark = pytest.mark.long

LONG = Columns(
    story="story", sentence="nr", language="lang", speaker="who", audio="wav"
)


def sound(samples):
    content = io.BytesIO()
    soundfile.write(content, samples, 16000, format="FLAC")
    return content.getvalue()


def audio(number):
    return sound(clip(number, 0.1))


def long_rows(stories=5, sentences=3, first=0):
    return [
        {
            "story": f"s{story}",
            "nr": sentence + first,
            "lang": language,
            "who": f"voice-{(story + sentence) % 2}",
            "wav": audio(story * 10 + sentence + 100 * (language == "fr")),
        }
        for language in LANGUAGES
        for story in range(stories)
        for sentence in range(sentences)
    ]


def write(path, rows, row_group_size=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def run(source, folder, columns=LONG, **options):
    """Import a source as the split ``train``, and return its rows."""
    import_spoken({"train": [source]}, folder, columns, LANGUAGES, **options)
    return read(folder)


def read(folder):
    rows = rows_of(folder)
    for row in rows:
        found = folder / row["audio"]
        assert sha256_file(found) == row["sha256"]
        info = soundfile.info(found)
        length = (row["num_samples"], row["sample_rate"])
        assert (info.frames, info.samplerate) == length
    return rows


def ledger(folder):
    lines = (folder / "left_out.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def by_key(rows):
    return {
        (row["story_id"], row["sentence"], row["language"]): row["sha256"]
        for row in rows
    }


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def corpus(tmp_path):
    """Recordings and a table of them: its path and its rows."""
    (tmp_path / "in" / "wav").mkdir(parents=True)
    rows = long_rows(6, 3)
    for number, row in enumerate(rows):
        content, row["wav"] = row["wav"], f"wav/{number}.flac"
        (tmp_path / "in" / row["wav"]).write_bytes(content)
    return write_lines(tmp_path / "in" / "a.jsonl", rows), rows


def write_lines(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def watch(monkeypatch, seen):
    """Let each row that is read be told to a function, with its reader."""
    real = Reader.facts_of

    def facts_of(self, row, *rest):
        seen(row)
        return real(self, row, *rest)

    monkeypatch.setattr(Reader, "facts_of", facts_of)


def test_every_layout_gives_the_same_manifest(tmp_path):
    """Bytes, the hub's struct, paths, CSV, JSONL, and a column a language."""
    rows, files = long_rows(first=1), tmp_path / "files"
    files.mkdir()
    for number, row in enumerate(rows):
        (files / f"{number}.flac").write_bytes(row["wav"])
    paths = [{**row, "wav": f"{n}.flac"} for n, row in enumerate(rows)]
    hub = [{**r, "wav": {"bytes": r["wav"], "path": "x.flac"}} for r in rows]
    wide = [
        {**row, "wav_en": row["wav"], "wav_fr": other["wav"]}
        for row, other in zip(rows[:15], rows[15:], strict=True)
    ]
    table = files / "metadata.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(paths[0]))
        writer.writeheader()
        writer.writerows(paths)
    (tmp_path / "rows").mkdir()
    absolute = [{**row, "wav": str(files / row["wav"])} for row in paths]
    write_lines(tmp_path / "rows" / "a.jsonl", absolute)
    columns = {"en": "wav_en", "fr": "wav_fr"}
    both = Columns(story="story", sentence="nr", audio=columns, speaker="who")
    expected = {
        (row["story"], row["nr"] - 1, row["lang"]): sha256(row["wav"])
        for row in rows
    }
    assert len(expected) == 30
    for name, source, chosen in (
        ("bytes", write(tmp_path / "b.parquet", rows), LONG),
        ("hub", write(tmp_path / "h.parquet", hub), LONG),
        ("paths", write(files / "p.parquet", paths), LONG),
        ("csv", table, LONG),
        ("jsonl", tmp_path / "rows", LONG),
        ("wide", write(tmp_path / "w.parquet", wide), both),
    ):
        found = run(source, tmp_path / name, chosen, batch_rows=4)
        assert by_key(found) == expected, name
        assert ledger(tmp_path / name) == []


def test_sentences_stay_aligned_whatever_fails(tmp_path):
    """Failures at random: what is kept still pairs as in the source."""
    generator = np.random.default_rng(0)
    broken = [b"", b"no audio", None, audio(1)[:60], sound(np.zeros(800))]
    for trial in range(4):
        rows = long_rows(6, 4)
        origin = {sha256(row["wav"]): dict(row) for row in rows}
        bad = set()
        for row in rows:
            if generator.random() < 0.15:
                row["wav"] = broken[generator.integers(len(broken))]
                bad.add((row["story"], row["nr"]))
        for index in generator.permutation(len(rows))[:3]:
            bad.add((rows[index]["story"], rows[index]["nr"]))
            rows[index]["lang"] = "de"
        twice = rows[generator.integers(len(rows))]
        bad.add((twice["story"], twice["nr"]))
        rows = [rows[n] for n in generator.permutation(len(rows))]
        source = write(tmp_path / f"{trial}.parquet", [*rows, dict(twice)])
        output = tmp_path / f"out-{trial}"
        kept = run(source, output, buckets=3, max_left_out=0.9)
        found = by_key(kept)
        for row in kept:
            one = origin[row["sha256"]]
            told = [row[key] for key in ("story_id", "language", "speaker")]
            assert told == [one["story"], one["lang"], one["who"]]
            other = origin[found[row["story_id"], row["sentence"], "en"]]
            assert other["nr"] == one["nr"]
        good = {(row["story"], row["nr"]) for row in origin.values()} - bad
        assert len(kept) == 2 * len(good)
        lines = [entry for entry in ledger(output) if "sentence" in entry]
        assert {(e["story_id"], e["sentence"]) for e in lines} == bad


def test_a_kill_loses_little_and_changes_nothing(tmp_path, monkeypatch):
    source = write(tmp_path / "in.parquet", long_rows())
    run(source, tmp_path / "whole")
    calls = []

    def dies(row):
        calls.append(row)
        if len(calls) == 20:
            raise KeyboardInterrupt

    watch(monkeypatch, dies)
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(source, output, num_workers=1)
    assert not (output / "train.parquet").exists()
    # What SIGKILL leaves, which no one tidies up.
    parts = output / "parts" / "train" / "000"
    (parts / ".tmp-00001234-00000-00002.parquet").write_bytes(b"PAR1 torn")
    calls[:] = [None] * 100
    run(source, output, num_workers=1)
    # 14 rows had been published, in two row groups.
    assert len(calls) == 100 + 16
    one, two = (tmp_path / name / "train.parquet" for name in ("out", "whole"))
    assert one.read_bytes() == two.read_bytes()
    assert not list(output.rglob(".tmp-*"))


def test_ranks_share_the_work(tmp_path, monkeypatch):
    """Two ranks one after the other: the parts of the one, then the rest."""
    source = write(tmp_path / "in.parquet", long_rows())
    whole = run(source, tmp_path / "whole")
    output, seen = tmp_path / "out", []
    watch(monkeypatch, lambda row: seen.append((spoken.rank(), row.number)))
    monkeypatch.setattr(spoken, "publish", lambda *_: None)
    for module in (spoken, jobs):
        monkeypatch.setattr(module, "world_size", lambda: 2)
    for number in (0, 1, 0):
        # The last time stands for rank 0 after the first barrier.
        for module in (spoken, jobs):
            monkeypatch.setattr(module, "rank", lambda number=number: number)
        with contextlib.suppress(FileNotFoundError):
            # The part of the other rank, which a barrier would wait for.
            import_spoken({"train": [source]}, output, LONG, LANGUAGES)
    assert sorted(number for _, number in seen) == list(range(30))
    assert {number for number, _ in seen} == {0, 1}
    monkeypatch.undo()
    assert run(source, output) == whole


def test_a_split_is_switched_off(tmp_path):
    source = write(tmp_path / "s.parquet", long_rows(2))
    sources = {"train": [source], "valid": None, "test": []}
    import_spoken(sources, tmp_path / "out", LONG, LANGUAGES)
    (path,) = (tmp_path / "out").glob("*.parquet")
    assert path.stem == "train"
    with pytest.raises(ValueError, match="sources is empty"):
        import_spoken({"train": None}, tmp_path / "out", LONG, LANGUAGES)


def test_languages_are_renamed_and_one_not_wanted_hurts_no_other(tmp_path):
    names = {"en": "English", "fr": "French", "de": "German"}
    rows = long_rows(2, 3)
    rows += [{**row, "lang": "de"} for row in rows if row["lang"] == "en"]
    for row in rows:
        row |= {"lang": names[row["lang"]], "nr": str(row["nr"])}
    rows[0]["nr"] = "1.5"
    source = write(tmp_path / "in.parquet", rows)
    names = {long: short for short, long in names.items() if short != "de"}
    options = {"language_names": names, "max_left_out": 0.2}
    assert len(run(source, tmp_path / "out", **options)) == 10
    reasons = Counter(entry["reason"] for entry in ledger(tmp_path / "out"))
    assert reasons == {
        "sentence: found '1.5'; expected 0, 1, 2, ...": 1,
        "no row in en": 1,
        "language: 'German' is not one of en, fr": 6,
    }


def test_a_story_of_which_nothing_is_left_is_listed():
    fact = {"story_id": "a", "sentence": 0, "language": "en", "source": "x"}
    kept, entries = align([{**fact, "reason": ""}], LANGUAGES)
    assert kept == []
    assert entries[0]["reason"] == "no row in fr"
    assert entries[1]["reason"] == NOTHING_LEFT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": "sound"}, r"column\(s\) sound; found story, nr, lang"),
        ({"speaker": {"en": "a", "fr": "who"}}, r"missing column\(s\) a;"),
    ],
)
def test_missing_columns_are_named(tmp_path, change, message):
    source = write(tmp_path / "in.parquet", long_rows(1, 1))
    columns = Columns(**{**vars(LONG), **change})
    with pytest.raises(ValueError, match=message):
        run(source, tmp_path / "o", columns)


def test_bad_sources(tmp_path):
    for name in ("a.txt", "e.csv"):
        (tmp_path / name).touch()
    write(tmp_path / "both" / "a.parquet", long_rows(1, 1))
    (tmp_path / "both" / "a.csv").touch()
    (tmp_path / "a.jsonl").write_text('{"b": 1}\n{"a"')
    for source, message in (
        ("nowhere", "hf download"),
        ("a.txt", r"found '\.txt'"),
        ("both", "several formats"),
        ("a.jsonl", r"a\.jsonl: missing column.s. a"),
        ("e.csv", r"e\.csv"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            list(iterate_parts(tmp_path / source, 10, ["a"]))
    with pytest.raises(ValueError, match="keys folders and stories"):
        list(iterate_parts({"folder": {"en": tmp_path}}, 10, ["a"]))
    with pytest.raises(ValueError, match="expected a column of each"):
        Columns("story", "nr", "wav")
    with pytest.raises(ValueError, match=r"valid is 'a\.csv'; expected a list"):
        import_spoken({"valid": "a.csv"}, tmp_path, LONG, LANGUAGES)


def test_a_dataset_through_datasets(tmp_path):
    """What hub:<name> reads: the hub's own form of a folder."""
    datasets = pytest.importorskip("datasets")
    rows = long_rows(3, 2)
    table = {name: [row[name] for row in rows] for name in rows[0]}
    table["wav"] = [{"bytes": one, "path": None} for one in table["wav"]]
    features = dict.fromkeys(rows[0], datasets.Value("string"))
    features |= {"nr": datasets.Value("int32"), "wav": datasets.Audio()}
    schema = datasets.Features(features).arrow_schema
    (tmp_path / "hub" / "data").mkdir(parents=True)
    path = tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"
    pq.write_table(pa.table(table, schema=schema), path)
    source = f"hub:{tmp_path / 'hub'}"
    found = run(source, tmp_path / "a", batch_rows=5)
    assert len(found) == 12
    assert by_key(found) == by_key(run(path, tmp_path / "b"))


def test_hub_that_cannot_be_reached_and_a_client_that_is_missing(monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"hf download .* no/such-set"):
        list(iterate_parts("hub:no/such-set", 10, ["a"]))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="pip install datasets"):
        list(iterate_parts("hub:a/b", 10, ["a"]))


def test_whatever_was_mended_is_seen_and_the_rest_is_not_read_again(
    tmp_path, monkeypatch, corpus
):
    """Audio that was missing or replaced, a table edited to equal size."""
    table, rows = corpus
    lost = table.parent / rows[0]["wav"]
    content = lost.read_bytes()
    lost.unlink()
    seen = []
    watch(monkeypatch, lambda row: seen.append(row.number))

    def again():
        seen.clear()
        options = {"num_workers": 1, "batch_rows": 4}
        return {
            (row["story_id"], row["sentence"], row["language"]): row
            for row in run(table, tmp_path / "out", **options)
        }

    assert len(again()) == 34
    assert ("s0", 2, "en") not in again()
    assert seen == []
    lost.write_bytes(content)
    assert len(again()) == 36
    assert seen == [0, 1, 2, 3]
    other = audio(99)
    assert len(other) != len(content)
    lost.write_bytes(other)
    digest = sha256(other)
    assert again()["s0", 0, "en"]["sha256"] == digest
    write_lines(table, [{**row, "who": row["who"][::-1]} for row in rows])
    told = {row["speaker"] for row in again().values()}
    assert told == {"0-eciov", "1-eciov"}
    assert len(seen) == 36
    again()
    assert seen == []


def test_what_was_damaged_is_made_anew(tmp_path, corpus):
    """A part of a table of paths, and audio that came as bytes."""
    bytes_too = write(tmp_path / "in.parquet", long_rows(2))
    sources = {"train": [corpus[0]], "valid": [bytes_too]}
    output = tmp_path / "out"
    import_spoken(sources, output, LONG, LANGUAGES)
    names = ("train.parquet", "valid.parquet")
    whole = [(output / name).read_bytes() for name in names]
    (part,) = (output / "parts" / "train" / "000").glob("*.parquet")
    content = part.read_bytes()
    part.write_bytes(content.replace(b"s5", b"s4"))
    assert part.read_bytes() != content
    wav = next((output / "audio").glob("*/*"))
    wav.write_bytes(wav.read_bytes()[:-1] + b"x")
    import_spoken(sources, output, LONG, LANGUAGES)
    assert [(output / name).read_bytes() for name in names] == whole
    assert sha256_file(wav).startswith(wav.stem)


def test_a_run_that_made_nothing_binds_nobody(tmp_path, corpus):
    table, rows = corpus
    write_lines(table, [{**row, "lang": "de"} for row in rows])
    message = (
        r"No sentence of train .* language \(the first: 'de' is not one of"
    )
    with pytest.raises(ValueError, match=message):
        run(table, tmp_path / "out")
    assert not (tmp_path / "out" / "train.parquet").exists()
    write_lines(table, rows)
    assert len(run(table, tmp_path / "out")) == 36


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"who": "\ud800"}, "speaker: found half a surrogate pair"),
        ({"story": "a\udfff"}, "story: found half a surrogate pair"),
        ({"nr": 10**12}, "sentence: found 1000000000000"),
        ({"nr": "9" * 5000}, "sentence: found"),
        ({"nr": float("inf")}, "sentence: found inf"),
        ({"wav": "x" * 300 + ".wav"}, "no audio: "),
        ({"wav": 5}, "audio: found 5; expected a path"),
        ({"wav": "wav"}, "bad audio: "),
        ({"wav": "a\0b"}, "no audio: "),
        ({"lang": ["en"]}, "language: found ['en']"),
        ({"who": 1.5}, "speaker: found 1.5"),
    ],
)
def test_a_bad_row_is_a_line_of_the_ledger(tmp_path, corpus, change, reason):
    table, rows = corpus
    rows[3] |= change
    write_lines(table, rows)
    assert len(run(table, tmp_path / "out")) == 34
    (entry,) = (one for one in ledger(tmp_path / "out") if "row 3" in str(one))
    assert entry["reason"].startswith(reason)


def test_too_much_left_out_leaves_the_earlier_manifest(tmp_path, corpus):
    """And its ledger: the one that is refused has another name."""
    (table, rows), output = corpus, tmp_path / "out"
    write_lines(table, [*rows, {**rows[0], "lang": "de"}])
    run(table, output)
    names = ("train.parquet", "left_out.jsonl")
    before = [(output / name).read_bytes() for name in names]
    lost = [{**row, "wav": f"disk/{n}.wav"} for n, row in enumerate(rows[::3])]
    write_lines(table, [*rows, *({**r, "story": "lost"} for r in lost)])
    message = r"no audio \(the first: .*disk.*/refused\.left_out\.jsonl names"
    with pytest.raises(TooManyLeftOut, match=message):
        run(table, output)
    assert [(output / name).read_bytes() for name in names] == before
    refused = output / "refused.left_out.jsonl"
    assert refused.read_text().count('"story_id": "lost"') == 13
    run(table, output, max_left_out=0.5)
    assert not refused.exists()
    assert {entry["story_id"] for entry in ledger(output)} == {"lost"}


def test_a_manifest_of_another_recipe_or_run_is_not_replaced(tmp_path):
    source, output = write(tmp_path / "a.parquet", long_rows(2)), tmp_path / "o"
    path = write(output / "train.parquet", [{"a": 1}])
    theirs = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"train\.parquet stands where"):
        run(source, output)
    assert path.read_bytes() == theirs
    assert list(output.iterdir()) == [path]
    path.unlink()
    run(source, output)
    with pytest.raises(ValueError, match="is of an earlier import"):
        import_spoken({"valid": [source]}, output, LONG, LANGUAGES)


def test_what_systems_leave_in_a_folder_is_no_table(tmp_path, corpus):
    table, _ = corpus
    (table.parent / "._a.jsonl").write_bytes(b"\0\5\26\7")
    assert len(run(table.parent, tmp_path / "o")) == 36


def record(folder, names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(audio(number))


def test_folders_of_recordings_are_a_corpus(tmp_path):
    """Stories of N, by numbers in names, by folder and by a table."""
    names = [f"tale {n}.flac" for n in (10, 9, 2, 1)]
    record(tmp_path / "en", names)
    record(tmp_path / "fr", names[1:])
    folders = {"en": tmp_path / "en", "fr": tmp_path / "fr"}

    def found(stories, **more):
        source = {"folders": folders, "stories": stories, **more}
        return [
            (row["story_id"], row["sentence"], Path(row["audio"]).stem)
            for row in run(source, tmp_path / "out", max_left_out=0.5)
            if row["language"] == "fr"
        ]

    first = [("000000", 0, "tale 1"), ("000000", 1, "tale 2")]
    assert found(2) == [*first, ("000001", 0, "tale 9")]
    reasons = {entry["reason"] for entry in ledger(tmp_path / "out")}
    assert reasons == {"no row in fr"}
    table = tmp_path / "t.csv"
    table.write_text("name,tale\ntale 9,b\ntale 1,a\ntale 10,a\ntale 2,a\n")
    first = [("a", 0, "tale 1"), ("a", 1, "tale 2")]
    assert found("tale", table=table) == [*first, ("b", 0, "tale 9")]
    with pytest.raises(ValueError, match="'folder', but tale 1 stands in none"):
        found("folder")
    folders |= {"en": tmp_path / "e", "fr": tmp_path / "f"}
    for folder in folders.values():
        record(folder, ["b/1.wav", "a/2.wav", "a/1.wav", "a/x/1.wav"])
    expected = [("a", 0), ("a", 1), ("a/x", 0), ("b", 0)]
    assert [row[:2] for row in found("folder")] == expected


def test_recordings_of_very_different_lengths_are_left_out(tmp_path):
    rows = long_rows(4, 3)
    rows[0]["wav"] = sound(clip(1, 0.5))
    source = write(tmp_path / "in.parquet", rows)
    for ratio, left in ((4.5, 22), (5.5, 24)):
        assert len(run(source, tmp_path / "out", max_ratio=ratio)) == left
