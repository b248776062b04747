"""Time the extraction with each tokenizer; prints one line of JSON for each.

    python tools/benchmark/extraction.py
    python tools/benchmark/extraction.py --seconds 60 --tokenizers mel_kmeans
    python tools/benchmark/extraction.py --data_folder results/mini/synthesis

The speech is that of a part of the mini corpus, which is synthesised first
unless a folder is given. The pretrained encoders have random weights and a
fraction of their size, so that two cores encode 50 to 300 s of speech a
second; a real one is slower, and what stands around it then counts for less.

- times_real_time: seconds of speech that are read, encoded and published in
  a second.
- ratio: the share of the encoder-only limit that this is: the same encoder on
  the same speech, already in memory, in ideal batches, nothing read, nothing
  written. The encoder has all cores, and reading takes its part of them. The
  median of the repeats, of which each times both, one after the other; times
  and CPU seconds are those of the best.
- ratio_overlapped: the same with a core less for the encoder (as where it
  runs on a GPU), so that reading can overlap it.
- encoder_share: the share of the extraction's time that is spent in the
  encoder; the rest waits for speech or for the disk. Others on
  the machine disturb it less than the ratios. On a GPU, which works meanwhile,
  it says little.
- cpu_seconds_an_hour: CPU seconds of the extraction, by hours of speech.
- exact_share: the share of utterances that are computed again in float64.
- units_changed: units that differ between the extraction and encoding every
  utterance alone, of the first 500.
- library_times_real_time: of the encoder, with the convolutions of its library
  (on a GPU they are products of matrices).
- tf32, bf16: of the encoder in that precision, its times real time and the
  share of frames whose unit is another than in fp32.
- bytes_per_unit: of the files of a unit store of this speech, told as stories
  of 36 s (21,000 hours in 2.1 M stories, as in the paper) and 10 hours.
"""

import argparse
import hashlib
import itertools
import json
import logging
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import soundfile
import torch
import transformers

from speechbrain_slm.units import extraction
from speechbrain_slm.units.assembly import assemble_stores
from speechbrain_slm.units.audio import pad, read_clips
from speechbrain_slm.units.extraction import extract_utterances
from speechbrain_slm.units.fitting import fit_tokenizer
from speechbrain_slm.units.manifest import distinct_utterances, read_manifest
from speechbrain_slm.units.rejects import leave_out_rejects
from speechbrain_slm.units.rows import Rows
from speechbrain_slm.units.tokenizers import convolutions
from speechbrain_slm.units.tokenizers import mimi as mimi_module
from speechbrain_slm.units.tokenizers.batches import InBatches, encode_batches
from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans
from speechbrain_slm.units.tokenizers.mimi import Mimi
from speechbrain_slm.units.tokenizers.ssl_kmeans import SSLKMeans
from speechbrain_slm.units.tokenizers.whisper_kmeans import WhisperKMeans
from speechbrain_slm.units.utterances import Utterances

ROOT = Path(__file__).parents[2]
LANGUAGES = ("en", "fr")
BATCH_SECONDS = 60
NUM_WORKERS = 2
ALONE = 500  # utterances that are encoded alone for comparison
FEW = 10  # batches by which other ways to encode are measured
STORY_SECONDS = 36
STORE_HOURS = 10


def mel_kmeans(folder):
    """Make the tokenizer of the mini corpus."""
    return MelKMeans(num_clusters=30)


def _encoder(folder, kind, norm, **settings):
    config = getattr(transformers, f"{kind}Config")(
        num_attention_heads=8,
        conv_bias=norm == "layer",
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        **settings,
    )
    torch.manual_seed(0)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    extractor.save_pretrained(folder)
    return SSLKMeans(folder, layer=3, num_clusters=100)


def hubert_kmeans(folder):
    """Make a HuBERT of three narrow layers (base: 12 of 768)."""
    settings = dict(hidden_size=256, intermediate_size=1024)
    settings |= dict(num_hidden_layers=4, conv_dim=(128,) * 7)
    return _encoder(folder, "Hubert", "group", **settings)


def wavlm_kmeans(folder):
    """Make a WavLM of three narrow layers (large: 24 of 1024)."""
    settings = dict(hidden_size=256, intermediate_size=1024)
    settings |= dict(num_hidden_layers=4, conv_dim=(128,) * 7)
    return _encoder(folder, "WavLM", "layer", **settings)


