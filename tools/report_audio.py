"""Stories of a spoken manifest, as audio that a web page can hold."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_slm.utils.audio import BadAudio, read_audio
from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY, read_table

PAUSE = 0.25  # seconds between two sentences
PARTS = {
    "prompt": "Prompt",
    "right": "Right ending",
    "wrong": "Wrong ending (sSC)",
    "topic": "Wrong ending (sTC)",
}


@dataclass(frozen=True)
class Clip:
    """What one player plays."""

    name: str  # for those who do not see the page
    language: str
    text: str  # empty where none is known
    flac: str  # in base64
    run: int | None = None  # who says it; None: the corpus
    note: str = ""


@dataclass
class Story:
    """A story's parts, each of one or more clips."""

    name: str  # without its part
    # Several in the order in which they begin, with commas.
    speaker: str = ""
    parts: dict[str, list[Clip]] = field(default_factory=dict)


def spoken_stories(
    manifest: str | Path, count: int, wanted: Sequence[str] = ()
) -> list[Story]:
    """Read a few stories at most, spread evenly over a manifest.

    The parts of a cloze story (``test-000012.prompt``, ``.right``, ...) come
    together, in every language; the sentences of a part become one clip.

    Arguments
    ---------
    wanted : Names of stories to choose from, where there are such.
    """
    found: dict[str, dict] = {}
    for row in read_table(manifest, MANIFEST, MANIFEST_KEY).to_pylist():
        story, _, part = row["story_id"].partition(".")
        clips = found.setdefault(story, {})
        clips.setdefault((part, row["language"]), []).append(row)
    names = [name for name in found if name in wanted] or list(found)
    count = min(count, len(names))
    stories = []
    for index in range(count):
        story = Story(names[index * len(names) // count])
        speakers: dict[str, None] = {}
        for (part, language), rows in found[story.name].items():
            rows.sort(key=lambda row: row["sentence"])
            speakers |= dict.fromkeys(row["speaker"] for row in rows)
            title = PARTS.get(part, part or "Story")
            name = f"{story.name}, {title}, {language}"
            text = " ".join(row.get("text") or "" for row in rows).strip()
            flac = _joined(Path(manifest).parent, rows)
            clips = story.parts.setdefault(title, [])
            clips.append(Clip(name, language, text, flac))
        story.speaker = ", ".join(speakers)
        stories.append(story)
    return stories


def _joined(folder, rows):
    pieces = []
    rate = rows[0]["sample_rate"]
    for row in rows:
        if pieces:
            pieces.append(np.zeros(int(PAUSE * rate), np.int16))
        told = {"num_samples": row["num_samples"], "sample_rate": rate}
        pieces.append(_samples(folder / row["audio"], told)[0])
    return as_flac(np.concatenate(pieces), rate)


def _samples(path, expected=None):
    try:
        sound = read_audio(path, expected=expected, dtype="int16")
    except BadAudio as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    # The mixture of several channels, as the units have it.
    mixed = np.round(sound.samples.mean(axis=1)).astype(np.int16)
    return mixed, sound.sample_rate


def as_flac(samples: np.ndarray, sample_rate: int) -> str:
    """Encode 16-bit samples for a page."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="FLAC")
    return base64.b64encode(file.getvalue()).decode("ascii")
