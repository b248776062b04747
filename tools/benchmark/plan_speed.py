"""Time a token plan over millions of stories; prints one line of JSON.

    python tools/benchmark/plan_speed.py
    python tools/benchmark/plan_speed.py --stories 20000    # a small one

Writes a synthetic store (two languages, 10 sentences a story, about 40 units
a sentence) to a temporary folder, 3.6 GB for 2.1 million stories. Then:

- build_seconds: TokenPlan over the opened store, with the summary that is
  logged at the start of every run (it lays out each epoch of the run once);
  open_seconds, verify_seconds and content_seconds: before that, opening the
  store, comparing its SHA-256 and looking through its arrays.
- bytes_per_sentence: growth of the process's own memory (RssAnon: without the
  mapped files) over opening, building and the rows, by sentence of the store,
  all languages of a sentence together.
- tokens_per_second: rows of consecutive steps, by CPU second.
- resume_seconds: the first rows of a random step, in a plan that has built no
  row before; the worst of several.
- best_fit_seconds, best_fit_padding: building a best-fit plan of one epoch of
  interleaved stories, its summary and first row included.

The reference for the ratio is a loop in Python over the sentences of the same
stories, which makes the same tokens: "times_naive".
"""

import argparse
import functools
import json
import logging
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from synthetic import SIGMA, tokenizer

from speechbrain_slm.dataio import reader
from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.store import StoreWriter
from speechbrain_slm.utils.store_format import (
    check_content,
    read_info,
    read_tables,
    schema,
)

LANGUAGES = ("en", "fr")
SENTENCES = 10
SOURCES = {
    "en": {"languages": ["en"]},
    "fr": {"languages": ["fr"]},
    "interleaved": {"languages": ["en", "fr"], "switch_probability": 0.5},
}


def write_store(folder, stories, shards=8, mean=40.1, vocabulary_size=501):
    """Write random stories without a Python object for each."""
    generator = np.random.default_rng(0)
    writer = StoreWriter(
        folder, tokenizer(vocabulary_size), "synthetic", shards
    )
    for shard, numbers in enumerate(np.array_split(np.arange(stories), shards)):
        rows = len(numbers) * len(LANGUAGES)
        names = [f"story-{number:07d}" for number in numbers.tolist()]
        # Lognormal sentences whose sum over a story varies by SIGMA.
        scale = generator.lognormal(-(SIGMA**2) / 2, SIGMA, (rows, 1))
        lengths = scale * generator.uniform(0.5, 1.5, (rows, SENTENCES)) * mean
        ends = np.maximum(lengths, 1).astype(np.int32).cumsum(1, np.int32)
        offsets = np.concatenate([[0], ends[:, -1].cumsum()]).astype(np.int32)
        units = generator.integers(
            0, vocabulary_size, offsets[-1], dtype=np.uint16
        )
        columns = schema(int(ends.max()))
        batch = pa.record_batch(
            [
                pa.array(np.repeat(names, len(LANGUAGES)), pa.string()),
                pa.array(list(LANGUAGES) * len(names), pa.string()),
                pa.array(["synthetic"] * rows, pa.string()),
                pa.ListArray.from_arrays(pa.array(offsets), pa.array(units)),
                pa.ListArray.from_arrays(
                    pa.array(np.arange(rows + 1, dtype=np.int32) * SENTENCES),
                    pa.array(ends.ravel()).cast(
                        columns.field("sentence_ends").type.value_type
                    ),
                ),
            ],
            schema=columns,
        )
        writer.publish(shard, batch)
    writer.finish()


def anonymous_bytes():
    """Return the memory that is the process's own."""
    for line in (
        Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    ):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon: this needs Linux")


def naive_rows(store, source, stories, length):
    """Make the rows of the first stories with Python loops."""
    stream = []
    order = source.order(0)[:stories]
    told = source.tell(0, np.arange(stories))
    sentence = 0
    for story in order.tolist():
        stream.append(store.vocabulary_size)
        story_id = store.story_ids[story].as_py()
        by_language = [store.story(story_id, name) for name in LANGUAGES]
        for number in range(SENTENCES):
            language = told.languages[sentence]
            stream.extend(by_language[language][number].tolist())
            sentence += 1
    rows = len(stream) // length
    return np.array(stream[: rows * length]).reshape(rows, length)


