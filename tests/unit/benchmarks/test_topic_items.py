"""Topic items of a manifest without text, and of one with it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speechbrain_slm.benchmarks.topic_items import write_topic_items
from speechbrain_slm.utils.ledger import TooManyLeftOut
from speechbrain_slm.utils.tables import (
    ITEMS,
    MANIFEST,
    MANIFEST_KEY,
    check_matched,
    read_table,
)

LANGUAGES = ["en", "fr"]


def write_manifest(folder, tellers, lengths=None, texts=None):
    """A story for each teller; each of its sentences is a file of its own."""
    rows = [
        {
            "story_id": f"s{story}",
            "sentence": sentence,
            "language": language,
            "speaker": teller,
            "audio": f"audio/{story}-{sentence}-{language}.wav",
            "num_samples": 8000,
            "sample_rate": 16000,
            "sha256": f"{story}-{sentence}-{language}",
            **({"text": texts[story][sentence]} if texts else {}),
        }
        for story, teller in enumerate(tellers)
        for language in LANGUAGES
        for sentence in range(lengths[story] if lengths else 3)
    ]
    text = [("text", pa.string())] if texts else []
    table = pa.Table.from_pylist(rows, pa.schema([*MANIFEST, *text]))
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "valid.parquet")
    return folder / "valid.parquet"


def read(folder):
    speech = folder / "speech.parquet"
    table = read_table(speech, MANIFEST, MANIFEST_KEY)
    check_matched(speech, table, LANGUAGES)
    found = {}
    for row in table.sort_by("sentence").to_pylist():
        key = row["story_id"], row["language"]
        found.setdefault(key, []).append(row)
    return found, pq.read_table(folder / "items.parquet").to_pylist()


def test_prompts_and_endings_are_those_of_the_stories(tmp_path):
    manifest = write_manifest(tmp_path / "in", "abab" * 3)
    write_topic_items(manifest, tmp_path / "out", seed=1)
    speech, items = read(tmp_path / "out")
    assert len(items) == 12 * 4
    for item in items:
        assert set(item) == set(ITEMS.names)
        number = item["item_id"][1:]
        one, two = item["prompt_language"], item["ending_language"]
        prompt = speech[item["prompt"], one]
        (right,), (wrong,) = (speech[item[s], two] for s in ("right", "wrong"))
        sums = [row["sha256"] for row in [*prompt, right]]
        places = (f"0-{one}", f"1-{one}", f"2-{two}")
        assert sums == [f"{number}-{place}" for place in places]
        other, sentence, spoken = wrong["sha256"].split("-")
        assert other != number
        assert (sentence, spoken) == ("2", two)
        # No voice gives the answer, and no direction has another ending.
        assert wrong["speaker"] == right["speaker"] == prompt[0]["speaker"]
        assert wrong["audio"] == f"{tmp_path}/in/audio/{wrong['sha256']}.wav"
    endings = {
        (item["item_id"], speech[item["wrong"], "en"][0]["sha256"])
        for item in items
    }
    assert len(endings) == 12
    write_topic_items(manifest, tmp_path / "again", seed=1)
    assert read(tmp_path / "again")[1] == items


def test_what_makes_no_item_is_listed(tmp_path):
    manifest = write_manifest(tmp_path, "aaaaab", [1, 2, 3, 2, 2, 3])
    with pytest.raises(TooManyLeftOut, match=r"2 of 6 stories"):
        write_topic_items(manifest, tmp_path / "out")
    assert not (tmp_path / "out" / "items.parquet").exists()
    write_topic_items(manifest, tmp_path / "out", max_left_out=0.4)
    lines = (tmp_path / "out" / "left_out.jsonl").read_text("utf-8")
    reasons = {
        entry["story_id"]: entry["reason"].partition(":")[0]
        for entry in map(json.loads, lines.splitlines())
    }
    assert reasons == {"s0": "a single sentence", "s5": "no other story"}


def test_with_text_no_ending_is_of_the_storys_topic(tmp_path):
    about = ["dog", "dog", "boat", "boat"]
    texts = [[f"A {word}."] * 3 for word in about]
    manifest = write_manifest(tmp_path, "aaaa", texts=texts)
    write_topic_items(manifest, tmp_path / "out")
    speech, items = read(tmp_path / "out")
    for item in items:
        (wrong,) = speech[item["wrong"], "en"]
        other = int(wrong["sha256"].split("-")[0])
        assert about[other] != about[int(item["item_id"][1:])]
