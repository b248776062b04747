"""From stories to speech: audio files and the manifests that list them.

Every story, or each of its sentences, is told by one speaker in all its
languages. A sentence that several stories share is spoken once a voice; its
file is named by the hash of all that makes its samples, so a second run, or
another corpus in the same folder, speaks only what is not there yet. The
stories are taken a shard at a time: by the ranks of ``torchrun``, by array
jobs, or one after the other.
"""

import logging
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa

from speechbrain_slm.corpus.audio_files import check_kind
from speechbrain_slm.corpus.left_out import leave_out
from speechbrain_slm.corpus.merging import TooManyLeftOut, merge_parts
from speechbrain_slm.corpus.parts import is_complete, part_path, write_part
from speechbrain_slm.corpus.planning import Planner
from speechbrain_slm.corpus.speakers import check_speaker_per, check_voices
from speechbrain_slm.corpus.story_shards import list_shards
from speechbrain_slm.corpus.utterances import (
    Limits,
    Shape,
    speak_chunk,
)
from speechbrain_slm.corpus.workers import run_in_workers
from speechbrain_slm.utils.distributed import (
    barrier,
    is_main,
    rank,
    world_size,
)
from speechbrain_slm.utils.locking import lock_folder

logger = logging.getLogger(__name__)
LIMITS = Limits(shortest=0.02, longest=0.3, spare=1.0, clipped=0.001)
_CHUNK = 16  # utterances
_LOG_INTERVAL = 5.0  # seconds


def name_tables(paths):
    """Name splits as their files.

    Arguments
    ---------
    paths : list of str or Path
        Stories tables.

    Returns
    -------
    dict
        split -> path.

    Raises
    ------
    ValueError
        If two have the same name.

    Example
    -------
    >>> name_tables(["text/train.parquet"])
    {'train': 'text/train.parquet'}
    """
    named = {Path(path).stem: path for path in paths}
    if len(named) < len(paths):
        raise ValueError(
            f"stories: of {', '.join(map(str, paths))}, two have the same "
            "file name; expected one a split"
        )
    return named


def synthesize(
    stories,
    output_folder,
    tts,
    speakers,
    languages,
    seed,
    trim,
    num_workers,
    limits=LIMITS,
    max_left_out=0.0,
    audio_format="flac",
    loudness=None,
    speaker_per="story",
    stories_per_shard=20000,
    job=None,
    num_jobs=1,
):
    """Speak stories and write their manifests.

    Arguments
    ---------
    stories : dict
        Stories tables: split -> path. A ``speaker`` column, where there is
        one, says who speaks; else it is drawn.
    output_folder : str or Path
        Gets ``<split>.parquet``, ``audio/``, ``left_out.jsonl`` and, for
        resuming, ``parts/``. Cloze items that lose a story are taken out of
        its ``items.parquet``.
    tts : TextToSpeech
        The back-end.
    speakers : dict
        name -> {language: Voice}.
    languages : list of str
        The text columns to speak.
    seed : int
        For drawing speakers, see :func:`draw_speaker`.
    trim : Trim
        How silence is cut at both ends.
    num_workers : int
        How many processes speak, for each rank.
    limits : Limits
        What passes for the speech of a text.
    max_left_out : float
        Share of the utterances that may fail and be left out.
    audio_format : str
        ``flac``, ``wav`` or ``opus``.
    loudness : float, optional
        LUFS (EBU R128) that each utterance gets; by default its own.
    speaker_per : str
        ``story``: a speaker tells a whole story. ``sentence``: each sentence
        has a speaker of its own, the same in all languages.
    stories_per_shard : int
        Stories that are in memory at once, and that a rank or a job takes.
    job : int, optional
        Speak the share of this array job alone, 0 to ``num_jobs - 1``, and
        write no manifest.
    num_jobs : int
        Number of array jobs, which may run at the same time.

    Returns
    -------
    dict
        How many utterances this rank has ``spoken``, ``found`` from an
        earlier run, found ``damaged`` and spoken again, or seen ``failed``;
        one that several shards share counts in each. Shards that an earlier
        run finished are not looked into.

    Raises
    ------
    ValueError
        If a table lacks a language or a text, or a speaker lacks a voice.
    TooManyLeftOut
        If more fails than ``max_left_out``. Names the first and the ledger.
    FolderInUse
        If another process is speaking the same shard.
    RuntimeError
        If a file cannot be written, or a back-end breaks down. Names the
        text, the voice and the file; no manifest is written then.
    """
    output_folder = Path(output_folder)
    _check_numbers(max_left_out, stories_per_shard, num_workers, job, num_jobs)
    check_speaker_per(speaker_per)
    check_voices(tts, speakers, languages)
    check_kind(audio_format, tts.sample_rate)
    shape = Shape(trim, limits, audio_format, loudness)
    shards = [
        shard
        for split, path in stories.items()
        for shard in list_shards(
            split, path, languages, speakers, stories_per_shard, speaker_per
        )
    ]
    planner = Planner(tts, speakers, languages, seed, shape, speaker_per)
    share = shards[slice(job, None, num_jobs if job is not None else 1)]
    mine = [
        (shard, identity)
        for shard in share[rank() :: world_size()]
        if not is_complete(
            part_path(output_folder, shard),
            identity := planner.identity(shard),
            output_folder,
        )
    ]
    counts = Counter(spoken=0, found=0, damaged=0, failed=0)
    logger.info("%d of %d shards are to be spoken", len(mine), len(share))
    # The next stage must not take an older manifest for this run's.
    for shard, _ in mine:
        (output_folder / f"{shard.split}.parquet").unlink(missing_ok=True)
    for number, (shard, identity) in enumerate(mine):
        logger.info(
            "Shard %d of the %d to speak: stories of %s, rows %d to %d",
            number + 1,
            len(mine),
            shard.split,
            shard.start,
            shard.stop,
        )
        with lock_folder(part_path(output_folder, shard).parent):
            counts += _speak_shard(
                shard,
                identity,
                planner,
                output_folder,
                num_workers,
                max_left_out,
            )
    barrier()
    if job is None and is_main():
        merge_parts(shards, output_folder, max_left_out)
    return {
        state: counts[state]
        for state in ("spoken", "found", "damaged", "failed")
    }


