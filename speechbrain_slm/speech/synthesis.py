"""From stories to speech: audio files and the manifests that list them.

Every story, or each of its sentences, is told by one speaker in all its
languages. A sentence that several stories share is spoken once a voice; its
file is named by the hash of all that makes its samples, so a second run, or
another corpus in the same folder, speaks only what is not there yet. The
stories are taken a shard at a time: by the ranks of ``torchrun``, by array
jobs, or one after the other.
"""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speechbrain_slm.speech.audio_files import Trim, check_kind
from speechbrain_slm.speech.merging import merge_parts
from speechbrain_slm.speech.planning import Planner
from speechbrain_slm.speech.shard_speech import (
    changed,
    is_complete,
    part_path,
    speak_shard,
)
from speechbrain_slm.speech.story_shards import (
    STORIES_TABLE,
    Shard,
    list_shards,
)
from speechbrain_slm.speech.tts import TextToSpeech, Voice
from speechbrain_slm.speech.utterances import Limits, Shape
from speechbrain_slm.utils.files import check_file
from speechbrain_slm.utils.hashing import file_stamp, sha256_file
from speechbrain_slm.utils.jobs import Share, deal, lock_folder, run
from speechbrain_slm.utils.numbers import check_choice, check_number
from speechbrain_slm.utils.ownership import refuse_foreign, withdraw
from speechbrain_slm.utils.speakers import SPEAKER_PER, check_voices
from speechbrain_slm.utils.tables import MARK

LIMITS = Limits(shortest=0.02, longest=0.3, spare=1.0, clipped=0.001)
Speakers = Mapping[str, Mapping[str, Voice]]  # name -> language -> Voice
Tables = Mapping[str, str | Path]  # split -> stories table


def name_tables(paths: list[str | Path]) -> dict[str, str | Path]:
    """Name splits as their files; ValueError if two have the same name.

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
    tables: Tables,
    tts: TextToSpeech,
    speakers: Speakers,
    languages: list[str],
    seed: int,
    trim: Trim,
    limits: Limits,
    audio_format: str,
    loudness: float | None,
    speaker_per: str,
    stories_per_shard: int,
) -> dict:
    """Say all that the manifests depend on, for ``Claim.pin``.

    Arguments
    ---------
    text : What makes the stories tables; None where they are there already.
    """
    if text is None:
        text = {
            split: sha256_file(check_file(path, STORIES_TABLE))
            for split, path in tables.items()
        }
    speech = {
        "tts": tts.identity,
        "languages": list(languages),
        "speakers": {
            name: {key: asdict(voice) for key, voice in own.items()}
            for name, own in speakers.items()
        },
        "seed": seed,
        "trim": asdict(trim),
        "limits": asdict(limits),
        "audio_format": audio_format,
        "loudness": loudness,
        "speaker_per": speaker_per,
        "stories_per_shard": stories_per_shard,
    }
    return {"text": text, "speech": speech}


def synthesize(
    stories: Tables,
    output_folder: str | Path,
    tts: TextToSpeech,
    speakers: Speakers,
    languages: list[str],
    seed: int,
    trim: Trim,
    num_workers: int,
    limits: Limits = LIMITS,
    max_left_out: float = 0.0,
    audio_format: str = "flac",
    loudness: float | None = None,
    speaker_per: str = "story",
    stories_per_shard: int = 20000,
    job: int | None = None,
    num_jobs: int = 1,
) -> dict[str, int]:
    """Speak stories, write ``<split>.parquet``; count utterances by state.

    Items that lose a story go. A column ``speaker`` says who speaks.

    Arguments
    ---------
    num_workers : Processes of each rank.
    max_left_out : Share of the utterances, and of a split's rows, that may go.
    loudness : LUFS (EBU R128) that each utterance gets; by default its own.
    speaker_per : Who has a speaker: a ``story``, or each ``sentence`` of it.
    stories_per_shard : Held at once, and what a rank or a job takes.
    job : Speak the share of this array job alone, and write no manifest.
    """
    folder, share = Path(output_folder), Share(job, num_jobs)
    check_number("max_left_out", max_left_out, at_least=0, below=1)
    check_number("stories_per_shard", stories_per_shard, at_least=1)
    check_number("num_workers", num_workers, at_least=1)
    check_choice("speaker_per", speaker_per, SPEAKER_PER)
    check_voices(tts, speakers, languages)
    check_kind(audio_format, tts.sample_rate)
    refuse_foreign([folder / f"{split}.parquet" for split in stories], MARK)
    shape = Shape(trim, limits, audio_format, loudness)
    planner = Planner(tts, speakers, languages, seed, shape, speaker_per)
    how = languages, speakers, stories_per_shard, speaker_per

    def cut() -> list[Shard]:
        each = [list_shards(k, path, *how) for k, path in stories.items()]
        return list(itertools.chain(*each))

    stamps, shards = [*map(file_stamp, stories.values())], cut()
    # Dealt out before anybody looks: what a shard is takes reading it.
    known = {one: planner.read(one)[1] for one in deal(share.of(shards))}
    counts = _speak(known, planner, folder, num_workers, max_left_out)
    if share.merges:
        if [*map(file_stamp, stories.values())] != stamps:
            # Written anew; with the same content, that is no matter.
            if cut() != shards:
                raise changed(", ".join(map(str, stories.values())))
            known = {}
        names = {one: known.get(one) or planner.read(one)[1] for one in shards}
        merge_parts(names, folder, max_left_out)
    return counts


def _speak(
    identities: dict[Shard, str], planner: Planner, folder: Path, *options: Any
) -> dict[str, int]:
    """Speak what is missing of this rank's shards."""
    mine = [
        shard
        for shard, identity in identities.items()
        if not is_complete(part_path(folder, shard), identity, folder)
    ]
    # The next stage must not take an older manifest for this run's.
    withdraw(sorted({folder / f"{one.split}.parquet" for one in mine}), MARK)
    counts = Counter(spoken=0, found=0, damaged=0, failed=0)

    def speak(shard: Shard) -> None:
        with lock_folder(part_path(folder, shard).parent):
            what = shard, identities[shard], planner, folder
            counts.update(speak_shard(*what, *options))

    run(mine, speak, "shards to speak")
    return dict(counts)
