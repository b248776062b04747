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

from speechbrain_slm.benchmarks.spoken_items import (
    manifest_entry,
    open_audio,
    publish_prepared,
)
from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.tables import (
    ITEMS,
    ITEMS_EMPTY,
    ITEMS_KEY,
    MANIFEST,
    MANIFEST_KEY,
    read_table,
)

logger = logging.getLogger(__name__)
# Part of every audio file's name: raise it when the code below gives others.
AUDIO_VERSION = 1


def join_items(
    manifest: str | Path, items: str | Path, output_folder: str | Path
) -> dict[str, int]:
    """Write each prompt, and each prompt with each of its endings, as a file.

    Returns how many audio files were ``written`` and ``found``.

    In the new manifest a prompt keeps its name and language and is one
    sentence; a prompt with an ending is called ``<prompt>@<language of the
    prompt>+<ending>`` and has the language of the *ending*, so that the pair
    (name, language) is its own in every direction. The new items have these
    as ``right`` and ``wrong``, and are the same otherwise.

    Arguments
    ---------
    output_folder
        Gets ``speech.parquet``, ``items.parquet`` and ``audio/``. Audio
        that is there already is not written again.

    """
    output_folder, manifest = Path(output_folder), Path(manifest)
    table = read_table(items, ITEMS, ITEMS_KEY, ITEMS_EMPTY)
    stories = _read_stories(manifest)
    audio = _JoinedAudio(output_folder / "audio")
    rows, joined = {}, []
    for item in table.to_pylist():
        what = f"{items}: item '{item['item_id']}' ({item['benchmark']})"
        if not item["prompt"]:
            raise ValueError(
                f"{what} has no prompt to join; score it with 'endings: apart'"
            )
        # A prompt is said in several directions, and made once.
        key = item["prompt"], item["prompt_language"]
        prompt = _story(stories, key, f"{what}: its prompt", manifest)
        wholes = {key: prompt}
        for side in ("right", "wrong"):
            ending = item[side], item["ending_language"]
            spoken = _story(stories, ending, f"{what}: its {side}", manifest)
            item[side] = f"{key[0]}@{key[1]}+{ending[0]}"
            wholes[item[side], ending[1]] = prompt + spoken
        for whole, spoken in wholes.items():
            if whole not in rows:
                speakers = dict.fromkeys(row["speaker"] for row in spoken)
                named = dict(zip(("story_id", "language"), whole, strict=True))
                named |= {"sentence": 0, "speaker": "+".join(speakers)}
                rows[whole] = named | audio.join(spoken)
        joined.append(item)
    publish_prepared(
        output_folder,
        pa.Table.from_pylist(list(rows.values()), schema=MANIFEST),
        pa.Table.from_pylist(joined, schema=table.schema),
    )
    logger.info(
        f"{output_folder}: {len(rows)} prompts and prompts with endings; files "
        f"written: {audio.counts['written']}, found: {audio.counts['found']}"
    )
    return audio.counts


def _read_stories(manifest):
    """Return (story, language) -> rows, audio paths as seen from here."""
    table = read_table(manifest, MANIFEST, MANIFEST_KEY)
    stories = {}
    for row in table.select(MANIFEST.names).to_pylist():
        row["audio"] = manifest.parent / row["audio"]
        key = row["story_id"], row["language"]
        stories.setdefault(key, {})[row["sentence"]] = row
    return stories


def _story(stories, key, what, manifest):
    sentences = stories.get(key)
    if sentences is None:
        raise ValueError(
            f"{what}, story '{key[0]}' in '{key[1]}', is not in {manifest}; "
            "give the manifest of these items"
        )
    if sorted(sentences) != list(range(len(sentences))):
        raise ValueError(
            f"{manifest}: story '{key[0]}' in '{key[1]}' has the sentences "
            f"{sorted(sentences)}; expected 0, 1, 2, ... without a gap"
        )
    return [sentences[number] for number in range(len(sentences))]


class _JoinedAudio:
    """Audio files named by what they are made of, each made once."""

    def __init__(self, folder):
        self.folder = folder
        self.counts = {"written": 0, "found": 0}
        self._sounds = {}  # path -> what is known of it, all but its samples
        self._made = {}

    def join(self, rows):
        """Return the manifest's entries of rows behind one another."""
        for row in rows:
            path = row["audio"]
            if not path.exists():
                raise FileNotFoundError(
                    f"{path} does not exist, of story '{row['story_id']}'"
                )
            if path not in self._sounds:
                self._sounds[path] = open_audio(path, expected=row, keep=None)
        key = tuple(row["sha256"] for row in rows)
        if key not in self._made:
            self._made[key] = self._make(key, rows)
        return self._made[key]

    def _make(self, key, rows):
        sounds = [self._sounds[row["audio"]] for row in rows]
        if len(rows) == 1:
            return manifest_entry(rows[0]["audio"], sounds[0])
        _refuse_mixture(rows, sounds)
        exact = all(sound.subtype == "PCM_16" for sound in sounds)
        dtype = "int16" if exact else "float32"
        # Samples are read only here, one row's at a time: a benchmark's audio
        # does not fit into memory. What is read now is compared anew with what
        # the manifest says.
        read = (open_audio(r["audio"], expected=r, dtype=dtype) for r in rows)
        whole = np.concatenate([sound.samples for sound in read])
        # FLAC has no floating point, and keeps 16 bits as they are.
        suffix, subtype = (".flac", "PCM_16") if exact else (".wav", "FLOAT")
        name = identity_of({"parts": key, "version": AUDIO_VERSION})[:32]
        path = self.folder / name[:2] / f"{name}{suffix}"
        # Its name says what was meant, not what became of it since.
        if path.is_file() and _holds(path, whole):
            self.counts["found"] += 1
            return manifest_entry(path)
        with atomic_path(path) as temporary:
            rate = sounds[0].sample_rate
            soundfile.write(temporary, whole, rate, subtype=subtype)
        self.counts["written"] += 1
        return manifest_entry(path)


def _holds(path, samples):
    try:
        found = open_audio(path, dtype=str(samples.dtype)).samples
    except ValueError:
        return False
    return np.array_equal(found, samples)


def _refuse_mixture(rows, sounds):
    for row, sound in zip(rows, sounds, strict=True):
        for name, unit in (("sample_rate", "Hz"), ("channels", "channel(s)")):
            one, other = getattr(sounds[0], name), getattr(sound, name)
            if one != other:
                raise ValueError(
                    f"{row['audio']} has {other} {unit} and "
                    f"{rows[0]['audio']}, {one}; convert them to the same"
                )
