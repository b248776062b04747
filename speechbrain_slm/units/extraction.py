"""From audio files to units: every distinct file is read and encoded once.

Stories share utterances, so what is encoded is the list of distinct audio
files of all splits. Their units are published in shards, each whole or not at
all, and found by the audio's SHA-256: whoever runs next, with any number of
ranks or array jobs and shards of any size, encodes what is missing.
"""

import logging
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from speechbrain_slm.units.audio import read_batches
from speechbrain_slm.units.key_index import KEY_COLUMNS, KeyIndex
from speechbrain_slm.units.manifest import (
    distinct_utterances,
    refuse_missing_audio,
    seconds_of,
)
from speechbrain_slm.units.rows import Rows
from speechbrain_slm.units.tokenizers.base import describe
from speechbrain_slm.units.utterances import (
    FILES,
    SCHEMA,
    Utterances,
    forget_rejects,
    remove_damaged,
    write_utterances,
)
from speechbrain_slm.utils.audio import MAX_SECONDS
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.jobs import (
    Progress,
    Share,
    claim,
    deal,
    together,
)
from speechbrain_slm.utils.scratch import blocks, positions, scratch
from speechbrain_slm.utils.store import check_units

logger = logging.getLogger(__name__)

COLUMNS = [*KEY_COLUMNS, "audio"]


def extract_utterances(
    tables: Iterable[pa.Table],
    tokenizer,
    folder: str | Path,
    utterances_per_shard: int = 1000,
    batch_seconds: float = 60,
    num_workers: int = 2,
    job: int | None = None,
    num_jobs: int = 1,
    max_seconds: float = MAX_SECONDS,
) -> None:
    """Encode the distinct audio files of manifests, resuming what is there.

    Arguments
    ---------
    tokenizer : Tokenizer
        Makes the units, on the device where it is.
    folder : Gets ``plan.json`` and ``utterances-*.arrow``.
    utterances_per_shard
        Audio files in a shard; what a kill can lose of each rank's work.
    batch_seconds
        Speech that the tokenizer gets at once, padding included, in seconds.
        Two more such batches are read ahead.
    num_workers : Threads that read audio ahead.
    job : Encode the share of this array job alone, 0 to ``num_jobs - 1``.
    num_jobs : Number of array jobs, which may run at the same time.
    max_seconds : A longer audio file is bad.

    Raises
    ------
    FileNotFoundError
        If an audio file that is still to be read does not exist; nothing is
        encoded then.
    FolderInUse
        If another process writes to the folder, unless both are array jobs.
    ValueError
        If the folder was begun with another tokenizer.
    """
    share = Share(job, num_jobs)
    with claim(folder, share) as place:
        place.pin({"tokenizer": describe(tokenizer)}, f"**/{FILES}")
        table = pa.concat_tables(table.select(COLUMNS) for table in tables)
        if is_main():
            remove_damaged(folder)
        if share.merges:
            _forget_rejects(table, folder)
        barrier()
        rows, seconds = _missing(table, folder, share)
        utterances = Rows(table)
        for part in blocks(len(rows)):
            audio = utterances.take(rows[part])["audio"]
            refuse_missing_audio(audio.to_pylist())
        if is_main():
            _log_rates(table, tokenizer)
        shards = (
            utterances.take(rows[begin : begin + utterances_per_shard])
            for begin in range(0, len(rows), utterances_per_shard)
        )
        with together():
            _encode_shards(
                shards,
                tokenizer,
                place.own,
                batch_seconds,
                num_workers,
                max_seconds,
                Progress(seconds, "h of speech", per=3600),
            )


def _forget_rejects(table, folder):
    """Have bad audio read again: it may be mended, or ``max_seconds`` raised.

    Where it is gone, what was found of it stays: complete work needs no audio.
    """
    utterances = Utterances(folder)
    bad = utterances.has_text("reason")
    if not bad.any():
        return
    records, index = distinct_utterances(table), KeyIndex(utterances.table)
    paths = []
    for part in blocks(len(records)):
        found = index.find(records["key"][part])
        here = (found >= 0) & bad[np.maximum(found, 0)]
        rows = Rows(table).take(records["row"][part][here])
        paths += rows["audio"].to_pylist()
    if paths and all(map(os.path.exists, paths)):
        forget_rejects(folder)


def _missing(table, folder, share):
    """List what this rank has to encode, the longest first."""
    records = share.of(distinct_utterances(table))
    index = KeyIndex(Utterances(folder).table)
    missing = scratch(len(records), bool)
    for part in blocks(len(records)):
        missing[part] = index.find(records["key"][part]) < 0
    places = positions(missing)
    kind = [("brevity", ">u4"), ("place", ">u4"), ("row", ">u4")]
    found = scratch(len(places), kind)
    for part in blocks(len(places)):
        found["row"][part] = records["row"][places[part]]
        found["place"][part] = np.arange(part.start, part.stop)
    seconds = seconds_of(table, found["row"])
    for part in blocks(len(found)):
        # The bits of positive numbers are in the order of the numbers.
        bits = seconds[part].astype(np.float32).view(np.uint32)
        found["brevity"][part] = ~bits
    # Those of a length stand together, so that batches need little padding,
    # and dealt out they give every rank as much. The longest come first:
    # memory that does not do is found out at once.
    found.view("S12").sort()
    mine = deal(found)
    total = sum(
        float(seconds[mine["place"][part]].sum()) for part in blocks(len(mine))
    )
    return mine["row"], total