def mimi(folder):
    """Make a Mimi with a quarter of its filters and layers."""
    config = transformers.MimiConfig(
        num_filters=16,
        hidden_size=128,
        num_hidden_layers=2,
        intermediate_size=512,
        upsample_groups=128,
        vector_quantization_hidden_dimension=128,
        codebook_dim=128,
    )
    torch.manual_seed(0)
    model = transformers.MimiModel(config)
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            buffer.copy_(torch.randn(buffer.shape))
    model.save_pretrained(folder)
    return Mimi(folder)


def whisper_kmeans(folder):
    """Make a Whisper encoder of the size of tiny (large: 32 of 1280)."""
    config = transformers.WhisperConfig(
        d_model=384,
        encoder_layers=4,
        encoder_attention_heads=6,
        encoder_ffn_dim=1536,
        decoder_layers=1,
    )
    torch.manual_seed(0)
    transformers.WhisperModel(config).save_pretrained(folder)
    return WhisperKMeans(folder, layer=3, num_clusters=100)


TOKENIZERS = {
    make.__name__: make
    for make in (mel_kmeans, hubert_kmeans, wavlm_kmeans, mimi, whisper_kmeans)
}


def make_speech(folder):
    """Synthesise a part of the mini corpus."""
    recipe = ROOT / "recipes" / "TinyStories" / "synthesis"
    sizes = {"num_train": 400, "num_valid": 20, "num_cloze": 20}
    options = [f"--{name}={size}" for name, size in sizes.items()]
    subprocess.run(
        [
            sys.executable,
            recipe / "train.py",
            recipe / "hparams" / "mini.yaml",
            f"--output_folder={folder}",
            *options,
        ],
        check=True,
        stdout=sys.stderr,
    )


def whole_stories(table, seconds):
    """Keep so much distinct speech, and all stories that it tells."""
    table = table.sort_by("story_id")
    rows = np.sort(distinct_utterances(table)["row"].astype(np.int64))
    found = Rows(table.select(["num_samples", "sample_rate"])).take(rows)
    lengths = found["num_samples"].to_numpy() / found["sample_rate"]
    end = rows[min(np.searchsorted(lengths.cumsum(), seconds), len(rows) - 1)]
    # To the end of its story.
    told = table["story_id"].to_pylist()
    end += told[end:].count(told[end])
    spoken = pc.unique(table["sha256"].slice(0, end))
    silent = pc.invert(pc.is_in(table["sha256"], spoken))
    lost = pc.unique(table["story_id"].filter(silent))
    return table.filter(pc.invert(pc.is_in(table["story_id"], lost)))


def long_stories(table):
    """Tell the same sentences, again and again, as stories of some length."""
    sentences = {}
    for row in table.to_pylist():
        key = row["story_id"], row["sentence"]
        sentences.setdefault(key, []).append(row)
    rows, story, number, length, total = [], 0, 0, 0.0, 0.0
    for spoken in itertools.cycle(sentences.values()):
        place = {"story_id": f"train-{story:07d}", "sentence": number}
        place["speaker"] = f"voice-{story % 44}"
        rows += [{**row, **place} for row in spoken]
        seconds = [row["num_samples"] / row["sample_rate"] for row in spoken]
        number, length = number + 1, length + sum(seconds) / len(seconds)
        total += sum(seconds)
        if length >= STORY_SECONDS:
            story, number, length = story + 1, 0, 0.0
            if total >= STORE_HOURS * 3600:
                return pa.Table.from_pylist(rows, schema=table.schema)


def more_speech(table, folder, times):
    """Write the speech several times, each more quietly, and list it all."""
    folder.mkdir()
    rows = table.to_pylist()

    def copies(row):
        samples, rate = soundfile.read(row["audio"], dtype="int16")
        made = []
        for number in range(times):
            path = folder / f"{row['sha256']}-{number}.flac"
            softer = (samples * 0.9**number).astype(np.int16)
            soundfile.write(path, softer, rate)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            made.append({"audio": str(path), "sha256": digest})
        return row["sha256"], made

    distinct = {row["sha256"]: row for row in rows}
    with ThreadPoolExecutor() as pool:
        told = dict(pool.map(copies, distinct.values()))
    spoken = [
        {**row, "story_id": f"{row['story_id']}-{n}", **told[row["sha256"]][n]}
        for n in range(times)
        for row in rows
    ]
    return pa.Table.from_pylist(spoken, schema=table.schema)


