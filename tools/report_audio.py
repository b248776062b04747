"""Stories of a spoken manifest, as audio that a web page can hold."""

import base64
import io
from collections.abc import Collection, Sequence
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
    title: str
    language: str
    text: str  # empty where none is known
    flac: str  # in base64; empty where nothing is said
    run: int | None = None  # who says it; None: the corpus
    note: str = ""


@dataclass
class Story:
    """A story of a manifest, and rows of clips that have titles."""

    name: str  # without its part
    folder: Path  # of the manifest
    spoken: dict[tuple[str, str], list[dict]]  # (part, language) -> sentences
    clips: dict[str, list[Clip]] = field(default_factory=dict)
    folded: dict[str, list[Clip]] = field(default_factory=dict)

    @property
    def speaker(self) -> str:
        """Return who speaks; several in order of appearance, with commas."""
        rows = [row for rows in self.spoken.values() for row in rows]
        return ", ".join(dict.fromkeys(row["speaker"] for row in rows))

    def parts(self) -> dict[str, list[Clip]]:
        """Make a clip of each part and language."""
        found: dict[str, list[Clip]] = {}
        for (part, language), rows in self.spoken.items():
            title = PARTS.get(part, part or "Story")
            name = f"{self.name}, {title}, {language}"
            clip = self.clip(rows, name, language, language)
            found.setdefault(title, []).append(clip)
        return found

    def clip(
        self,
        rows: Sequence[dict],
        name: str,
        title: str,
        language: str,
        seconds: float | None = None,
    ) -> Clip:
        """Make a clip of sentences, or of their first seconds."""
        pieces: list[np.ndarray] = []
        rate = rows[0]["sample_rate"]
        for row in rows:
            if pieces:
                pieces.append(np.zeros(int(PAUSE * rate), np.int16))
            told = {"num_samples": row["num_samples"], "sample_rate": rate}
            pieces.append(read_samples(self.folder / row["audio"], told)[0])
        samples = np.concatenate(pieces)
        if seconds is not None:
            samples = samples[: int(seconds * rate)]
        text = " ".join(row.get("text") or "" for row in rows).strip()
        return Clip(name, title, language, text, as_flac(samples, rate))


def spoken_stories(
    manifest: str | Path, count: int, wanted: Collection[str] = ()
) -> list[Story]:
    """Read a few stories at most, spread evenly over a manifest.

    The parts of a cloze story (``test-000012.prompt``, ``.right``, ...) come
    together, in every language.

    Arguments
    ---------
    wanted : Names of stories to choose from, where there are such.
    """
    found: dict[str, dict] = {}
    for row in read_table(manifest, MANIFEST, MANIFEST_KEY).to_pylist():
        story, _, part = row["story_id"].partition(".")
        parts = found.setdefault(story, {})
        parts.setdefault((part, row["language"]), []).append(row)
    names = [name for name in found if name in wanted] or list(found)
    count = min(count, len(names))
    stories = []
    for index in range(count):
        name = names[index * len(names) // count]
        for rows in found[name].values():
            rows.sort(key=lambda row: row["sentence"])
        stories.append(Story(name, Path(manifest).parent, found[name]))
    return stories


def read_samples(
    path: Path, expected: dict | None = None
) -> tuple[np.ndarray, int]:
    """Read 16-bit samples and their rate; ValueError names the file."""
    try:
        sound = read_audio(path, expected=expected, dtype="int16")
    except BadAudio as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    assert sound.samples is not None
    # The mixture of several channels, as the units have it.
    mixed = np.round(sound.samples.mean(axis=1)).astype(np.int16)
    return mixed, sound.sample_rate


def as_flac(samples: np.ndarray, sample_rate: int) -> str:
    """Encode 16-bit samples for a page."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="FLAC")
    return base64.b64encode(file.getvalue()).decode("ascii")