def _log_rates(table, tokenizer):
    rates = set(pc.unique(table["sample_rate"]).to_pylist())
    others = sorted(rates - {tokenizer.sample_rate})
    if others:
        logger.info(
            "Speech of %s Hz is resampled to the tokenizer's %d Hz",
            ", ".join(map(str, others)),
            tokenizer.sample_rate,
        )


def _batches(shards, tokenizer, batch_seconds):
    """Cut shards into batches; the last of each shard is told."""
    equal = tokenizer.equal_lengths
    for shard in shards:
        batch = []
        for row in shard.to_pylist():
            # The first of a batch is its longest.
            samples, rate = _length(batch[0] if batch else row)
            full = samples / rate * (len(batch) + 1) > batch_seconds
            other = equal and _length(row) != (samples, rate)
            if batch and (full or other):
                yield batch, False
                batch = []
            batch.append(row)
        yield batch, True


def _length(row):
    return row["num_samples"], row["sample_rate"]


def _encode_shards(
    shards,
    tokenizer,
    folder,
    batch_seconds,
    num_workers,
    max_seconds,
    progress,
):
    """Read, encode and publish, all three at the same time."""
    ends = deque()

    def batches():
        for batch, last in _batches(shards, tokenizer, batch_seconds):
            ends.append(last)
            yield batch

    encoded, published = [], []
    with ThreadPoolExecutor(1) as publisher:
        read = read_batches(
            batches(),
            tokenizer.sample_rate,
            num_workers,
            max_seconds=max_seconds,
        )
        for batch, clips in read:
            encoded += _encode_batch(batch, clips, tokenizer)
            progress.add(
                sum(n / rate for n, rate in map(_length, batch)),
                lambda: f"{progress.speed:.0f} x real time",
            )
            if ends.popleft():
                published.append(publisher.submit(_publish, folder, encoded))
                encoded = []
                # One may be on its way; what went wrong is raised here.
                if len(published) > 1:
                    published.pop(0).result()
        for last in published:
            last.result()


def _encode_batch(batch, clips, tokenizer):
    """Return (row, units, reason, note) of each audio file."""
    good = [n for n, clip in enumerate(clips) if not clip.reason]
    units = [np.zeros(0, dtype=np.uint16)] * len(batch)
    if good:
        wavs = [clips[n].wav for n in good]
        languages = [batch[n]["language"] for n in good]
        try:
            encoded = tokenizer.encode(*_padded(wavs), languages)
        except (MemoryError, RuntimeError) as error:
            raise RuntimeError(
                f"{batch[good[0]]['audio']} and {len(good) - 1} shorter "
                f"file(s) cannot be encoded at once: {error}. If it is for "
                "want of memory, set batch_seconds or max_seconds lower."
            ) from error
        for n, found in zip(good, encoded, strict=True):
            units[n] = found if found is None else np.asarray(found)
    rows = []
    for row, clip, found in zip(batch, clips, units, strict=True):
        reason = clip.reason
        if found is None:
            found = np.zeros(0, dtype=np.uint16)
            reason = "its features are not all finite numbers"
        elif len(found):
            where = f"{row['audio']}, as encoded"
            check_units(found, tokenizer.vocabulary_size, where)
        elif not reason:
            reason = "too short to give a unit"
        rows.append((row, found.astype(np.uint16), reason, clip.note))
    return rows


def _padded(wavs):
    # Padded by NumPy: torch would start threads for it, which then spin
    # against those that read (10 ms a batch where 1 ms does).
    lengths = torch.tensor([len(wav) for wav in wavs])
    padded = np.zeros((len(wavs), int(lengths.max())), dtype=np.float32)
    for row, wav in zip(padded, wavs, strict=True):
        row[: len(wav)] = wav
    return torch.from_numpy(padded), lengths


def _publish(folder, encoded):
    rows, units, reasons, notes = zip(*encoded, strict=True)
    columns = {name: [row[name] for row in rows] for name in KEY_COLUMNS}
    bounds = np.cumsum([0, *map(len, units)]).astype(np.int32)
    columns["units"] = pa.ListArray.from_arrays(
        pa.array(bounds), pa.array(np.concatenate(units))
    )
    columns["reason"], columns["note"] = list(reasons), list(notes)
    batch = pa.record_batch(
        [pa.array(columns[field.name], field.type) for field in SCHEMA],
        schema=SCHEMA,
    )
    write_utterances(Path(folder), batch)
