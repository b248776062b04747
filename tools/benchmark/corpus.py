"""Time the text recipe: stories a second, and memory; prints one line of JSON.

    python tools/benchmark/corpus.py
    python tools/benchmark/corpus.py --stories 5000 40000

Files in the form of TinyStories are written first: stories of the bundled
grammar, several in one until it has the length of a real one (about 900
characters), with dialogue; one in fifty has mojibake, as many are duplicates,
and as many stop in the middle. Each file is read, cleaned, cut into sentences
and written as stories tables by a process of its own, on one core.

- stories_per_second: of the largest file, what is left out included. The
  start of Python and its imports do not count.
- hours_of_2100000: what the published 2.1 M stories would take.
- megabytes: the peak of each process, by the number of stories.
- bytes_per_story: how much more memory a story takes, from the smallest file
  to the largest.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LENGTH = 900  # characters
STORIES_PER_SHARD = 5000  # of the synthesis: what is in memory at once
SHARE = 50  # one story in so many has each defect
TALK = ('"What is that?" asked Mr. Brown.', '"Let\'s go... Now!" she said.')


def write_stories(path, num_stories):
    """Write a file of different stories; return its characters a story."""
    from speechbrain_slm.stories.grammar.grammar import StoryGrammar

    drawn = StoryGrammar.load().generate(2000, "train", 0, ["en"])
    parts = [" ".join(story.sentences["en"]) for story in drawn]
    rng = random.Random(0)
    total, text = 0, ""
    with open(path, "w", encoding="utf-8") as file:
        for number in range(num_stories):
            before, paragraphs = text, []
            while sum(map(len, paragraphs)) < LENGTH:
                paragraphs += [rng.choice(parts), rng.choice(TALK)]
            text = "\n\n".join(paragraphs)
            if number % SHARE == 1:
                text = text.replace('"', "â€œ").replace("'", "â€™")
            elif number % SHARE == 2:
                text = text[:-5]
            elif number % SHARE == 4:
                text = before
            total += len(text)
            file.write(f"{text}\n<|endoftext|>\n")
    return total / num_stories


def prepare(path, folder):
    """Prepare a file; return the lines of its ledger."""
    from speechbrain_slm.stories.sources import SeparatedText
    from speechbrain_slm.stories.text import prepare_text
    from speechbrain_slm.utils.config import load_yaml

    rules = load_yaml(ROOT / "hparams" / "languages" / "en.yaml")["rules"]
    source = SeparatedText(path, "en", "tiny")

    def step():
        prepare_text(folder, source, [rules])
        ledger = Path(folder) / "left_out.jsonl"
        return {"ledger": ledger.read_text(encoding="utf-8").count("\n")}

    return timed(step)


def translate(folder):
    """Let sentences stand in for their translation, which is not timed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in Path(folder).glob("text/*.parquet"):
        source, other = pq.ParquetFile(path), path.with_suffix(".new")
        schema = source.schema_arrow.append(pa.field("fr", pa.string()))
        with pq.ParquetWriter(other, schema) as writer:
            for batch in source.iter_batches():
                columns = [*batch.columns, batch["en"]]
                writer.write_batch(pa.record_batch(columns, schema=schema))
        other.replace(path)
    return {}


def fake_speech(function, context, chunks, num_workers):
    """Stand in for the workers that speak: 3 s an utterance."""
    from speechbrain_slm.speech.utterances import Fact

    for chunk in chunks:
        yield [
            Fact(one.audio, 48000, 60000, "0" * 64, "spoken") for one in chunk
        ]


def write_manifests(folder):
    """Write manifests in two languages; return their rows."""
    import pyarrow.parquet as pq

    from speechbrain_slm.speech import shard_speech, synthesis
    from speechbrain_slm.speech.utterances import Speech, Trim
    from speechbrain_slm.utils.config import load_yaml

    fragment = ROOT / "hparams" / "tts" / "nanotts.yaml"
    speech = load_yaml(fragment, {"names": ["anna", "bruno"]})
    shard_speech.run_in_workers = fake_speech
    tables = synthesis.name_tables(sorted(Path(folder).glob("text/*.parquet")))
    output = Path(folder) / "speech"

    def step():
        synthesis.synthesize(
            tables,
            output,
            Speech(
                speech["tts"],
                speech["speakers"],
                ["en", "fr"],
                0,
                Trim(-40.0, 0.1),
                stories_per_shard=STORIES_PER_SHARD,
            ),
            num_workers=1,
        )
        found = [output / f"{name}.parquet" for name in tables]
        return {"rows": sum(pq.read_metadata(one).num_rows for one in found)}

    return timed(step)


def timed(step):
    """Run a step; add its seconds and the process's peak."""
    start = time.perf_counter()
    found = step()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "megabytes": peak, **found}


STEPS = {step.__name__: step for step in (prepare, translate, write_manifests)}


def run_step(step, *arguments):
    """Run a step in a process of its own, on one core."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    one_thread["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path[1:]])
    command = [sys.executable, __file__, "--step", step.__name__]
    text = subprocess.run(
        [*command, *map(str, arguments)],
        check=True,
        stdout=subprocess.PIPE,
        env=one_thread,
        text=True,
    ).stdout
    return json.loads(text.splitlines()[-1])


def measure(num_stories, folder):
    """Time all steps of a file."""
    path = Path(folder) / f"{num_stories}.txt"
    length = write_stories(path, num_stories)
    output = Path(folder) / str(num_stories)
    text = run_step(prepare, path, output)
    run_step(translate, output)
    manifests = run_step(write_manifests, output)
    return {
        "characters": length,
        "stories": num_stories,
        "ledger": text["ledger"],
        "rows": manifests["rows"],
        "seconds": [one["seconds"] for one in (text, manifests)],
        "megabytes": [one["megabytes"] for one in (text, manifests)],
    }


def main():
    """Measure all sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories", type=int, nargs=2, default=[60000, 150000])
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        name, *rest = arguments.step
        print(json.dumps(STEPS[name](*rest)))
        return
    with tempfile.TemporaryDirectory() as folder:
        small, large = (measure(n, folder) for n in sorted(arguments.stories))
    text, manifests = (large["stories"] / one for one in large["seconds"])
    rate = large["stories"] / sum(large["seconds"])
    more = max(
        many - few
        for few, many in zip(
            small["megabytes"], large["megabytes"], strict=True
        )
    )
    result = {
        "stories_per_second": round(rate),
        "text": round(text),
        "manifests": round(manifests),
        "hours_of_2100000": round(2_100_000 / rate / 3600, 2),
        "characters_a_story": round(large["characters"]),
        "manifest_rows": large["rows"],
        "ledger_lines": large["ledger"],
        "megabytes": {
            str(one["stories"]): [round(peak) for peak in one["megabytes"]]
            for one in (small, large)
        },
        "bytes_per_story": round(
            more * 2**20 / (large["stories"] - small["stories"])
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
