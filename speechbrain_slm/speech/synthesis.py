"""From stories to speech: audio files and the manifests that list them.

Every story, or each of its sentences, is told by one speaker in all its
languages. A sentence that several stories share is spoken once a voice; its
file is named by the hash of all that makes its samples, so a second run, or
another corpus in the same folder, speaks only what is not there yet. The
stories are taken a shard at a time: by the ranks of ``torchrun``, by array
jobs, or one after the other.
"""

import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from speechbrain_slm.speech.audio_files import check_kind
from speechbrain_slm.speech.merging import merge_parts
from speechbrain_slm.speech.planning import Planner
from speechbrain_slm.speech.shard_speech import (
    changed,
    is_complete,
    part_path,
    speak_shard,
)
from speechbrain_slm.speech.story_shards import list_shards, refuse_missing
from speechbrain_slm.speech.utterances import (
    Limits,
    Shape,
)
from speechbrain_slm.utils.hashing import file_stamp, sha256_file
from speechbrain_slm.utils.jobs import Share, deal, lock_folder, run
from speechbrain_slm.utils.ownership import refuse_foreign, withdraw
from speechbrain_slm.utils.speakers import check_speaker_per, check_voices
from speechbrain_slm.utils.story_tables import MARK

logger = logging.getLogger(__name__)
LIMITS = Limits(shortest=0.02, longest=0.3, spare=1.0, clipped=0.001)


def name_tables(paths: list[str | Path]) -> dict:
    """Name splits as their files.

    Returns
    -------
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


def plan_of_speech(
    text: dict | None,
    tables: dict,
    tts,
    speakers: dict,
    languages: list[str],
    seed: int,
    trim,
    limits: Limits,
    audio_format: str,
    loudness: float | None,
    speaker_per: str,
    stories_per_shard: int,
) -> dict:
    """Say all that decides what a data folder holds; JSON can hold it.

    Arguments
    ---------
    text : What makes the stories tables; None where they are there already.
    tables : The stories tables: split -> path. Others: see :func:`synthesize`.

    Returns
    -------
    See :meth:`speechbrain_slm.utils.jobs.Claim.pin`.
    """
    if text is None:
        for path in tables.values():
            refuse_missing(path)
        text = {split: sha256_file(path) for split, path in tables.items()}
    speech = {
        "tts": tts.identity,
        "languages": list(languages),
        "speakers": {
            name: {key: asdict(voice) for key, voice in own.items()}
            for name, own in speakers.items()
        },
        "seed": seed,
        "trim": trim and asdict(trim),
        "limits": limits and asdict(limits),
        "audio_format": audio_format,
        "loudness": loudness,
        "speaker_per": speaker_per,
        "stories_per_shard": stories_per_shard,
    }
    return {"text": text, "speech": speech}


def synthesize(
    stories: dict,
    output_folder: str | Path,
    tts,
    speakers: dict,
    languages: list[str],
    seed: int,
    trim,
    num_workers: int,
    limits: Limits = LIMITS,
    max_left_out: float = 0.0,
    audio_format: str = "flac",
    loudness: float | None = None,
    speaker_per: str = "story",
    stories_per_shard: int = 20000,
    job: int | None = None,
    num_jobs: int = 1,
) -> dict:
    """Speak stories and write their manifests.

    Arguments
    ---------
    stories
        Stories tables: split -> path. A ``speaker`` column, where there is
        one, says who speaks; else it is drawn.
    output_folder
        Gets ``<split>.parquet``, ``audio/``, ``left_out.jsonl`` and, for
        resuming, ``parts/``. Cloze items that lose a story are taken out of
        its ``items.parquet``.
    tts : TextToSpeech
        The back-end.
    speakers : name -> {language: Voice}.
    languages : The text columns to speak.
    seed : For drawing speakers, see :func:`draw_speaker`.
    trim : Trim
        How silence is cut at both ends.
    num_workers : How many processes speak, for each rank.
    limits : What passes for the speech of a text.
    max_left_out
        Share of the utterances that may fail, and of each split's rows that
        may be left out for it.
    audio_format : ``flac``, ``wav`` or ``opus``.
    loudness : LUFS (EBU R128) that each utterance gets; by default its own.
    speaker_per
        ``story``: a speaker tells a whole story. ``sentence``: each sentence
        has a speaker of its own, the same in all languages.
    stories_per_shard
        Stories that are in memory at once, and that a rank or a job takes.
    job
        Speak the share of this array job alone, 0 to ``num_jobs - 1``, and
        write no manifest.
    num_jobs : Number of array jobs, which may run at the same time.

    Returns
    -------
    How many utterances this rank has ``spoken``, ``found`` from an
    earlier run, found ``damaged`` and spoken again, or seen ``failed``;
    one that several shards share counts in each. Shards that an earlier
    run finished are not looked into.

    Raises
    ------
    ValueError
        If a table lacks a language or a text, a speaker lacks a voice, or a
        table is changed while it is spoken.
    FileExistsError
        If a manifest is in the way that another recipe made.
    TooManyLeftOut
        If more fails than ``max_left_out``. Names the first and the ledger.
    FolderInUse
        If another process is speaking the same shard.
    RuntimeError
        If a file cannot be written, or a back-end breaks down. Names the
        text, the voice and the file; no manifest is written then.
    """
    output_folder, share = Path(output_folder), Share(job, num_jobs)
    _check_numbers(max_left_out, stories_per_shard, num_workers)
    check_speaker_per(speaker_per)
    check_voices(tts, speakers, languages)
    check_kind(audio_format, tts.sample_rate)
    shape = Shape(trim, limits, audio_format, loudness)
    manifests = [output_folder / f"{split}.parquet" for split in stories]
    refuse_foreign(manifests, MARK)

    def list_all():
        return [
            shard
            for split, path in stories.items()
            for shard in list_shards(
                split, path, languages, speakers, stories_per_shard, speaker_per
            )
        ]

    stamps = [file_stamp(path) for path in stories.values()]
    shards = list_all()
    planner = Planner(tts, speakers, languages, seed, shape, speaker_per)
    # Dealt out before anybody looks: what a shard is takes reading it.
    identities = {
        shard: planner.identity(planner.read(shard))
        for shard in deal(share.of(shards))
    }
    mine = [
        shard
        for shard, identity in identities.items()
        if not is_complete(
            part_path(output_folder, shard), identity, output_folder
        )
    ]
    counts = Counter(spoken=0, found=0, damaged=0, failed=0)
    # The next stage must not take an older manifest for this run's.
    stale = {output_folder / f"{shard.split}.parquet" for shard in mine}
    withdraw(sorted(stale), MARK)

    def speak(shard):
        with lock_folder(part_path(output_folder, shard).parent):
            counts.update(
                speak_shard(
                    shard,
                    identities[shard],
                    planner,
                    output_folder,
                    num_workers,
                    max_left_out,
                )
            )

    run(mine, speak, "shards to speak")
    if share.merges:
        if [file_stamp(path) for path in stories.values()] != stamps:
            # Written anew; with the same content, that is no matter.
            if list_all() != shards:
                raise changed(", ".join(map(str, stories.values())))
            identities = {}
        everything = {
            shard: identities.get(shard)
            or planner.identity(planner.read(shard))
            for shard in shards
        }
        merge_parts(everything, output_folder, max_left_out)
    return {
        state: counts[state]
        for state in ("spoken", "found", "damaged", "failed")
    }


def _check_numbers(max_left_out, stories_per_shard, num_workers):
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