def ideal_batches(wavs, languages, tokenizer):
    """Batch all speech by length, as full as may be."""
    order = sorted(range(len(wavs)), key=lambda n: -len(wavs[n]))
    limit = BATCH_SECONDS * tokenizer.sample_rate
    batches = []
    for number in order:
        length = len(wavs[number])
        batch = batches[-1] if batches else []
        longest = len(wavs[batch[0]]) if batch else 0
        other = tokenizer.equal_lengths and length != longest
        if not batch or other or longest * (len(batch) + 1) > limit:
            batches.append([])
        batches[-1].append(number)
    pinned = torch.device(getattr(tokenizer, "device", "cpu")).type == "cuda"
    return [
        (*pad([wavs[n] for n in batch], pinned), [languages[n] for n in batch])
        for batch in batches
    ]


def timed(function):
    """Return the wall clock and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def encode_all(tokenizer, batches):
    """Return all units of batches."""
    return [u for units in encode_batches(tokenizer, batches) for u in units]


class Watch:
    """Count the seconds in an encoder, without those of what it waits for."""

    def __init__(self):
        self.inside = 0.0

    def _counted(self, iterable, sign):
        iterator, end = iter(iterable), object()
        while True:
            begin = time.perf_counter()
            item = next(iterator, end)
            self.inside += sign * (time.perf_counter() - begin)
            if item is end:
                return
            yield item

    def encode_batches(self, tokenizer, batches):
        """Stand in for what encodes batches."""
        stream = encode_batches(tokenizer, self._counted(batches, -1))
        return self._counted(stream, 1)


class Comparison(NamedTuple):
    """Wall clock and CPU seconds of the limit and of the extraction."""

    limit: np.ndarray
    extraction: np.ndarray
    ratio: float
    share: float
    utterances: Path


def compare(table, tokenizer, batches, folder, repeats, threads):
    """Time the limit and the extraction in turn.

    The best of each is kept, and the median of their ratios: each is that of
    two runs one after the other, whatever else the machine did meanwhile.
    """
    torch.set_num_threads(threads)
    limits, extractions, shares = [], [], []
    how = {"batch_seconds": BATCH_SECONDS, "num_workers": NUM_WORKERS}
    for number in range(repeats + 1):
        utterances = folder / f"utterances-{threads}-{number}"
        limit = timed(lambda: encode_all(tokenizer, batches))
        watch = Watch()
        extraction.encode_batches = watch.encode_batches
        whole = timed(
            lambda into=utterances: extract_utterances(
                [table], tokenizer, into, **how
            )
        )
        extraction.encode_batches = encode_batches
        # The first one warms up.
        if number:
            limits.append(limit)
            extractions.append(whole)
            shares.append(watch.inside / whole[0])
    ratios = np.divide(limits, extractions)[:, 0]
    return Comparison(
        np.min(limits, axis=0),
        np.min(extractions, axis=0),
        float(np.median(ratios)),
        max(shares),
        utterances,
    )


def other_ways(tokenizer, batches):
    """Measure an encoder's other convolutions and precisions."""
    if not isinstance(tokenizer, InBatches):
        return {}
    samples = sum(int(lengths.sum()) for _, lengths, _ in batches)
    seconds = samples / tokenizer.sample_rate
    found, modules = {}, (convolutions, mimi_module)
    if tokenizer.device.type == "cuda":
        before = convolutions.applies
        for module in modules:
            module.applies = lambda hidden: False
        encode_all(tokenizer, batches)
        wall, _ = timed(lambda: encode_all(tokenizer, batches))
        found["library_times_real_time"] = round(seconds / wall, 1)
        for module in modules:
            module.applies = before
    for precision in ("tf32", "bf16"):
        if precision == "tf32" and tokenizer.device.type != "cuda":
            continue  # nothing else than fp32
        tokenizer.precision = precision
        shares = [tokenizer.share_changed(*batch) for batch in batches]
        wall, _ = timed(lambda: encode_all(tokenizer, batches))
        found[precision] = {
            "times_real_time": round(seconds / wall, 1),
            "units_changed": round(float(np.mean(shares)), 5),
        }
    tokenizer.precision = "fp32"
    return found


