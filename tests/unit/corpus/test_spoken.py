import csv
import hashlib
import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from units_example import clip

from speechbrain_slm.corpus import spoken
from speechbrain_slm.corpus.spoken import align, import_spoken
from speechbrain_slm.corpus.spoken_rows import Columns
from speechbrain_slm.corpus.spoken_sources import iterate_parts
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.tables import (
    MANIFEST,
    MANIFEST_KEY,
    check_alignment,
    read_table,
)

LANGUAGES = ["en", "fr"]
LONG = Columns(
    story="story", sentence="nr", language="lang", speaker="who", audio="wav"
)


def audio(number, kind="FLAC"):
    content = io.BytesIO()
    soundfile.write(content, clip(number, 0.1), 16000, format=kind)
    return content.getvalue()


def long_rows(stories=5, sentences=3, first=0):
    return [
        {
            "story": f"s{story}",
            "nr": sentence + first,
            "lang": language,
            "who": f"voice-{story % 2}",
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


def read(folder, split="train"):
    path = folder / f"{split}.parquet"
    table = read_table(path, MANIFEST, MANIFEST_KEY)
    check_alignment(path, table, LANGUAGES)
    rows = table.to_pylist()
    for row in rows:
        found = folder / row["audio"]
        assert sha256_file(found) == row["sha256"]
        info = soundfile.info(found)
        assert (info.frames, info.samplerate) == (
            row["num_samples"],
            row["sample_rate"],
        )
    return rows


def ledger(folder):
    lines = (folder / "left_out.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def by_key(rows):
    return {
        (row["story_id"], row["sentence"], row["language"]): row["sha256"]
        for row in rows
    }


def test_bytes_in_parquet(tmp_path):
    rows = long_rows(first=1)
    source = write(tmp_path / "in" / "a.parquet", rows)
    import_spoken({"train": [source]}, tmp_path / "out", LONG, LANGUAGES)
    found = read(tmp_path / "out")
    assert len(found) == 30
    assert ledger(tmp_path / "out") == []
    assert by_key(found) == {
        (row["story"], row["nr"] - 1, row["lang"]): hashlib.sha256(
            row["wav"]
        ).hexdigest()
        for row in rows
    }


def test_a_sentence_keeps_its_speaker_where_another_is_dropped(tmp_path):
    rows = long_rows(4)
    for row in rows:
        row["who"] = f"voice-{row['nr']}"
    rows[0]["wav"] = b"no audio"
    source = write(tmp_path / "a.parquet", rows)
    import_spoken({"train": [source]}, tmp_path / "out", LONG, LANGUAGES)
    speakers = {
        hashlib.sha256(row["wav"]).hexdigest(): row["who"] for row in rows
    }
    found = read(tmp_path / "out")
    assert len(found) == 22
    for row in found:
        number = row["sentence"] + (row["story_id"] == "s0")
        assert row["speaker"] == speakers[row["sha256"]] == f"voice-{number}"


def test_every_layout_gives_the_same_manifest(tmp_path):
    """Bytes, the hub's struct, paths, CSV, JSONL, and a column a language."""
    rows = long_rows()
    files = tmp_path / "files"
    files.mkdir()
    for number, row in enumerate(rows):
        (files / f"{number}.flac").write_bytes(row["wav"])
    paths = [
        {**row, "wav": f"{number}.flac"} for number, row in enumerate(rows)
    ]
    hub = [{**r, "wav": {"bytes": r["wav"], "path": "x.flac"}} for r in rows]
    wide = [
        {
            "story": row["story"],
            "nr": row["nr"],
            "who": row["who"],
            "wav_en": row["wav"],
            "wav_fr": other["wav"],
        }
        for row, other in zip(rows[:15], rows[15:], strict=True)
    ]
    with open(files / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(paths[0]))
        writer.writeheader()
        writer.writerows(paths)
    (tmp_path / "rows").mkdir()
    lines = [
        json.dumps({**row, "wav": str(files / row["wav"])}) for row in paths
    ]
    (tmp_path / "rows" / "a.jsonl").write_text("\n".join(lines))
    columns = {"en": "wav_en", "fr": "wav_fr"}
    both = Columns(story="story", sentence="nr", audio=columns, speaker="who")
    layouts = {
        "bytes": (write(tmp_path / "b.parquet", rows), LONG),
        "hub": (write(tmp_path / "h.parquet", hub), LONG),
        "paths": (write(files / "p.parquet", paths), LONG),
        "csv": (files / "metadata.csv", LONG),
        "jsonl": (tmp_path / "rows", LONG),
        "wide": (write(tmp_path / "w.parquet", wide), both),
    }
    found = {}
    for name, (source, chosen) in layouts.items():
        output = tmp_path / "out" / name
        import_spoken(
            {"train": [source]}, output, chosen, LANGUAGES, batch_rows=4
        )
        found[name] = by_key(read(output))
        assert len(found[name]) == 30
        assert found[name] == found["bytes"], name


def test_sentences_stay_aligned_whatever_fails(tmp_path):
    """Failures at random: what is kept still pairs as in the source."""
    generator = np.random.default_rng(0)
    broken = [b"", b"no audio", None, audio(1)[:60]]
    silent = io.BytesIO()
    soundfile.write(silent, np.zeros(800), 16000, format="WAV")
    broken.append(silent.getvalue())
    for trial in range(4):
        rows = long_rows(6, 4)
        original = {
            (row["story"], row["nr"], row["lang"]): row["wav"] for row in rows
        }
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
        rows.append(dict(twice))
        source = write(tmp_path / f"{trial}.parquet", rows)
        output = tmp_path / f"out-{trial}"
        import_spoken({"train": [source]}, output, LONG, LANGUAGES, buckets=3)
        found = by_key(read(output))
        names = {
            hashlib.sha256(content).hexdigest(): key
            for key, content in original.items()
        }
        for (story, number, language), digest in found.items():
            name, source_number, spoken_in = names[digest]
            assert (name, spoken_in) == (story, language)
            other = names[found[story, number, "en"]]
            assert other[1] == source_number
        expected = {(s, n) for s, n, _ in original} - bad
        assert len(found) == 2 * len(expected)
        dropped = {
            (e["story_id"], e["sentence"])
            for e in ledger(output)
            if "sentence" in e
        }
        assert dropped == bad


def test_a_kill_loses_little_and_changes_nothing(tmp_path, monkeypatch):
    rows = long_rows()
    source = write(tmp_path / "in.parquet", rows)
    import_spoken({"train": [source]}, tmp_path / "whole", LONG, LANGUAGES)
    real, calls = spoken.facts_of, []

    def dies(row, *rest):
        calls.append(row)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return real(row, *rest)

    monkeypatch.setattr(spoken, "facts_of", dies)
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        import_spoken({"train": [source]}, output, LONG, LANGUAGES, None, 1)
    assert not (output / "train.parquet").exists()
    # What SIGKILL leaves, which no one tidies up.
    parts = output / "parts" / "train" / "000"
    (parts / ".tmp-00001234-00000-00002.parquet").write_bytes(b"PAR1 torn")
    calls.clear()
    calls.extend([None] * 100)
    import_spoken({"train": [source]}, output, LONG, LANGUAGES, None, 1)
    # 14 rows had been published, in two row groups.
    assert len(calls) == 100 + 16
    assert (output / "train.parquet").read_bytes() == (
        tmp_path / "whole" / "train.parquet"
    ).read_bytes()
    assert not list(output.rglob(".tmp-*"))
    write(source, long_rows(4))
    with pytest.raises(ValueError, match="begun with another configuration"):
        import_spoken({"train": [source]}, output, LONG, LANGUAGES)


def test_ranks_share_the_work(tmp_path, monkeypatch):
    """Two ranks one after the other: the parts of the one, then the rest."""
    source = write(tmp_path / "in.parquet", long_rows())
    import_spoken({"train": [source]}, tmp_path / "whole", LONG, LANGUAGES)
    output, seen = tmp_path / "out", []
    real = spoken.facts_of

    def counted(row, *rest):
        found = row.values
        seen.append((spoken.rank(), found["story"], found["nr"], found["lang"]))
        return real(row, *rest)

    monkeypatch.setattr(spoken, "facts_of", counted)
    monkeypatch.setattr(spoken, "world_size", lambda: 2)
    published = []
    monkeypatch.setattr(spoken, "_publish", lambda *a: published.append(a))
    for number in (0, 1, 0):
        # The last time stands for rank 0 after the first barrier.
        monkeypatch.setattr(spoken, "rank", lambda number=number: number)
        import_spoken({"train": [source]}, output, LONG, LANGUAGES)
    assert len(seen) == len({one[1:] for one in seen}) == 30
    assert {one[0] for one in seen} == {0, 1}
    monkeypatch.undo()
    import_spoken({"train": [source]}, output, LONG, LANGUAGES)
    assert read(output) == read(tmp_path / "whole")


def test_a_split_is_switched_off(tmp_path):
    source = write(tmp_path / "s.parquet", long_rows(2))
    sources = {"train": [source], "valid": None, "test": []}
    import_spoken(sources, tmp_path / "out", LONG, LANGUAGES)
    assert [path.stem for path in (tmp_path / "out").glob("*.parquet")] == [
        "train"
    ]
    with pytest.raises(ValueError, match="sources is empty"):
        import_spoken({"train": None}, tmp_path / "out", LONG, LANGUAGES)


def test_renamed_languages_and_dropped_rows(tmp_path):
    rows = [
        {**row, "lang": {"en": "English", "fr": "French"}[row["lang"]]}
        for row in long_rows(2, 2)
    ]
    rows[0]["nr"] = "1.5"
    for row in rows[1:]:
        row["nr"] = str(row["nr"])
    source = write(tmp_path / "in.parquet", rows)
    names = {"English": "en", "French": "fr"}
    import_spoken({"t": [source]}, tmp_path / "out", LONG, LANGUAGES, names)
    assert len(read(tmp_path / "out", "t")) == 6
    reasons = [entry["reason"] for entry in ledger(tmp_path / "out")]
    assert reasons == [
        "sentence is '1.5'; expected 0, 1, 2, ...",
        "no row in en",
    ]


def test_a_language_that_is_not_wanted_hurts_no_other(tmp_path):
    rows = long_rows(1, 2)
    rows += [{**row, "lang": "de"} for row in rows if row["lang"] == "en"]
    source = write(tmp_path / "in.parquet", rows)
    import_spoken({"t": [source]}, tmp_path / "out", LONG, LANGUAGES)
    assert len(read(tmp_path / "out", "t")) == 4
    assert [entry["reason"] for entry in ledger(tmp_path / "out")] == [
        "language 'de' is not one of en, fr"
    ] * 2


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfstory,nr\n007,0\n")
    (part,) = iterate_parts(path, ["story", "nr"], 10)
    ((row,),) = part.read()
    assert row.values == {"story": "007", "nr": "0"}


def test_a_story_of_which_nothing_is_left_is_listed():
    fact = {"story_id": "a", "sentence": 0, "language": "en", "source": "x"}
    kept, entries = align([{**fact, "reason": ""}], LANGUAGES)
    assert kept == []
    assert entries[0]["reason"] == "no row in fr"
    assert entries[1]["reason"] == "no sentence of the story is left"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": "sound"}, r"column\(s\) sound; found story, nr, lang"),
        ({"speaker": {"en": "a", "fr": "who"}}, r"column\(s\) a;"),
    ],
)
def test_missing_columns_are_named(tmp_path, change, message):
    source = write(tmp_path / "in.parquet", long_rows(1, 1))
    columns = Columns(**{**vars(LONG), **change})
    with pytest.raises(ValueError, match=message):
        import_spoken({"train": [source]}, tmp_path / "o", columns, LANGUAGES)


def test_bad_sources(tmp_path):
    with pytest.raises(ValueError, match="expected a column of each"):
        Columns("story", "nr", "wav")
    with pytest.raises(FileNotFoundError, match="hf download"):
        list(iterate_parts(tmp_path / "nowhere", ["a"], 10))
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"found '\.txt'"):
        list(iterate_parts(tmp_path / "a.txt", ["a"], 10))
    write(tmp_path / "both" / "a.parquet", long_rows(1, 1))
    (tmp_path / "both" / "a.csv").touch()
    with pytest.raises(ValueError, match="several formats"):
        list(iterate_parts(tmp_path / "both", ["a"], 10))
    (tmp_path / "a.jsonl").write_text('{"b": 1}\n{"a"')
    with pytest.raises(ValueError, match=r"a\.jsonl: missing column.s. a"):
        list(iterate_parts(tmp_path / "a.jsonl", ["a"], 10))
    (tmp_path / "e.csv").touch()
    with pytest.raises(ValueError, match=r"e\.csv"):
        list(iterate_parts(tmp_path / "e.csv", ["a"], 10))


