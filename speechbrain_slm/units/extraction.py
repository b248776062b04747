"""From audio files to units: every distinct file is read and encoded once.

Stories share utterances, so what is encoded is the list of distinct audio
files of all splits, cut into shards by their SHA-256. A shard is published
whole or not at all; whoever runs next, with any number of ranks, does the
shards that are missing.
"""

import logging
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from speechbrain_slm.units.audio import read_clips
from speechbrain_slm.units.manifest import (
    content_identity,
    distinct_utterances,
    refuse_missing_audio,
)
from speechbrain_slm.units.tokenizer import describe
from speechbrain_slm.utils.atomic import remove_temporary
from speechbrain_slm.utils.distributed import (
    barrier,
    is_main,
    rank,
    world_size,
)
from speechbrain_slm.utils.plans import pin_plan
from speechbrain_slm.utils.store import check_units
from speechbrain_slm.utils.store_format import map_file, write_file

logger = logging.getLogger(__name__)

# A row is one audio file: its units, or the reason why it has none.
SCHEMA = pa.schema(
    [
        ("sha256", pa.string()),
        ("units", pa.list_(pa.uint16())),
        ("reason", pa.string()),
        ("note", pa.string()),
    ]
)
SHARDS = "utterances-*.arrow"


def _shard_path(folder, index):
    return Path(folder) / f"utterances-{index:05d}.arrow"


def extract_utterances(
    tables,
    tokenizer,
    folder,
    utterances_per_shard=1000,
    batch_seconds=60,
    num_workers=2,
):
    """Encode the distinct audio files of manifests, resuming what is there.

    Arguments
    ---------
    tables : iterable of pyarrow.Table
        Manifests of all splits.
    tokenizer : Tokenizer
        Makes the units.
    folder : str or Path
        Gets ``plan.json`` and ``utterances-*.arrow``.
    utterances_per_shard : int
        Audio files in a shard; what a kill can lose.
    batch_seconds : float
        Speech that the tokenizer gets at once, padding included, in seconds.
    num_workers : int
        Threads that read audio ahead.

    Raises
    ------
    FileNotFoundError
        If an audio file that is still to be read does not exist; nothing is
        encoded then.
    ValueError
        If the folder was begun with another tokenizer or list of audio.
    """
    utterances = distinct_utterances(tables)
    num_shards = -(-len(utterances) // utterances_per_shard)
    plan = {
        "tokenizer": describe(tokenizer),
        "utterances": content_identity(
            utterances, ["sha256", "num_samples", "sample_rate"]
        ),
        "num_shards": num_shards,
        "utterances_per_shard": utterances_per_shard,
    }
    if is_main():
        pin_plan(folder, plan, SHARDS)
        remove_temporary(folder)
    barrier()
    missing = [
        index
        for index in range(num_shards)
        if not _shard_path(folder, index).is_file()
    ]
    shards = {
        index: utterances.slice(
            index * utterances_per_shard, utterances_per_shard
        ).to_pylist()
        for index in missing
    }
    refuse_missing_audio(
        row["audio"] for rows in shards.values() for row in rows
    )
    # No rank publishes before every rank has listed what is missing.
    barrier()
    start, seconds = time.monotonic(), 0.0
    for index in missing[rank() :: world_size()]:
        rows = shards[index]
        _write_shard(
            _shard_path(folder, index),
            _encode(rows, tokenizer, batch_seconds, num_workers),
        )
        seconds += sum(row["num_samples"] / row["sample_rate"] for row in rows)
        logger.info(
            "Shard %d of %d: %.2f h of speech so far, %.0f x real time",
            index + 1,
            num_shards,
            seconds / 3600,
            seconds / (time.monotonic() - start),
        )
    barrier()


def _encode(rows, tokenizer, batch_seconds, num_workers):
    """Return the rows of a shard, batched by length to pad little."""
    order = sorted(range(len(rows)), key=lambda i: rows[i]["num_samples"])
    clips = read_clips(
        (rows[i] for i in order), tokenizer.sample_rate, num_workers
    )
    limit = batch_seconds * tokenizer.sample_rate
    encoded, batch = [None] * len(rows), []

    def flush():
        units = _encode_batch([clip.wav for _, clip in batch], tokenizer)
        for (i, clip), found in zip(batch, units, strict=True):
            if len(found):
                where = f"{rows[i]['audio']}, as encoded"
                check_units(found, tokenizer.vocabulary_size, where)
            reason = "" if len(found) else "too short to give a unit"
            encoded[i] = (rows[i]["sha256"], found, reason, clip.note)
        batch.clear()

    for i, clip in zip(order, clips, strict=True):
        if clip.reason:
            encoded[i] = (rows[i]["sha256"], [], clip.reason, "")
            continue
        longest = max(len(other.wav) for _, other in [*batch, (i, clip)])
        if batch and longest * (len(batch) + 1) > limit:
            flush()
        batch.append((i, clip))
    if batch:
        flush()
    return encoded


def _encode_batch(wavs, tokenizer):
    # Padded by NumPy: torch would start threads for it, which then spin
    # against those that read (10 ms a batch where 1 ms does).
    lengths = torch.tensor([len(wav) for wav in wavs])
    padded = np.zeros((len(wavs), int(lengths.max())), dtype=np.float32)
    for row, wav in zip(padded, wavs, strict=True):
        row[: len(wav)] = wav
    return tokenizer.encode(torch.from_numpy(padded), lengths)


def _write_shard(path, encoded):
    sha256, units, reasons, notes = zip(*encoded, strict=True)
    arrays = [np.asarray(array).astype(np.uint16) for array in units]
    batch = pa.record_batch(
        [list(sha256), arrays, list(reasons), list(notes)], schema=SCHEMA
    )
    write_file(path, batch)


def read_utterances(folder):
    """Read the units of all audio files.

    Arguments
    ---------
    folder : str or Path
        What :func:`extract_utterances` filled.

    Returns
    -------
    pyarrow.Table
        ``sha256, units, reason, note``, in the order of their SHA-256.

    Raises
    ------
    ValueError
        If a file is damaged.
    """
    paths = sorted(Path(folder).glob(SHARDS))
    tables = [map_file(path, SCHEMA) for path in paths]
    return pa.concat_tables(tables).combine_chunks()


def forget_rejects(folder):
    """Remove the shards with bad audio, so that a rerun reads them again.

    Arguments
    ---------
    folder : str or Path
        What :func:`extract_utterances` filled.
    """
    for path in sorted(Path(folder).glob(SHARDS)):
        if any(map_file(path, SCHEMA)["reason"].to_pylist()):
            path.unlink()
