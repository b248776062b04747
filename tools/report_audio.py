"""Stories of a spoken manifest, as audio that a web page can hold."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_slm.utils.audio import BadAudio, read_audio
from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY, read_table

PAUSE = 0.25  # seconds between two sentences


@dataclass(frozen=True)
class Clip:
    """One part of a story in one language."""

    story: str  # without its part
    part: str  # prompt, right, ...; empty where stories have no parts
    language: str
    speaker: str  # several in the order in which they begin, with commas
    text: str  # empty where the manifest has no text
    flac: str  # in base64


def spoken_examples(manifest: str | Path, stories: int) -> list[Clip]:
    """Read a few stories at most, spread evenly over a manifest.

    The parts of a cloze story (``test-000012.prompt``, ``.right``, ...) come
    together, in every language; the sentences of a part become one clip.
    """
    parts: dict[str, dict] = {}
    for row in read_table(manifest, MANIFEST, MANIFEST_KEY).to_pylist():
        story, _, part = row["story_id"].partition(".")
        clips = parts.setdefault(story, {})
        clips.setdefault((part, row["language"]), []).append(row)
    names = list(parts)
    count = min(stories, len(names))
    chosen = [names[index * len(names) // count] for index in range(count)]
    return [
        _clip(Path(manifest).parent, story, part, language, rows)
        for story in chosen
        for (part, language), rows in parts[story].items()
    ]


def _clip(folder, story, part, language, rows):
    pieces = []
    rate = rows[0]["sample_rate"]
    rows = sorted(rows, key=lambda row: row["sentence"])
    for row in rows:
        path = folder / row["audio"]
        try:
            told = {"num_samples": row["num_samples"], "sample_rate": rate}
            sound = read_audio(path, expected=told, dtype="int16")
        except BadAudio as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        # The mixture of several channels, as the units have it.
        samples = np.round(sound.samples.mean(axis=1)).astype(np.int16)
        if pieces:
            pieces.append(np.zeros(int(PAUSE * rate), np.int16))
        pieces.append(samples)
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(pieces), rate, format="FLAC")
    return Clip(
        story=story,
        part=part,
        language=language,
        speaker=", ".join(dict.fromkeys(row["speaker"] for row in rows)),
        text=" ".join(row.get("text") or "" for row in rows).strip(),
        flac=base64.b64encode(file.getvalue()).decode("ascii"),
    )