def test_nothing_left_is_an_error(tmp_path):
    rows = [{**row, "lang": "de"} for row in long_rows(1, 2)]
    source = write(tmp_path / "in.parquet", rows)
    with pytest.raises(ValueError, match="4 x language 'de' is not one of"):
        import_spoken({"train": [source]}, tmp_path / "o", LONG, LANGUAGES)
    assert not (tmp_path / "o" / "train.parquet").exists()


def test_a_dataset_through_datasets(tmp_path):
    """What hub:<name> reads: the hub's own form of a folder."""
    datasets = pytest.importorskip("datasets")
    rows = long_rows(3, 2)
    table = {name: [row[name] for row in rows] for name in rows[0]}
    table["wav"] = [{"bytes": one, "path": None} for one in table["wav"]]
    features = {
        "story": datasets.Value("string"),
        "nr": datasets.Value("int32"),
        "lang": datasets.Value("string"),
        "who": datasets.Value("string"),
        "wav": datasets.Audio(),
    }
    schema = datasets.Features(features).arrow_schema
    (tmp_path / "hub" / "data").mkdir(parents=True)
    path = tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"
    pq.write_table(pa.table(table, schema=schema), path)
    source = f"hub:{tmp_path / 'hub'}"
    import_spoken(
        {"train": [source]}, tmp_path / "a", LONG, LANGUAGES, batch_rows=5
    )
    import_spoken({"train": [path]}, tmp_path / "b", LONG, LANGUAGES)
    assert by_key(read(tmp_path / "a")) == by_key(read(tmp_path / "b"))
    assert len(read(tmp_path / "a")) == 12


def test_hub_that_cannot_be_reached(monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"hf download .* no/such-set"):
        list(iterate_parts("hub:no/such-set", ["a"], 10))


def test_datasets_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="pip install datasets"):
        list(iterate_parts("hub:a/b", ["a"], 10))
