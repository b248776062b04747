"""Prompts and endings as one recording each.

A codec whose units depend on what was said before gives an ending other units
after its prompt than alone. For such units the ending is encoded together
with the prompt: the audio is put behind one another, without a pause, as
SlamKit's ``CrossModalMetricDataset`` does.
"""

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

from speechbrain_slm.benchmarks import spoken_items
from speechbrain_slm.utils import tables
from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.hashing import identity_of

logger = logging.getLogger(__name__)
# Part of every audio file's name: raise it when the code below gives others.
AUDIO_VERSION = 1


def join_items(
    manifest: str | Path, items: str | Path, output_folder: str | Path
) -> None:
    """Write each prompt, and each prompt with each of its endings, as a file.

    In the new manifest a prompt keeps its name and language and is one
    sentence; a prompt with an ending is called ``<prompt>@<language of the
    prompt>+<ending>`` and has the language of the *ending*, so that the pair
    (name, language) is its own in every direction. The new items have these
    as ``right`` and ``wrong``, and are the same otherwise.

    Arguments
    ---------
    output_folder : Gets ``speech.parquet``, ``items.parquet`` and ``audio/``.
    """
    folder, manifest = Path(output_folder), Path(manifest)
    table, _ = tables.read_items(items)
    stories = _read_stories(manifest)
    rows, joined = {}, table.to_pylist()
    for item in joined:
        what = f"{items}: item '{item['item_id']}' ({item['benchmark']})"
        if not item["prompt"]:
            raise ValueError(
                f"{what} has no prompt to join; score it with 'endings: apart'"
            )
        key = item["prompt"], item["prompt_language"]
        prompt = _story(stories, key, f"{what}: its prompt", manifest)
        wholes = {key: prompt}
        for side in ("right", "wrong"):
            ending = item[side], item["ending_language"]
            spoken = _story(stories, ending, f"{what}: its {side}", manifest)
            item[side] = f"{key[0]}@{key[1]}+{ending[0]}"
            wholes[item[side], ending[1]] = prompt + spoken
        for whole, spoken in wholes.items():
            # A prompt is said in several directions, and made once.
            if whole not in rows:
                speakers = dict.fromkeys(row["speaker"] for row in spoken)
                named = dict(zip(("story_id", "language"), whole, strict=True))
                named |= {"sentence": 0, "speaker": "+".join(speakers)}
                rows[whole] = named | _join(spoken, folder / "audio")
    speech = pa.Table.from_pylist(list(rows.values()), schema=tables.MANIFEST)
    new_items = pa.Table.from_pylist(joined, schema=table.schema)
    spoken_items.publish_prepared(folder, speech, new_items)
    logger.info(f"{folder}: {len(rows)} prompts and prompts with endings")


def _read_stories(manifest):
    """Return (story, language) -> number -> row, audio as seen from here."""
    table = tables.read_table(manifest, tables.MANIFEST, tables.MANIFEST_KEY)
    stories = {}
    for row in table.select(tables.MANIFEST.names).to_pylist():
        row["audio"] = manifest.parent / row["audio"]
        key = row["story_id"], row["language"]
        stories.setdefault(key, {})[row["sentence"]] = row
    return stories


def _story(stories, key, what, manifest):
    story = f"story '{key[0]}' in '{key[1]}'"
    if key not in stories:
        raise ValueError(
            f"{what}, {story}, is not in {manifest}; give the manifest of "
            "these items"
        )
    rows = [row for _, row in sorted(stories[key].items())]
    if [row["sentence"] for row in rows] != list(range(len(rows))):
        raise ValueError(
            f"{manifest}: {story} has the sentences {sorted(stories[key])}; "
            "expected 0, 1, 2, ... without a gap"
        )
    return rows


def _join(rows, folder):
    """Return the manifest's entry of recordings behind one another."""
    # Read when they are joined: a benchmark's audio does not fit into memory.
    read = spoken_items.open_audio
    sounds = [read(row["audio"], expected=row) for row in rows]
    first = sounds[0]
    if len(rows) == 1:
        return spoken_items.manifest_entry(rows[0]["audio"], first)
    for row, sound in zip(rows, sounds, strict=True):
        for name, unit in (("sample_rate", "Hz"), ("channels", "channel(s)")):
            one, other = getattr(first, name), getattr(sound, name)
            if one != other:
                raise ValueError(
                    f"{row['audio']} has {other} {unit} and "
                    f"{rows[0]['audio']}, {one}; convert them to the same"
                )
    wav, kind = np.concatenate([s.samples for s in sounds]), (".wav", "FLOAT")
    # FLAC has no floating point, and keeps 16 bits as they are: n / 2^15 is
    # exact in float32, so that n comes back.
    if all(sound.subtype == "PCM_16" for sound in sounds):
        wav, kind = (wav * 2**15).astype(np.int16), (".flac", "PCM_16")
    parts = [row["sha256"] for row in rows]
    name = identity_of({"parts": parts, "version": AUDIO_VERSION})[:32]
    path = folder / name[:2] / f"{name}{kind[0]}"
    with atomic_path(path) as temporary:
        soundfile.write(temporary, wav, first.sample_rate, subtype=kind[1])
    return spoken_items.manifest_entry(path)
