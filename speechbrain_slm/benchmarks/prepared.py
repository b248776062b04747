"""What becomes of every benchmark: a manifest of its audio, and its items."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import soundfile

from speechbrain_slm.utils.atomic import atomic_path, published_together
from speechbrain_slm.utils.audio import EXACT, BadAudio, read_audio
from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.jobs import take_turns
from speechbrain_slm.utils.ownership import mark_of, refuse_foreign
from speechbrain_slm.utils.tables import (
    ITEMS,
    ITEMS_OPTIONAL,
    MANIFEST,
    write_table,
)

logger = logging.getLogger(__name__)
# The units recipe names a store after its manifest.
MANIFEST_FILE = "speech.parquet"
ITEMS_FILE = "items.parquet"
MARK = "benchmark"
# What counts as audio in a folder.
AUDIO = (".wav", ".flac")


@dataclass(frozen=True)
class Clip:
    """An audio file, and what a unit store shall call it.

    Arguments
    ---------
    story_id : str
        Names it, together with its language.
    language : str
        What is spoken.
    speaker : str
        Who speaks.
    path : Path
        The file.
    """

    story_id: str
    language: str
    speaker: str
    path: Path


def write_prepared(
    output_folder: str | Path,
    clips: list[Clip],
    items: list[dict],
    max_seconds: float | None = None,
) -> None:
    """Write the manifest and the items of a benchmark.

    Arguments
    ---------
    output_folder
        Gets ``speech.parquet`` and ``items.parquet``, and ``audio/`` if
        anything is cropped.
    clips : All audio; one story of one sentence each.
    items
        Rows of ``utils.tables.ITEMS``, with ``group`` and ``subset`` where
        the benchmark has them.
    max_seconds
        Longer files are cropped to their first so many seconds, as copies;
        the manifest's column ``note`` says which.

    Raises
    ------
    FileNotFoundError
        If an audio file does not exist; names the first, and how many.
    ValueError
        If there is no item, a clip's name stands twice, or a file cannot be
        read as audio.
    """
    output_folder = Path(output_folder)
    if not items:
        raise ValueError("the benchmark has no item; expected at least one")
    counts = Counter((clip.story_id, clip.language) for clip in clips)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        paths = [
            str(clip.path)
            for clip in clips
            if (clip.story_id, clip.language) == twice[0]
        ]
        raise ValueError(
            f"'{twice[0][0]}' ({twice[0][1]}) stands {len(paths)} times: "
            f"{', '.join(paths)}; expected one audio file for each name"
        )
    missing = [clip.path for clip in clips if not as_stored(clip.path).exists()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} does not exist, nor do {len(missing) - 1} other "
            "audio file(s) of the benchmark. Unpack it again, or correct the "
            "table that names them."
        )
    rows = [_manifest_row(clip, output_folder, max_seconds) for clip in clips]
    cropped = sum(bool(row["note"]) for row in rows)
    note = [pa.field("note", pa.string())] if cropped else []
    manifest = pa.Table.from_pylist(rows, schema=pa.schema([*MANIFEST, *note]))
    optional = [
        pa.field(name, pa.string())
        for name in ITEMS_OPTIONAL
        if any(row.get(name) for row in items)
    ]
    schema = pa.schema([*ITEMS, *optional])
    table = pa.Table.from_pylist(items, schema=schema)
    publish_prepared(output_folder, manifest, table)
    logger.info(
        "%s: %d audio files (%d cropped), %d items",
        output_folder,
        len(rows),
        cropped,
        len(items),
    )


def publish_prepared(
    output_folder: Path, manifest: pa.Table, items: pa.Table
) -> None:
    """Write a manifest and its items, both of them or neither.

    Arguments
    ---------
    output_folder
        Gets ``speech.parquet`` and ``items.parquet``. Of two runs that write
        to it at a time, one waits: both tables are of one run.

    Raises
    ------
    FileExistsError
        If one is in the way that is of no benchmark; both stay then.
    """
    tables = {MANIFEST_FILE: manifest, ITEMS_FILE: items}
    refuse_foreign([output_folder / name for name in tables], MARK)
    with take_turns(output_folder), published_together(output_folder) as new:
        for name, table in tables.items():
            marked = table.replace_schema_metadata(mark_of(MARK))
            write_table(new / name, marked)


def describe_audio(path: str | Path) -> dict:
    """Say what a manifest says of an audio file.

    Returns
    -------
    ``audio`` (absolute), ``num_samples``, ``sample_rate`` (Hz) and
    ``sha256``.

    Raises
    ------
    ValueError
        If it cannot be read as audio to its end, or holds no sample.
    """
    return manifest_entry(path, open_audio(path, keep=None))


def manifest_entry(path: str | Path, sound) -> dict:
    """Say what a manifest says of an audio file that was read.

    Arguments
    ---------
    sound : speechbrain_slm.utils.audio.Sound
        What was read of it.

    Returns
    -------
    See :func:`describe_audio`.
    """
    return {
        "audio": str(Path(path).resolve()),
        "num_samples": sound.num_samples,
        "sample_rate": sound.sample_rate,
        "sha256": sound.sha256,
    }


def open_audio(path: str | Path, **options: dict):
    """Read an audio file, or refuse it by its name.

    Arguments
    ---------
    **options : For :func:`speechbrain_slm.utils.audio.read_audio`.

    Returns
    -------
    speechbrain_slm.utils.audio.Sound
        What was read of it.

    Raises
    ------
    ValueError
        If it cannot be read as audio to its end, or holds no sample.
    """
    try:
        return read_audio(path, **options)
    except BadAudio as error:
        raise ValueError(
            f"{path} cannot be read as audio ({error}); unpack or convert it "
            "again"
        ) from error


def _manifest_row(clip, output_folder, max_seconds):
    row = {
        "story_id": clip.story_id,
        "sentence": 0,
        "language": clip.language,
        "speaker": clip.speaker,
        "note": "",
        **describe_audio(clip.path),
    }
    if max_seconds is None:
        return row
    most = round(max_seconds * row["sample_rate"])
    if most < 1:
        raise ValueError(
            f"max_seconds is {max_seconds}; expected at least one sample "
            f"({1 / row['sample_rate']:.6f} s of {clip.path})"
        )
    if row["num_samples"] <= most:
        return row
    # Named by what it is made of: two files of one name cannot meet.
    name = f"{row['sha256'][:32]}-{most}.wav"
    copy = output_folder / "audio" / name[:2] / name
    _crop(clip.path, copy, most, row)
    note = f"the first {most} of {row['num_samples']} samples of {row['audio']}"
    return {**row, **describe_audio(copy), "note": note}


def _crop(path, copy, count, row):
    sound = open_audio(path, expected=row, dtype=None)
    subtype = sound.subtype if sound.subtype in EXACT else "FLOAT"
    with atomic_path(copy) as temporary:
        soundfile.write(
            temporary,
            sound.samples[:count],
            sound.sample_rate,
            subtype=subtype,
        )