def _check_numbers(max_left_out, stories_per_shard, num_workers, job, num_jobs):
    if not 0 <= max_left_out < 1:
        raise ValueError(
            f"max_left_out is {max_left_out}; expected 0 or more and below 1"
        )
    for name, value in (
        ("stories_per_shard", stories_per_shard),
        ("num_workers", num_workers),
    ):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected 1 or more")
    if not (job is None or 0 <= job < num_jobs):
        raise ValueError(f"job is {job}; expected 0 to {num_jobs - 1}, or null")


def _speak_shard(
    shard, identity, planner, output_folder, num_workers, max_left_out
):
    rows, utterances = planner.rows(shard)
    facts, counts = _speak_all(
        utterances, output_folder, planner, num_workers, max_left_out
    )
    failures = {
        name: fact.failure for name, fact in facts.items() if fact.failure
    }
    rows, ledger = leave_out(rows, failures)
    audio = rows["audio"].combine_chunks().dictionary_encode()
    found = [facts[name] for name in audio.dictionary.to_pylist()]
    for column, kind in (
        ("num_samples", pa.int64()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
    ):
        values = pa.array([getattr(fact, column) for fact in found], kind)
        rows = rows.append_column(column, values.take(audio.indices))
    rate = pa.scalar(planner.tts.sample_rate, pa.int32())
    rows = rows.append_column("sample_rate", pa.repeat(rate, len(rows)))
    write_part(
        part_path(output_folder, shard),
        rows,
        {
            "identity": identity,
            "utterances": len(utterances),
            "failed": len(failures),
            "ledger": [{"split": shard.split, **entry} for entry in ledger],
        },
    )
    return counts


def _speak_all(utterances, output_folder, planner, num_workers, max_left_out):
    chunks = (
        utterances[start : start + _CHUNK]
        for start in range(0, len(utterances), _CHUNK)
    )
    context = (planner.tts, planner.shape, output_folder)
    texts = {one.audio: one for one in utterances}
    facts, counts = {}, Counter()
    begin = logged = time.monotonic()
    for results in run_in_workers(speak_chunk, context, chunks, num_workers):
        for fact in results:
            facts[fact.audio] = fact
            counts[fact.state] += 1
            if counts["failed"] > _most(max_left_out, len(utterances)):
                utterance = texts[fact.audio]
                reason, detail = fact.failure
                raise TooManyLeftOut(
                    f"cannot speak {utterance.text!r} with {utterance.voice}: "
                    f"{reason} ({detail}). It is failure {counts['failed']} "
                    f"among {len(utterances)} utterances of a shard, and "
                    f"max_left_out is {max_left_out:.2%}. Mend the texts or "
                    "the voices, or raise max_left_out: what fails is then "
                    "left out in every language and listed in left_out.jsonl."
                )
        now = time.monotonic()
        if now - logged >= _LOG_INTERVAL:
            logged = now
            left = (now - begin) / len(facts) * (len(utterances) - len(facts))
            logger.info(
                "%d of %d utterances, %.0f s left",
                len(facts),
                len(utterances),
                left,
            )
    wall = time.monotonic() - begin
    seconds = sum(fact.num_samples for fact in facts.values())
    seconds /= planner.tts.sample_rate
    logger.info(
        "%d utterances, %.0f s of speech, in %.0f s (%.0f x real time): %s",
        len(facts),
        seconds,
        wall,
        seconds / wall,
        ", ".join(f"{count} {state}" for state, count in counts.items()),
    )
    return facts, counts


def _most(max_left_out, utterances):
    """How many may fail in a shard: a small one may have its bad luck."""
    return max(max_left_out * utterances, 100 if max_left_out else 0)
