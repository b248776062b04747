"""What becomes of every spoken benchmark: a manifest of its audio, and items.

Readers return clips (audio files under the names that they shall have in a
unit store) and items (which of them is the right one); both are written here.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import soundfile

from speechbrain_slm.utils.atomic import atomic_path, published_together
from speechbrain_slm.utils.audio import EXACT, BadAudio, Sound, read_audio
from speechbrain_slm.utils.files import as_stored, files_in, nfc
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


class Clip(NamedTuple):
    """An audio file, and what a unit store shall call it."""

    story_id: str  # names it, together with its language
    language: str
    speaker: str
    path: Path
    sound: Sound | None = None  # what is known of the file; None: it is read


class Item(NamedTuple):
    """A comparison, see ``utils.tables.ITEMS``: names of stories."""

    item_id: str
    benchmark: str
    prompt_language: str
    ending_language: str
    prompt: str  # empty: none
    right: str
    wrong: str
    group: str = ""
    subset: str = ""


def items_of(
    names: Iterable[str],
    benchmark: str,
    wrong: str,
    languages: Iterable[str],
    about: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Item]:
    """Yield the items of stories ``X.prompt``, ``X.right`` and ``X.<wrong>``.

    One for each pair of languages, of the prompt and of the endings.

    Arguments
    ---------
    about : ``X`` -> its ``group`` and ``subset``, where it has them.
    """
    names, about = list(names), about or {}
    for one, two in itertools.product(languages, repeat=2):
        for name in names:
            stories = (f"{name}.{part}" for part in ("prompt", "right", wrong))
            yield Item(
                name, benchmark, one, two, *stories, **about.get(name, {})
            )


def item_table(items: Iterable[Item]) -> pa.Table:
    """Make the table of items, with the optional columns that one uses."""
    rows = [item._asdict() for item in items]
    optional = [
        pa.field(name, pa.string())
        for name in ITEMS_OPTIONAL
        if any(row[name] for row in rows)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([*ITEMS, *optional]))


def audio_in(folder: Path, expected: str) -> list[tuple[str, Path]]:
    """List a folder's audio files by their names, without the suffix.

    Transcripts beside them, and what a system leaves, do not count.

    Arguments
    ---------
    expected : What the folder should be, for the error.
    """
    there = files_in(folder, deep=False) if folder.is_dir() else []
    found = [path for path in there if path.suffix.lower() in AUDIO]
    if not found:
        lacks = f"holds no {' or '.join(AUDIO)} file"
        fault = lacks if folder.is_dir() else "is no folder"
        raise FileNotFoundError(f"{folder} {fault}; expected {expected}")
    return [(nfc(path.stem), path) for path in found]


def group_files(
    files: Iterable[tuple[str, str, Path]], parts: Iterable[str]
) -> dict[str, dict[str, Path]]:
    """Return name -> part -> file, of (name, part, file); each has all, once.

    ValueError if not: half a benchmark would be scored without a word.
    """
    found: dict[str, dict[str, Path]] = {}
    for name, part, path in files:
        other = found.setdefault(name, {}).setdefault(part, path)
        if other != path:
            raise ValueError(
                f"'{name}' stands twice: {other} and {path}. Remove one."
            )
    parts = list(parts)
    half = [name for name in sorted(found) if len(found[name]) < len(parts)]
    for name in half:
        there = ", ".join(map(str, found[name].values()))
        lacks = ", ".join(p for p in parts if p not in found[name])
        raise ValueError(
            f"'{name}' has {there} and no '{lacks}' ({len(half)} such names); "
            f"expected {' and '.join(parts)}. Unpack it again, or remove what "
            "is alone."
        )
    return found


def write_prepared(
    output_folder: str | Path,
    clips: list[Clip],
    items: list[Item],
    max_seconds: float | None = None,
) -> None:
    """Write the manifest and the items of a benchmark.

    Arguments
    ---------
    output_folder
        Gets ``speech.parquet`` and ``items.parquet``, and ``audio/`` if
        anything is cropped.
    clips : All audio; one story of one sentence each.
    max_seconds
        Longer files are cropped to their first so many seconds, as copies;
        the manifest's column ``note`` says which.
    """
    output_folder = Path(output_folder)
    if not items:
        raise ValueError("the benchmark has no item; expected at least one")
    # A store has one story of a name and a language.
    group_files(((c.story_id, c.language, c.path) for c in clips), ())
    missing = [clip.path for clip in clips if not as_stored(clip.path).exists()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} does not exist, nor do {len(missing) - 1} other "
            "audio file(s). Unpack it again, or correct the table of names."
        )
    # Only now, as to decode can take an hour.
    rows = [_manifest_row(clip, output_folder, max_seconds) for clip in clips]
    cropped = sum(bool(row["note"]) for row in rows)
    note = [pa.field("note", pa.string())] if cropped else []
    manifest = pa.Table.from_pylist(rows, schema=pa.schema([*MANIFEST, *note]))
    publish_prepared(output_folder, manifest, item_table(items))
    logger.info(
        f"{output_folder}: {len(rows)} audio files ({cropped} cropped), "
        f"{len(items)} items"
    )


def publish_prepared(
    output_folder: Path, manifest: pa.Table, items: pa.Table
) -> None:
    """Write ``speech.parquet`` and ``items.parquet``, both of one run."""
    tables = {MANIFEST_FILE: manifest, ITEMS_FILE: items}
    refuse_foreign([output_folder / name for name in tables], MARK)
    # Of two runs that write to a folder at a time, one waits.
    with take_turns(output_folder), published_together(output_folder) as new:
        for name, table in tables.items():
            marked = table.replace_schema_metadata(mark_of(MARK))
            write_table(new / name, marked)


def open_audio(path: str | Path, **options: Any) -> Sound:
    """Read an audio file (:func:`read_audio`), or refuse it by its name."""
    try:
        return read_audio(path, **options)
    except BadAudio as error:
        raise ValueError(
            f"{path} cannot be read as audio ({error}); unpack it again"
        ) from error


def manifest_entry(path: str | Path, sound: Sound | None = None) -> dict:
    """Say what a manifest says of an audio file; it is read, if not yet."""
    sound = sound or open_audio(path, keep=None)
    facts = ("num_samples", "sample_rate", "sha256")
    # Absolute: the manifest need not lie beside the benchmark.
    entry = {"audio": str(Path(path).resolve())}
    return entry | {name: getattr(sound, name) for name in facts}


def _manifest_row(clip, output_folder, max_seconds):
    entry = manifest_entry(clip.path, clip.sound)
    row = {**clip._asdict(), "sentence": 0, "note": "", **entry}
    del row["path"], row["sound"]
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
    # What is cropped is what was described: compared, and in its own encoding.
    sound = open_audio(clip.path, expected=entry, dtype=None)
    wav, rate = sound.samples[:most], sound.sample_rate
    subtype = sound.subtype if sound.subtype in EXACT else "FLOAT"
    with atomic_path(copy) as temporary:
        soundfile.write(temporary, wav, rate, subtype=subtype)
    note = f"the first {most} of {row['num_samples']} samples of {row['audio']}"
    return {**row, **manifest_entry(copy), "note": note}
