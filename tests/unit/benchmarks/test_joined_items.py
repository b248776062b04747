"""Prompts and endings as one recording, and items that are then scored."""

from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from cloze_example import export
from processes import load_script
from units_example import (
    RATE,
    LoudnessTokenizer,
    clip,
    entry,
    extract,
    write_manifest,
)

from speechbrain_slm.benchmarks.joined_endings import join_items
from speechbrain_slm.benchmarks.spoken_items import item_table, items_of
from speechbrain_slm.evaluation.cloze.conventions import OF_ENDINGS_ALONE
from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze
from speechbrain_slm.units.manifest import read_manifest
from speechbrain_slm.utils.tables import write_table

RECIPE = Path(__file__).parents[3] / "recipes/TinyStories/cloze"
cloze_prepare = load_script(RECIPE / "cloze_prepare.py")
LANGUAGES = ("en", "fr")
STORIES = ("s0", "s1")


def speak(folder, subtype="PCM_16", rate=RATE, channels=1):
    """Write prompts of two sentences, and endings, in two languages."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    parts = (("prompt", 0), ("prompt", 1), ("right", 0), ("wrong", 0))
    for language, story, (part, number) in product(LANGUAGES, STORIES, parts):
        name = f"{language}.{story}.{part}.{number}.wav"
        # 40 ms units fill each clip: joined ones are their sum.
        wav = clip(list(name.encode()), 0.4, rate)
        wav = np.stack([wav] * channels, axis=1)
        soundfile.write(folder / name, wav, rate, subtype=subtype)
        row = {"story_id": f"{story}.{part}", "sentence": number}
        row |= {"language": language, "speaker": "alto"}
        rows.append({**row, **entry(folder / name), "audio": name})
    items = item_table(
        item._replace(subset="all")
        for item in items_of(STORIES, "sSC", "wrong", LANGUAGES)
    )
    write_table(folder / "items.parquet", items)
    write_manifest(folder / "cloze.parquet", rows)
    return folder / "cloze.parquet", folder / "items.parquet"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return speak(tmp_path_factory.mktemp("spoken") / "audio")


@pytest.fixture(scope="module")
def joined(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    join_items(*sources, folder)
    return folder


def samples(folder, name):
    return soundfile.read(folder / name, dtype="int16")[0]


def test_a_joined_file_is_the_prompt_and_the_ending(sources, joined):
    folder = sources[0].parent
    manifest = read_manifest(joined / "speech.parquet", LANGUAGES)
    rows = {
        (row["story_id"], row["language"]): row for row in manifest.to_pylist()
    }
    assert len(rows) == len(manifest) == 4 + 4 * 4
    for item in pq.read_table(joined / "items.parquet").to_pylist():
        one, two = item["prompt_language"], item["ending_language"]
        story = item["item_id"]
        assert item["prompt"] == f"{story}.prompt"
        assert item["subset"] == "all"
        prompt = [f"{one}.{story}.prompt.{n}.wav" for n in (0, 1)]
        parts = {(item["prompt"], one): prompt}
        for side in ("right", "wrong"):
            assert item[side] == f"{story}.prompt@{one}+{story}.{side}"
            parts[item[side], two] = [*prompt, f"{two}.{story}.{side}.0.wav"]
        for key, names in parts.items():
            expected = [samples(folder, name) for name in names]
            found = samples(folder, rows[key]["audio"])
            np.testing.assert_array_equal(found, np.concatenate(expected))
            assert rows[key]["speaker"] == "alto"


def test_joining_again_gives_the_same_bytes(sources, joined):
    before = {path: path.read_bytes() for path in joined.rglob("[!.]*.*")}
    damaged = next(path for path in before if path.suffix == ".flac")
    damaged.write_bytes(before[damaged][::-1])
    join_items(*sources, joined)
    assert {path: path.read_bytes() for path in before} == before
    assert set(joined.rglob("[!.]*.*")) == set(before)


def test_samples_that_are_no_16_bits_are_kept(tmp_path):
    folder = tmp_path / "float"
    join_items(*speak(folder, "FLOAT"), tmp_path / "out")
    rows = pq.read_table(tmp_path / "out/speech.parquet").to_pylist()
    row = next(row for row in rows if row["story_id"] == "s0.prompt")
    assert row["audio"].endswith(".wav")
    parts = [
        soundfile.read(folder / f"en.s0.prompt.{n}.wav", dtype="float32")[0]
        for n in (0, 1)
    ]
    wav, _ = soundfile.read(row["audio"], dtype="float32")
    np.testing.assert_array_equal(wav, np.concatenate(parts))


def rewrite(path, change):
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    write_table(path, pa.Table.from_pylist(rows, schema=table.schema))


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        (1, {"prompt": ""}, r"item 's0' \(sSC\) has no prompt"),
        (1, {"wrong": "s9.wrong"}, r"its wrong, story 's9.wrong' in 'en', is"),
        (0, {"sentence": 7}, r"'s0.prompt' in 'en' has the sentences \[1, 7\]"),
        (0, {"sha256": "0" * 64}, "its SHA-256 is not the manifest's"),
        (0, {"audio": "gone.wav"}, r"gone.wav cannot be read .*not exist"),
    ],
)
def test_tables_that_cannot_be_joined(tmp_path, table, change, message):
    sources = speak(tmp_path)
    rewrite(sources[table], lambda rows: rows[0].update(change))
    with pytest.raises(ValueError, match=message):
        join_items(*sources, tmp_path / "out")
    assert not (tmp_path / "out/items.parquet").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"rate": 8000}, "has 16000 Hz and .*, 8000; convert"),
        ({"channels": 2}, r"has 1 channel\(s\) and .*, 2; convert"),
    ],
)
def test_parts_of_different_formats_are_refused(tmp_path, other, message):
    sources = speak(tmp_path)
    speak(tmp_path / "other", **other)
    name = "en.s0.prompt.0.wav"
    changed = {**entry(tmp_path / "other" / name), "audio": f"other/{name}"}
    rewrite(sources[0], lambda rows: rows[0].update(changed))
    with pytest.raises(ValueError, match=message):
        join_items(*sources, tmp_path / "out")


def test_joined_endings_are_scored_as_if_apart(sources, joined, tmp_path):
    """Units of 40 ms each do not see what is before them: both ways agree."""
    results = {}
    identity = LoudnessTokenizer().identity
    model = export(tmp_path / "model", identity=identity, size=16)
    for endings, manifest, items in (
        ("apart", *sources),
        ("together", joined / "speech.parquet", joined / "items.parquet"),
    ):
        folder = tmp_path / endings
        extract(manifest, folder, LoudnessTokenizer())
        out = tmp_path / f"scores_{endings}"
        found = evaluate_cloze(
            model, folder / "train", items, out, endings=endings
        )
        results[endings] = found, pq.read_table(out / "scores.parquet")
    (apart, scores), (together, others) = results.values()
    for side in ("right_ending_sum", "wrong_ending_sum"):
        one, other = scores[side].to_numpy(), others[side].to_numpy()
        np.testing.assert_allclose(one, other, atol=1e-4)
    # No ending of a joined recording stands alone.
    shown = [
        record
        for record in apart["records"]
        if record["scoring"] not in OF_ENDINGS_ALONE
    ]
    assert shown == together["records"] != apart["records"]
    assert len(apart["records"]) >= 4


# The command line.


def test_the_command_line_joins_and_reads(sources, tmp_path):
    out = tmp_path / "joined"
    output = ["--output_folder", str(out)]
    cloze_prepare.main(["join", *map(str, sources), *output])
    assert len(pq.read_table(out / "items.parquet")) == 8
    for part in ("correct", "incorrect"):
        path = tmp_path / "sSC" / f"0_a_{part}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, clip(1), RATE)
    out = tmp_path / "read"
    options = ["read", "sSC", "--layout", "pairs", "--speaker", "lea"]
    options += ["--folders", f"fr={tmp_path / 'sSC'}", "--max_seconds", "0.2"]
    cloze_prepare.main([*options, "--output_folder", str(out)])
    rows = pq.read_table(out / "speech.parquet").to_pylist()
    assert [row["num_samples"] for row in rows] == [3200, 3200]
    assert {row["speaker"] for row in rows} == {"lea"}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["data"], "found 'data'; expected en=FOLDER"),
        (["=data"], "found '=data'; expected en=FOLDER"),
        (["en=a", "en=b"], "'en' stands twice"),
    ],
)
def test_folders_without_a_language_are_refused(capsys, folders, message):
    options = ["read", "sSC", "--layout", "pairs", "--output_folder", "out"]
    with pytest.raises(SystemExit):
        cloze_prepare.parse([*options, "--folders", *folders])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        "topics a.parquet --seed=-1",
        "topics a.parquet --max_left_out=nan",
        "read sSC --layout pairs --folders en=a --max_seconds=nan",
        "read sSC --layout pairs --folders en=a --max_seconds=inf",
    ],
)
def test_numbers_of_the_script_have_ranges(tmp_path, option):
    name = option.rpartition("--")[2].partition("=")[0]
    words = [*option.split(), "--output_folder", str(tmp_path)]
    with pytest.raises(ValueError, match=f"{name} is .*; expected"):
        cloze_prepare.main(words)
