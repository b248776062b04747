"""Translation by a chat model: killed, on two ranks, with a bad server."""

import json
import random

import pyarrow.parquet as pq
from chat_server import chat_server, fake_translation
from processes import ROOT, command, kill, run, start, wait_until

from speechbrain_slm.utils.tables import stories_table, story_rows

RECIPE = ROOT / "recipes" / "TinyStories" / "translation"
KEY = "sk-Secret0123456789"


def write_stories(path, count=60):
    rows = []
    for number in range(count):
        said = f"of the story {number}."
        texts = [f"This is sentence {k} {said}" for k in range(2 + number % 4)]
        rows += story_rows(f"story-{number:03d}", {"en": texts})
    pq.write_table(stories_table(rows, ["en"]), path)
    return rows


def recipe(table, folder, url, ranks=1):
    settings = {"base_url": url, "api_key_variable": "TEST_API_KEY"}
    settings |= {"prompt_price": 1.0, "completion_price": 1.0}
    settings |= {"max_attempts": 20, "attempts": 10, "backoff": 0.01}
    settings |= {"concurrency": 4, "timeout": 5}
    return command(
        RECIPE / "train.py",
        RECIPE / "hparams" / "full.yaml",
        ranks,
        tables=f"[{table}]",
        output_folder=folder,
        stories_per_shard=4,
        translation=json.dumps(settings),
        device="cpu",
    )


def shows_no_key(output, folder):
    assert KEY not in output
    for path in folder.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


def test_killed_and_run_again(tmp_path):
    table, folder = tmp_path / "train.parquet", tmp_path / "out"
    rows = write_stories(table)
    environment = {"TEST_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    faults = ["429", "500", "joined", "empty", "torn", "drop", *[None] * 14]

    def choose(number, body):
        return random.Random(number).choice(faults)

    parts = folder / "parts" / "train"
    with chat_server(choose) as (url, asked):
        process = start(recipe(table, folder, url), **environment)
        wait_until(lambda: len(list(parts.glob("part-*"))) >= 3, process)
        kill(process)
        before = len(list(parts.glob("part-*")))
        code, output = run(recipe(table, folder, url, 2), **environment)
        assert code == 0, output
        requests = len(asked.requests)
        # Nothing is asked again, and nothing changes.
        written = (folder / "text" / "train.parquet").read_bytes()
        code, output = run(recipe(table, folder, url), **environment)
        assert code == 0, output
    assert before < 15
    assert len(asked.requests) == requests
    path = folder / "text" / "train.parquet"
    assert path.read_bytes() == written
    found = pq.read_table(path).to_pylist()
    expected = [{**row, "fr": fake_translation(row["en"])} for row in rows]
    assert found == expected
    usage = json.loads((parts / "usage.json").read_text())["gpt-4o"]
    assert 60 <= usage["requests"] <= requests
    assert usage["prompt_tokens"] == 100 * usage["requests"]
    assert usage["cost"] == round(110 * usage["requests"] / 1e6, 6)
    assert KEY in asked.headers[-1]["Authorization"]
    shows_no_key(output, tmp_path)


def test_a_wrong_key_is_not_shown(tmp_path):
    table, folder = tmp_path / "train.parquet", tmp_path / "out"
    write_stories(table, 8)
    with chat_server(lambda number, body: "401") as (url, _):
        arguments = recipe(table, folder, url)
        code, output = run(arguments, TEST_API_KEY=KEY, NO_PROXY="127.0.0.1")
    assert code != 0
    assert "HTTP 401: Incorrect API key provided: Bearer [API key]" in output
    shows_no_key(output, folder)
