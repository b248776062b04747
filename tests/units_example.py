"""Noise for speech, and a tokenizer that needs no fitting."""

import hashlib
import time

import numpy as np
import pyarrow as pa
import soundfile

from speechbrain_slm.units.assembly import assemble_stores
from speechbrain_slm.units.extraction import extract_utterances
from speechbrain_slm.units.manifest import map_manifest
from speechbrain_slm.units.rejects import leave_out_rejects
from speechbrain_slm.units.rows import KeyIndex, Rows
from speechbrain_slm.units.tokenizers.base import save_description
from speechbrain_slm.units.utterances import Utterances
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.jobs import lock_folder
from speechbrain_slm.utils.tables import MANIFEST, write_table

RATE = 16000


class LoudnessTokenizer:
    """Units are the loudness of 40 ms blocks, in 16 steps."""

    sample_rate = RATE
    frame_rate = 25.0
    vocabulary_size = 16
    deduplicated = False
    fitted = True
    equal_lengths = False

    def __init__(self, codebook="a", delay=0.0):
        self.config = {"type": "loudness"}
        self.identity = identity_of({"codebook": codebook})
        self.shift = len(codebook)
        self.delay = delay

    def encode(self, wavs, lengths, languages=None):
        encoded = []
        for wav, length in zip(wavs.numpy(), lengths.tolist(), strict=True):
            time.sleep(self.delay)
            count = length // 640
            blocks = np.abs(wav[: count * 640]).reshape(count, 640)
            levels = (blocks.mean(axis=1) * 60).astype(int) + self.shift
            encoded.append(levels % 16)
        return encoded

    def save(self, folder):
        save_description(folder, self.config, self.identity)


def clip(seed, seconds=0.4, rate=RATE):
    """Make noise whose loudness and pitch wander."""
    generator = np.random.default_rng(seed)
    steps = int(np.ceil(seconds * 25))
    loudness = np.repeat(generator.uniform(0.05, 0.5, steps), rate // 25)
    pitch = np.repeat(generator.uniform(100, 3000, steps), rate // 25)
    count = int(seconds * rate)
    tone = np.sin(2 * np.pi * np.cumsum(pitch[:count]) / rate)
    noise = generator.normal(size=count) * 0.01
    return loudness[:count] * tone + noise


def entry(path):
    """Say what a manifest says of an audio file."""
    info = soundfile.info(path)
    return {
        "audio": str(path),
        "num_samples": info.frames,
        "sample_rate": info.samplerate,
        "sha256": sha256_file(path),
    }


def write_corpus(folder, stories=12, sentences=3, files=30, split="train"):
    """Write audio and a manifest in which stories share utterances.

    An even number of files: each language has half of them.
    """
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    entries = []
    for number in range(files):
        path = folder / "audio" / f"{split}-{number:03d}.flac"
        wav = clip([number, len(split)], 0.3 + 0.02 * (number % 7))
        soundfile.write(path, wav, RATE)
        entries.append({**entry(path), "audio": f"audio/{path.name}"})
    rows = []
    for story in range(stories):
        for number in range(2 * sentences):
            row = {
                "story_id": f"{split}-{story:03d}",
                "sentence": number // 2,
                "language": ("en", "fr")[number % 2],
                "speaker": ("alto", "bass")[story % 2],
            }
            rows.append(row | entries[(story * 6 + number) % files])
    return write_manifest(folder / f"{split}.parquet", rows)


def sha256(name):
    """Return a SHA-256 for audio that is only named."""
    return hashlib.sha256(name.encode()).hexdigest()


def write_manifest(path, rows):
    """Write a manifest from its rows, and return its path."""
    write_table(path, pa.Table.from_pylist(rows, schema=MANIFEST))
    return path


def extract(
    manifest, folder, tokenizer, max_rejects=0.1, utterances_per_shard=4
):
    """Run the steps of the units recipe, without fitting."""
    with lock_folder(folder):
        copy = folder / "manifests" / "train.arrow"
        manifests = {"train": map_manifest(manifest, ["en", "fr"], copy)}
        utterances = folder / "utterances"
        extract_utterances(
            manifests.values(), tokenizer, utterances, utterances_per_shard
        )
        kept = leave_out_rejects(manifests, utterances, folder, max_rejects)
        assemble_stores(kept, tokenizer, folder, stories_per_shard=2)


def read_utterances(folder):
    """Return the units of all audio files, in the order of their SHA-256."""
    table = Utterances(folder).table
    rows = KeyIndex(table).first()["row"]
    return pa.Table.from_batches([Rows(table).take(rows)])


def digests(folder):
    """Return the SHA-256 of each file in a folder but for the lock."""
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def results(folder):
    """Return the digests of what an extraction is for.

    How it was cut into shards and ranks may show in ``utterances`` alone.
    """
    found = digests(folder)
    return {n: found[n] for n in found if not n.startswith("utterances/")}