def build(store, stages, packing, row_length, rows_per_step):
    """Make a plan as a run does, with the summary that it logs."""
    plan = TokenPlan(
        dict.fromkeys(SOURCES, store),
        SOURCES,
        stages,
        row_length=row_length,
        rows_per_step=rows_per_step,
        seed=0,
        packing=packing,
    )
    plan.log_summary()
    return plan


def measure(folder, arguments):
    """Return what the benchmark prints."""
    # As UnitStore does: this also brings the files into memory.
    began = time.perf_counter()
    info = read_info(folder)
    paths = [Path(folder) / name for name in info["files"]]
    for path in paths:
        sha256_file(path)
    verified = time.perf_counter()
    reader.read_tables = functools.partial(read_tables, check=False)
    before = anonymous_bytes()
    store = UnitStore(folder)
    opened = time.perf_counter()
    shape = (arguments.row_length, arguments.rows_per_step)
    tokens = store.info["counts"]["en"]["units"] + arguments.stories
    # One pass: a quarter of it whole in each language, half interleaved.
    mixture = {"en": 0.25, "fr": 0.25, "interleaved": 0.5}
    stages = [{"tokens": tokens, "mixture": mixture}]
    plan = build(store, stages, "concatenate", *shape)
    built = time.perf_counter()

    begin, made = time.process_time(), 0
    for step in range(min(plan.num_steps, arguments.steps)):
        made += plan.rows(step).size
    speed = made / (time.process_time() - begin)
    memory = anonymous_bytes() - before

    resumes = []
    for step in np.random.default_rng(1).integers(0, plan.num_steps, 5):
        fresh = build(store, stages, "concatenate", *shape)
        again = time.perf_counter()
        fresh.rows(int(step))
        resumes.append(time.perf_counter() - again)
    del fresh

    few = min(1000, arguments.stories)
    packed = plan.sources["interleaved"]
    store.story("story-0000000", "en")  # Makes its index of names.
    begin = time.process_time()
    naive = naive_rows(store, packed.source, few, plan.row_length)
    naive_speed = naive.size / (time.process_time() - begin)
    if not (packed.rows(np.arange(len(naive))) == naive).all():
        sys.exit("the plan's rows differ from those of the naive loop")
    del plan, packed

    stages = [{"tokens": tokens, "mixture": {"interleaved": 1}}]
    begin = time.perf_counter()
    plan = build(store, stages, "best_fit", *shape)
    plan.rows(0)
    best_fit = time.perf_counter() - begin
    found = plan.statistics(plan.num_steps)["interleaved"]
    begin, made = time.process_time(), 0
    for step in range(min(plan.num_steps, arguments.steps)):
        made += plan.rows(step).size
    best_fit_speed = made / (time.process_time() - begin)
    tables = read_tables(folder, check=False)[1]
    began_to_look = time.perf_counter()
    check_content(paths, tables, info)
    looked = time.perf_counter() - began_to_look
    return {
        "build_seconds": round(built - opened, 3),
        "bytes_per_sentence": round(
            memory / (arguments.stories * SENTENCES), 2
        ),
        "tokens_per_second": round(speed),
        "resume_seconds": round(max(resumes), 4),
        "best_fit_seconds": round(best_fit, 3),
        "best_fit_padding": round(
            found["padding"] / (found["rows"] * arguments.row_length), 5
        ),
        "best_fit_tokens_per_second": round(best_fit_speed),
        "times_naive": round(speed / naive_speed, 1),
        "open_seconds": round(opened - verified, 3),
        "verify_seconds": round(verified - began, 3),
        "content_seconds": round(looked, 3),
        "stories": arguments.stories,
        "row_length": arguments.row_length,
        "rows_per_step": arguments.rows_per_step,
        "epoch_tokens": tokens,
    }


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stories", type=int, default=2_100_000)
    parser.add_argument("--row_length", type=int, default=2048)
    parser.add_argument("--rows_per_step", type=int, default=300)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--folder", help="keep the store here, and reuse it")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or temporary) / "store"
        if not (folder / "store.json").exists():
            # In a process of its own, whose memory is gone when it ends.
            context = multiprocessing.get_context("spawn")
            writer = context.Process(
                target=write_store, args=(folder, arguments.stories)
            )
            writer.start()
            writer.join()
            if writer.exitcode:
                sys.exit("the store could not be written")
        print(json.dumps(measure(folder, arguments)))


if __name__ == "__main__":
    main()
