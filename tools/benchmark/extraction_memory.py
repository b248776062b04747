"""Show that extraction needs no memory that grows with the manifest.

    python tools/benchmark/extraction_memory.py
    python tools/benchmark/extraction_memory.py --sentences 20000 80000

Writes a synthetic manifest of each size (two languages, 10 sentences a story,
each with an audio file of its own), and runs all steps of the units recipe
but the fits, each size in a process of its own; reading and encoding are
faked (41 random units a sentence). Prints one line of JSON:

- peak_MB: for each size, the most memory that was the process's own at once
  (RssAnon and RssShmem, so without mapped files on a disk, which the system
  can write out and drop at any time; TMPDIR is the folder of the manifest).
- bytes_per_sentence: what the largest manifest needs more than the smallest,
  by the sentences that it has more.
- bytes_per_unit: of the unit store's files.
- seconds: for each size.
"""

import argparse
import json
import logging
import multiprocessing
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from speechbrain_slm.units import extraction
from speechbrain_slm.units.assembly import assemble_stores
from speechbrain_slm.units.audio import Clip
from speechbrain_slm.units.extraction import extract_utterances
from speechbrain_slm.units.manifest import map_manifest, sample_utterances
from speechbrain_slm.units.rejects import leave_out_rejects
from speechbrain_slm.utils.tables import MANIFEST

LANGUAGES = ("en", "fr")
SENTENCES = 10


class FakeTokenizer:
    """41 random units for whatever it is given: 3.3 s of Mimi's."""

    sample_rate = 16000
    frame_rate = 12.5
    vocabulary_size = 2048
    deduplicated = False
    fitted = True
    equal_lengths = False
    identity = "fake"

    def __init__(self):
        self.config = {"type": "fake"}
        self.generator = np.random.default_rng(0)

    def encode(self, wavs, lengths, languages=None):
        """Draw units, the same number for all."""
        return list(self.generator.integers(0, 2048, (len(lengths), 41)))


def write_manifest(path, sentences):
    """Write a synthetic manifest; stories are told in turn."""
    generator = np.random.default_rng(0)
    schema = MANIFEST.append(pa.field("text", pa.string()))
    a_story = len(LANGUAGES) * SENTENCES
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, sentences, 1000 * a_story):
            row = np.arange(start, min(start + 1000 * a_story, sentences))
            names = [f"train-{story:07d}" for story in row // a_story]
            sha256 = [generator.bytes(32).hex() for _ in row]
            columns = [
                names,
                row % SENTENCES,
                np.take(LANGUAGES, row % a_story // SENTENCES),
                np.char.add("speaker-", (row // a_story % 20).astype(str)),
                [f"audio/{name[:2]}/{name[:32]}.flac" for name in sha256],
                generator.integers(16000, 96000, len(row)),
                np.full(len(row), 16000),
                sha256,
                ["So she told her mother what she had seen."] * len(row),
            ]
            arrays = [
                pa.array(column).cast(field.type)
                for column, field in zip(columns, schema, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def fake_batches(batches, sample_rate, num_workers, max_seconds, finish):
    """Stand in for reading: every clip is a sample long."""
    clip = Clip(torch.ones(1))
    for batch in batches:
        yield batch, finish([clip] * len(batch))


def anonymous_bytes():
    """Return the memory that is the process's own, files in memory included."""
    found = [
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status")
        .read_text(encoding="utf-8")
        .splitlines()
        if line.startswith(("RssAnon", "RssShmem"))
    ]
    if not found:
        raise OSError("/proc/self/status has no RssAnon: this needs Linux")
    return sum(found)


class Peak(threading.Thread):
    """Watch the memory until told to stop."""

    def __init__(self):
        super().__init__(daemon=True)
        self.bytes = 0
        self.stopped = threading.Event()

    def run(self):
        """Look at it a hundred times a second."""
        while not self.stopped.wait(0.01):
            self.bytes = max(self.bytes, anonymous_bytes())


def extract(path, folder, results):
    """Run all steps, and tell the peak, the time and the store's size."""
    tempfile.tempdir = str(folder)
    extraction.read_batches = fake_batches
    extraction.manifest.refuse_missing_audio = lambda *_: None
    before, begin = anonymous_bytes(), time.monotonic()
    peak = Peak()
    peak.start()
    steps = {}

    def step(name):
        steps[name] = round((peak.bytes - before) / 2**20, 1)
        print(name, steps[name], "MB", file=sys.stderr)

    copy = folder / "manifests" / "train.arrow"
    manifests = {"train": map_manifest(path, LANGUAGES, copy)}
    step("manifest")
    sample_utterances(manifests["train"], 1000, 0)
    step("sample for k-means")
    utterances, tokenizer = folder / "utterances", FakeTokenizer()
    # As in the full-size YAML files.
    extract_utterances(manifests.values(), tokenizer, utterances, 10000)
    step("extraction")
    kept = leave_out_rejects(manifests, utterances, folder, 0)
    step("rejects")
    assemble_stores(kept, tokenizer, folder)
    step("stores")
    peak.stopped.set()
    info = json.loads(
        (folder / "train" / "store.json").read_text(encoding="utf-8")
    )
    units = sum(count["units"] for count in info["counts"].values())
    size = sum(
        (folder / "train" / name).stat().st_size for name in info["files"]
    )
    results.put((peak.bytes - before, time.monotonic() - begin, size / units))


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sentences", type=int, nargs="+", default=[500_000, 2_000_000]
    )
    parser.add_argument("--folder", help="where to write; 1 kB a sentence")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    context = multiprocessing.get_context("spawn")
    peaks, times = {}, {}
    for sentences in sorted(arguments.sentences):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
            path, results = Path(temporary) / "train.parquet", context.Queue()
            for target, inputs in (
                (write_manifest, (path, sentences)),
                (extract, (path, Path(temporary), results)),
            ):
                process = context.Process(target=target, args=inputs)
                process.start()
                process.join()
                if process.exitcode:
                    sys.exit("a step failed")
            peaks[sentences], times[sentences], size = results.get()
    few, many = min(peaks), max(peaks)
    growth = (peaks[many] - peaks[few]) / max(many - few, 1)
    line = {
        "peak_MB": {n: round(peaks[n] / 2**20, 1) for n in peaks},
        "bytes_per_sentence": round(growth, 1),
        "bytes_per_unit": round(size, 3),
        "seconds": {n: round(times[n], 1) for n in times},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
