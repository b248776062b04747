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
from pathlib import Path

from speechbrain_slm.speech.merging import merge_parts
from speechbrain_slm.speech.planning import read_planned
from speechbrain_slm.speech.shard_speech import (
    is_complete,
    part_path,
    speak_shard,
)
from speechbrain_slm.speech.story_shards import (
    STORIES_TABLE,
    Shard,
    changed,
    list_shards,
)
from speechbrain_slm.speech.utterances import Speech
from speechbrain_slm.utils.files import check_file
from speechbrain_slm.utils.hashing import file_stamp, sha256_file
from speechbrain_slm.utils.jobs import Share, deal, lock_folder, run
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.ownership import refuse_foreign, withdraw
from speechbrain_slm.utils.tables import MARK

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


def plan_of_speech(text: dict | None, tables: Tables, speech: Speech) -> dict:
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
    shards = {"stories_per_shard": speech.stories_per_shard}
    return {"text": text, "speech": speech.settings() | shards}


def synthesize(
    stories: Tables,
    output_folder: str | Path,
    speech: Speech,
    num_workers: int,
    max_left_out: float = 0.0,
    job: int | None = None,
    num_jobs: int = 1,
) -> dict[str, int]:
    """Speak stories, write ``<split>.parquet``; count utterances by state.

    Items that lose a story go. A column ``speaker`` says who speaks.

    Arguments
    ---------
    num_workers : Processes of each rank.
    max_left_out : Share of the utterances, and of a split's rows, that may go.
    job : Speak the share of this array job alone, and write no manifest.
    """
    folder, share = Path(output_folder), Share(job, num_jobs)
    check_number("max_left_out", max_left_out, at_least=0, below=1)
    check_number("num_workers", num_workers, at_least=1)
    refuse_foreign([folder / f"{split}.parquet" for split in stories], MARK)

    def cut() -> list[Shard]:
        each = (list_shards(*one, speech) for one in stories.items())
        return list(itertools.chain(*each))

    def identity_of(shard: Shard) -> str:
        return read_planned(shard, speech)[1]

    stamps, shards = [*map(file_stamp, stories.values())], cut()
    # Dealt out before anybody looks: what a shard is takes reading it.
    known = {one: identity_of(one) for one in deal(share.of(shards))}
    counts = Counter(spoken=0, found=0, damaged=0, failed=0)
    paths = {one: part_path(folder, one) for one in shards}
    mine = [k for k, v in known.items() if not is_complete(paths[k], v, folder)]
    # The next stage must not take an older manifest for this run's.
    withdraw(sorted({folder / f"{one.split}.parquet" for one in mine}), MARK)

    def speak(shard: Shard) -> None:
        with lock_folder(paths[shard].parent):
            what = shard, known[shard], speech, folder
            counts.update(speak_shard(*what, num_workers, max_left_out))

    run(mine, speak, "shards to speak")
    if share.merges:
        if [*map(file_stamp, stories.values())] != stamps:
            # Written anew; with the same content, that is no matter.
            if cut() != shards:
                raise changed(", ".join(map(str, stories.values())))
            known = {}
        names = {one: known.get(one) or identity_of(one) for one in shards}
        merge_parts(names, folder, max_left_out)
    return dict(counts)
