"""From audio files to units: every distinct file is read and encoded once.

Stories share utterances, so what is encoded is the list of distinct audio
files of all splits. Their units are published in shards, each whole or not at
all, and found by the audio's SHA-256: whoever runs next, with any number of
ranks or array jobs and shards of any size, encodes what is missing.
"""

import contextlib
import itertools
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from speechbrain_slm.units import manifest
from speechbrain_slm.units import utterances as published
from speechbrain_slm.units.audio import pad, read_batches
from speechbrain_slm.units.reading import (
    prepare_processes,
    read_by_processes,
)
from speechbrain_slm.units.rows import KEY_COLUMNS, Rows
from speechbrain_slm.units.tokenizers.base import Tokenizer, describe
from speechbrain_slm.units.tokenizers.batches import InBatches, encode_batches
from speechbrain_slm.utils.audio import MAX_SECONDS
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.jobs import Progress, Share, claim, deal, together
from speechbrain_slm.utils.scratch import blocks, fill, positions, scratch
from speechbrain_slm.utils.store import check_units

logger = logging.getLogger(__name__)
_NOTHING = np.zeros(0, dtype=np.uint16)


def extract_utterances(
    tables: Iterable[pa.Table],
    tokenizer: Tokenizer,
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
    folder : Gets ``plan.json`` and ``utterances-*.arrow``.
    utterances_per_shard : What a kill can lose of each rank's work.
    batch_seconds : Speech that the tokenizer gets at once, with padding.
    num_workers
        Threads that read audio. Where a GPU encodes, processes: a script then
        calls this behind ``if __name__ == "__main__":``.
    job, num_jobs : See :class:`speechbrain_slm.utils.jobs.Share`.
    max_seconds : A longer audio file is bad.

    FileNotFoundError if audio that is still to be read does not exist: nothing
    is encoded then. ValueError if another tokenizer began the folder.
    """
    share = Share(job, num_jobs)
    device = torch.device(getattr(tokenizer, "device", "cpu"))
    if on_gpu := device.type == "cuda":
        prepare_processes()
    with claim(folder, share) as place:
        made = f"**/{published.FILES}"
        pinned: dict[str, Any] = {"tokenizer": describe(tokenizer)}
        if version := getattr(tokenizer, "arithmetic", None):
            pinned["arithmetic"] = version
        place.pin(pinned, made)
        # Of all splits: they share audio, which is encoded once.
        columns = [*KEY_COLUMNS, "audio"]
        table = pa.concat_tables(one.select(columns) for one in tables)
        if is_main():
            published.remove_damaged(folder)
            _log_rates(table, tokenizer)
        if share.merges:
            _forget_rejects(table, folder)
        barrier()
        rows, seconds = _missing(table, folder, share)
        manifest.refuse_missing_audio(table, rows)
        with together():
            taker, size = Rows(table), utterances_per_shard
            # Taken one by one: all rows at once would be Python objects.
            shards = (
                taker.take(rows[begin : begin + size]).to_pylist()
                for begin in range(0, len(rows), size)
            )
            batches = _batches(shards, batch_seconds, tokenizer.equal_lengths)
            how = (tokenizer.sample_rate, num_workers, max_seconds)
            read: Any  # generators, which can be closed
            if on_gpu:
                read = read_by_processes(batches, *how, pinned=True)
            else:
                read = read_batches(batches, *how, finish=_collate)
            progress = Progress(seconds, "h of speech", per=3600)
            # Whoever keeps an error, as a notebook does, keeps no reader.
            with contextlib.closing(read):
                encoded = _encode(read, tokenizer, progress)
                _publish(encoded, place.own, size)


def _forget_rejects(table: pa.Table, folder: str | Path) -> None:
    """Have bad audio read again: it may be mended, or ``max_seconds`` raised.

    Where it is gone, what was found of it stays: complete work needs no audio.
    """
    utterances = published.Utterances(folder)
    bad = utterances.has_text("reason")
    if not bad.any():
        return
    records = manifest.distinct_utterances(table)
    rows, paths = Rows(table), []
    for part in blocks(len(records)):
        found = utterances.index.find(records["key"][part])
        here = (found >= 0) & bad[np.maximum(found, 0)]
        paths += rows.take(records["row"][part][here])["audio"].to_pylist()
    if paths and all(map(os.path.exists, paths)):
        published.forget_rejects(folder)


def _missing(
    table: pa.Table, folder: str | Path, share: Share
) -> tuple[np.ndarray, float]:
    """List the rows that this rank has to encode, and their seconds in all."""
    records: Any = manifest.distinct_utterances(table)
    records = share.of(records)
    find = published.Utterances(folder).index.find
    missing = fill(len(records), bool, lambda p: find(records["key"][p]) < 0)
    places = positions(missing)
    names = ("brevity", "place", "row")
    found: Any = scratch(len(places), [(name, ">u4") for name in names])
    for part in blocks(len(places)):
        found["row"][part] = records["row"][places[part]]
        found["place"][part] = np.arange(part.start, part.stop)
    seconds = manifest.seconds_of(table, found["row"])
    for part in blocks(len(found)):
        # The bits of positive numbers are in the order of the numbers.
        bits = seconds[part].astype(np.float32).view(np.uint32)
        found["brevity"][part] = ~bits
    # Those of a length stand together, so that batches need little padding,
    # and dealt out they give every rank as much. The longest come first:
    # memory that does not do is found out at once.
    found.view("S12").sort()
    mine: Any = deal(found)
    mined = (seconds[mine["place"][part]] for part in blocks(len(mine)))
    return mine["row"], sum(float(here.sum()) for here in mined)


def _log_rates(table: pa.Table, tokenizer: Tokenizer) -> None:
    rates = set(pc.unique(table["sample_rate"]).to_pylist())
    if others := sorted(rates - {tokenizer.sample_rate}):
        text = "Speech of %s Hz is resampled to the tokenizer's %d Hz"
        logger.info(text, ", ".join(map(str, others)), tokenizer.sample_rate)


def _length(row):
    return row["num_samples"], row["sample_rate"]


def _batches(shards, batch_seconds, equal):
    """Cut utterances into batches, of which each is of one shard."""
    for shard in shards:
        batch = []
        for row in shard:
            # The first of a batch is its longest.
            samples, rate = _length(batch[0] if batch else row)
            # 4 s before 7 others of up to 4 s are 32 s, padding included.
            full = samples / rate * (len(batch) + 1) > batch_seconds
            other = equal and _length(row) != (samples, rate)
            if batch and (full or other):
                yield batch
                batch = []
            batch.append(row)
        yield batch


def _collate(clips):
    """Return the clips, and waveforms and lengths of those that are good."""
    wavs = [clip.wav for clip in clips if clip.wav is not None]
    # Whoever waits for units need not keep the sound: whether it is there.
    there = torch.zeros(0)
    clips = [
        clip if clip.wav is None else clip._replace(wav=there) for clip in clips
    ]
    return clips, *pad(wavs)


def _good(batch, clips):
    rows = zip(batch, clips, strict=True)
    return [row for row, clip in rows if clip.wav is not None]


def _encode(
    read: Iterable, tokenizer: Tokenizer, progress: Progress
) -> Iterator[list[dict[str, Any]]]:
    """Yield batches with units, reason and note of each audio file."""
    waiting: deque = deque()  # for their units, which come later

    def given():
        told = False
        for batch, (clips, wavs, lengths) in read:
            waiting.append((batch, clips))
            languages = [row["language"] for row in _good(batch, clips)]
            if languages and not told:
                _tell_precision(tokenizer, wavs, lengths, languages)
                told = True
            yield wavs, lengths, languages

    try:
        for encoded in encode_batches(tokenizer, given()):
            batch, clips = waiting.popleft()
            yield _rows(batch, clips, encoded, tokenizer)
            lengths = map(_length, batch)
            seconds = sum(samples / rate for samples, rate in lengths)
            progress.add(seconds, lambda: f"{progress.speed:.0f} x real time")
    except (MemoryError, RuntimeError) as error:
        # What was taken last is being computed.
        good = (_good(*one) for one in reversed(waiting))
        if not (rows := next(filter(None, good), None)):
            raise
        raise RuntimeError(
            f"{rows[0]['audio']} and {len(rows) - 1} shorter file(s) cannot "
            f"be encoded at once: {error}. If for want of memory, set "
            "batch_seconds or max_seconds lower."
        ) from error


def _tell_precision(tokenizer, wavs, lengths, languages):
    """Log what a lower precision does to the units of the first batch."""
    if isinstance(tokenizer, InBatches) and tokenizer.precision != "fp32":
        share = tokenizer.share_changed(wavs, lengths, languages)
        text = "In %s, %.2f %% of the first batch's units differ from fp32"
        logger.info(text, tokenizer.precision, 100 * share)


def _rows(batch, clips, encoded, tokenizer):
    rows, units = [], iter(encoded)
    for row, clip in zip(batch, clips, strict=True):
        found, reason = _NOTHING, clip.reason
        if clip.wav is not None:
            found = next(units)
        if found is None:
            found, reason = _NOTHING, "its features are not all finite numbers"
        elif len(found):
            where = f"{row['audio']}, as encoded"
            check_units(found, tokenizer.vocabulary_size, where)
        elif not reason:
            reason = "too short to give a unit"
        told = {"reason": reason, "note": clip.note}
        rows.append({**row, "units": np.asarray(found, np.uint16), **told})
    return rows


def _publish(
    encoded: Iterable[list[dict[str, Any]]], folder: Path, per_shard: int
) -> None:
    rows: list = []
    # Nothing says the end: what is left is a shard, too.
    for batch in itertools.chain(encoded, [[]]):
        rows += batch
        # Batches end with their shard, so that it is met exactly.
        if rows and (len(rows) == per_shard or not batch):
            shard = pa.RecordBatch.from_pylist(rows, schema=published.SCHEMA)
            published.write_utterances(folder, shard)
            rows = []