def exact_share(tokenizer, batches):
    """Return the share of utterances that are computed again in float64."""
    if not isinstance(tokenizer, InBatches):
        return 0.0
    start, count = tokenizer._start, []

    def watched(wavs, lengths, languages, precision):
        count.append(len(wavs) * (precision == "fp64"))
        return start(wavs, lengths, languages, precision)

    tokenizer._start = watched
    total = len(encode_all(tokenizer, batches))
    del tokenizer._start
    return round(sum(count) / total, 5)


def units_changed(tokenizer, table, rows, wavs, languages, utterances):
    """Count units that are others than those of each utterance alone."""
    changed, encoded = 0, Utterances(utterances)
    found = encoded.units(encoded.locate(table.take(rows.astype(np.int64))))
    spoken = list(zip(wavs, languages, found, strict=True))[:ALONE]
    for wav, language, units in spoken:
        (alone,) = tokenizer.encode(*pad([wav]), [language])
        same = len(alone) == len(units)
        changed += int((alone != units).sum()) if same else len(alone)
    return changed


def measure(name, table, folder, repeats):
    """Return what the benchmark prints of a tokenizer."""
    tokenizer = TOKENIZERS[name](folder / "model")
    tokenizer = fit_tokenizer(
        tokenizer, {"train": table}, folder / "tokenizer", 60, 0
    )
    rows = distinct_utterances(table)["row"]
    listed = Rows(table).take(rows).to_pylist()
    clips = read_clips(listed, tokenizer.sample_rate, NUM_WORKERS)
    wavs = [clip.wav for clip in clips]
    languages = [row["language"] for row in listed]
    batches = ideal_batches(wavs, languages, tokenizer)
    hours = sum(r["num_samples"] / r["sample_rate"] for r in listed) / 3600

    cores = torch.get_num_threads()
    settings = (table, tokenizer, batches, folder, repeats)
    whole = compare(*settings, cores)
    limit, best, utterances = whole.limit, whole.extraction, whole.utterances
    fewer, device = None, torch.device(getattr(tokenizer, "device", "cpu"))
    if cores > 1 and device.type == "cpu":
        beside = compare(*settings, cores - 1)
        fewer = round(beside.ratio, 3)
        torch.set_num_threads(cores)

    # Not the longest ones alone.
    few = batches[:: -(-len(batches) // FEW)]
    told = (table, rows, wavs, languages, utterances)
    changed = units_changed(tokenizer, *told)
    stories = {"train": long_stories(table)}
    kept = leave_out_rejects(stories, utterances, folder, 0)
    assemble_stores(kept, tokenizer, folder)
    info = json.loads(
        (folder / "train" / "store.json").read_text(encoding="utf-8")
    )
    size = sum(
        (folder / "train" / file).stat().st_size for file in info["files"]
    )
    stored = sum(count["units"] for count in info["counts"].values())
    return {
        "name": name,
        "times_real_time": round(hours * 3600 / best[0], 1),
        "ratio": round(whole.ratio, 3),
        "ratio_overlapped": fewer,
        "encoder_share": round(whole.share, 3),
        "encoder_times_real_time": round(hours * 3600 / limit[0], 1),
        "cpu_seconds_an_hour": round(best[1] / hours, 1),
        "units_changed": changed,
        "exact_share": exact_share(tokenizer, few),
        **other_ways(tokenizer, few),
        "bytes_per_unit": round(size / stored, 3),
        "seconds": round(hours * 3600, 1),
        "cores": cores,
        "num_workers": NUM_WORKERS,
    }


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_folder", help="holds train.parquet")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokenizers", nargs="+", default=list(TOKENIZERS))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(arguments.data_folder or Path(temporary) / "speech")
        if not arguments.data_folder:
            make_speech(data)
        table = read_manifest(data / "train.parquet", LANGUAGES)
        table = whole_stories(table, arguments.seconds)
        for name in arguments.tokenizers:
            folder = Path(temporary) / name
            folder.mkdir()
            line = measure(name, table, folder, arguments.repeats)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
