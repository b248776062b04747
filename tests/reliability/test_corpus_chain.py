"""From damaged TinyStories to scores, each stage killed once.

The stages are started as a user starts them. A chain whose stages were all
killed and run again writes what an uninterrupted one writes.
"""

import json
import random
from collections import Counter

import pyarrow.parquet as pq
import pytest
from chat_server import chat_server, fake_translation
from processes import ROOT, TINY_LM, command, kill, run, start, wait_until
from tinystories_example import write_tinystories

from speechbrain_slm.benchmarks.cloze_files import load_natural
from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.utils.hashing import sha256_file

NUM_STORIES, NUM_ITEMS, VOCABULARY = 2000, 12, 60
FAULTS = ["429", "500", "joined", "empty", "torn", "drop", *[None] * 14]
CHAT = {
    "api_key_variable": None,
    "concurrency": 4,
    "backoff": 0.01,
    "max_attempts": 20,
    "attempts": 20,
    "timeout": 20,
}


def stage(name, yaml_file, begun, count, last, **values):
    """Return its name and command, what shows that it has begun, and ended."""
    folder, _, yaml_file = yaml_file.rpartition("/")
    recipe = ROOT / "recipes" / folder
    values |= {"output_folder": name, "device": "cpu"}
    path = recipe / "hparams" / yaml_file
    return (
        name,
        command(recipe / "train.py", path, **values),
        begun,
        count,
        last,
    )


def stages(url):
    """List the chain."""
    text, checked = "translation/text", "speaker_check"
    return (
        stage(
            *("text", "TinyStories/text/full.yaml"),
            *(".tmp-*/text/.tmp-*", 1, "left_out.jsonl"),
            paths="[TinyStories.txt]",
            # The rest is cleaned and cut, and goes no further.
            shares="{valid: 0.006, test: 0.98}",
        ),
        stage(
            *("translation", "TinyStories/translation/full.yaml"),
            *("parts/train/part-*", 2, "text/valid.parquet"),
            data_folder="text",
            tables="[text/text/train.parquet, text/text/valid.parquet]",
            stories_per_shard=4,
            translation=json.dumps({**CHAT, "base_url": url}),
        ),
        stage(
            *("synthesis", "TinyStories/synthesis/mini.yaml"),
            *("audio/**/*.flac", 50, "valid.parquet"),
            stories=f"[{text}/train.parquet, {text}/valid.parquet]",
            stories_per_shard=20,
        ),
        stage(
            *("benchmark", "StoryCloze/synthesis/natural.yaml"),
            *("audio/**/*.flac", 30, "cloze.parquet"),
            files="{en: items_en.jsonl, fr: items_fr.jsonl}",
        ),
        stage(
            *(checked, "TinyStories/speaker_check/mini.yaml"),
            *("embeddings/*.parquet", 1, "valid.parquet"),
            data_folder="synthesis",
            splits="[train, valid]",
            items="null",
            utterances=80,
        ),
        stage(
            *("units", "TinyStories/units/mini.yaml"),
            *("utterances/utterances-*", 2, "cloze/store.json"),
            manifests=f"[{checked}/train.parquet, {checked}/valid.parquet, "
            "benchmark/cloze.parquet]",
            fit_seconds=120,
            bpe=f"{{vocabulary_size: {VOCABULARY}}}",
            extraction="{utterances_per_shard: 50}",
        ),
        stage(
            *("LM", "TinyStories/LM/mini.yaml"),
            *("save/CKPT*", 1, "model/units.json"),
            **TINY_LM
            | {"units_folder": "units", "vocabulary_size": VOCABULARY},
        ),
        stage(
            *("scores", "TinyStories/cloze/mini.yaml"),
            *("parts/*/part-*", 2, "results.json"),
            run="interleaved",
            model_folder="LM/model",
            units_folder="units/cloze",
            items="benchmark/items.parquet",
            pairs_per_shard=16,
        ),
    )


def write_sources(folder):
    """Write the damaged stories, and some cloze items."""
    folder.mkdir()
    expected = write_tinystories(folder / "TinyStories.txt", NUM_STORIES)
    for language in ("en", "fr"):
        path = folder / f"items_{language}.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for item in load_natural()[:NUM_ITEMS]:
                texts = {"id": item.item_id}
                for name in ("prompt", "right", "wrong"):
                    texts[name] = getattr(item, name)[language]
                print(json.dumps(texts), file=file)
    return expected


def run_chain(folder, url, killed):
    """Run all stages, each after a kill or at once."""
    for name, arguments, pattern, count, last in stages(url):
        begun = folder / name
        if killed:
            process = start(arguments, cwd=folder, NO_PROXY="127.0.0.1")
            wait_until(
                lambda where=begun, sign=pattern, enough=count: (
                    len(list(where.glob(sign))) >= enough
                ),
                process,
            )
            kill(process)
            assert not (begun / last).exists(), f"{name} had ended"
        code, output = run(arguments, 240, cwd=folder, NO_PROXY="127.0.0.1")
        assert code == 0, f"{name}: {output}"
        assert (begun / last).exists()


WRITTEN = """text/text/*.parquet text/left_out.jsonl translation/text/*
synthesis/*.parquet synthesis/left_out.jsonl synthesis/audio/**/*
benchmark/*.parquet benchmark/left_out.jsonl benchmark/text/*
benchmark/audio/**/* speaker_check/*.parquet speaker_check/left_out.jsonl
speaker_check/voices.* units/tokenizer/**/* units/train/* units/valid/*
units/cloze/* units/left_out.jsonl LM/model/* scores/scores.parquet
scores/results.json"""


def digests(folder):
    """Return path -> SHA-256 of what the stages wrote, logs apart."""
    found = {}
    for pattern in WRITTEN.split():
        paths = [path for path in folder.glob(pattern) if path.is_file()]
        assert paths, f"nothing is written as {pattern}"
        for path in paths:
            found[str(path.relative_to(folder))] = sha256_file(path)
    return found


def check_ledger(folder, expected):
    """Every defect is in the ledger, and nothing else is."""
    lines = (folder / "text" / "left_out.jsonl").read_text().splitlines()
    found = {}
    for entry in map(json.loads, lines):
        found[int(entry["place"].rpartition(":")[2])] = entry["reason"]
    assert found == expected


def check_pairs(manifest, texts):
    """Sentence i is spoken in both languages, and by one speaker."""
    spoken = {}
    for row in pq.read_table(manifest).to_pylist():
        key = row["story_id"], row["sentence"]
        spoken.setdefault(key, {})[row["language"]] = row
    written = {
        (row["story_id"], row["sentence"]): row["en"]
        for row in pq.read_table(texts).to_pylist()
    }
    assert spoken.keys() == written.keys()
    for key, text in written.items():
        english, french = spoken[key]["en"], spoken[key]["fr"]
        assert english["text"] == text
        assert french["text"] == fake_translation(text)
        assert english["speaker"] == french["speaker"]
    return Counter(story_id for story_id, _ in written)


@pytest.mark.slow
def test_every_stage_killed(tmp_path):
    def choose(number, body):
        return random.Random(number).choice(FAULTS)

    with chat_server(choose) as (url, _):
        for name in ("whole", "killed"):
            expected = write_sources(tmp_path / name)
            run_chain(tmp_path / name, url, killed=name == "killed")
    found = {name: digests(tmp_path / name) for name in ("whole", "killed")}
    assert found["killed"] == found["whole"]
    folder = tmp_path / "killed"
    check_ledger(folder, expected)
    for split in ("train", "valid"):
        sentences = check_pairs(
            folder / "speaker_check" / f"{split}.parquet",
            folder / "text" / "text" / f"{split}.parquet",
        )
        store = UnitStore(folder / "units" / split)
        for story_id, count in sentences.items():
            for language in ("en", "fr"):
                assert len(store.story(story_id, language)) == count
    records = json.loads((folder / "scores" / "results.json").read_text())
    assert {
        (record["metric"], record["direction"]): record["n"]
        for record in records["records"]
        if record["scoring"] == "whole_mean"
    } == {
        (metric, direction): NUM_ITEMS
        for metric in ("sSC", "sTC")
        for direction in ("en", "fr", "en>fr", "fr>en")
    }
