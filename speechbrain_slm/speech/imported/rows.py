"""Rows of somebody's spoken corpus, one a spoken sentence, checked."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.audio import MAX_SECONDS, BadAudio, read_audio
from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.hashing import file_stamp
from speechbrain_slm.utils.tables import MANIFEST
from speechbrain_slm.utils.user_tables import as_text

# What has been found out of a row; `reason` is empty where it is good.
FACTS = pa.schema(
    [
        *MANIFEST,
        ("text", pa.string()),
        ("source", pa.string()),
        ("reason", pa.string()),
        # The file that was read, or is missing, and its state then.
        ("file", pa.string()),
        ("stamp", pa.string()),
    ]
)
_EMPTY = {
    **dict.fromkeys(FACTS.names, ""),
    "sentence": None,
    "num_samples": 0,
    "sample_rate": 0,
}
# The kind of reason of rows that nobody asked for.
OTHER_LANGUAGE = "language"
_EXTENSIONS = {"WAV": "wav", "WAVEX": "wav", "OGG": "ogg", "MPEG": "mp3"}


@dataclass(frozen=True)
class Columns:
    """Which columns of a source hold what.

    Arguments
    ---------
    story : str
        The story's name.
    sentence : str
        The sentence's number in its story, from any number on.
    audio : str or dict
        Audio: a path (absolute, or relative to the table's folder), bytes, or
        the hub's ``{bytes, path}``. Language -> column where a row holds a
        sentence in several languages.
    language : str, optional
        The language's name; not with several audio columns.
    speaker : str or dict, optional
        The speaker's name, or language -> column. By default all is spoken by
        ``unknown``.
    text : str or dict, optional
        What is said, or language -> column.
    """

    story: str
    sentence: str
    audio: object
    language: str | None = None
    speaker: object = None
    text: object = None

    def __post_init__(self) -> None:
        if isinstance(self.audio, dict) == (self.language is not None):
            raise ValueError(
                f"audio is {self.audio!r} and language is {self.language!r}; "
                "expected a column of each, or for audio a mapping (language: "
                "column) and no language"
            )

    def names(self):
        """List the columns that a source must have."""
        found = [self.story, self.sentence, self.language]
        for one in (self.audio, self.speaker, self.text):
            found += one.values() if isinstance(one, dict) else [one]
        return list(dict.fromkeys(name for name in found if name))

    def spoken(self, row):
        """Yield (language, audio, speaker, text) of a row, as they stand."""
        if isinstance(self.audio, dict):
            for language, column in self.audio.items():
                yield self._one(row, language, column)
        else:
            yield self._one(row, row.get(self.language), self.audio)

    def _one(self, row, language, column):
        def pick(name):
            name = name.get(language) if isinstance(name, dict) else name
            return row.get(name) if name else None

        speaker = pick(self.speaker) if self.speaker else "unknown"
        return language, row.get(column), speaker, pick(self.text)


def facts_of(
    row,
    where: str,
    columns: Columns,
    languages: list[str],
    folder: Path | None,
    output_folder: Path,
    names: dict,
    max_seconds: float = MAX_SECONDS,
) -> list[dict]:
    """Find out what a manifest says of a row's audio.

    Whatever is wrong with a row is a reason to leave it out, and no more.

    Arguments
    ---------
    row : Row
        Of a source.
    where : The source, for the ledger.
    columns : What the row's columns mean.
    folder : What audio paths are relative to.
    output_folder : Where the manifest will be; gets audio that comes as bytes.
    names : A language's name in the source -> ours.
    max_seconds : What is longer is left out.

    Returns
    -------
    With the fields of ``FACTS``; bad ones have a ``reason``, whose kind
    stands before its first colon.
    """
    where = f"{where}, row {row.number}"
    if row.fault:
        return [{**_EMPTY, "source": where, "reason": f"no row: {row.fault}"}]
    facts = []
    for language, audio, speaker, text in columns.spoken(row.values):
        fact = {**_EMPTY, "source": where}
        try:
            # First what says whose row it is.
            fact["story_id"] = _text("story", row.values.get(columns.story))
            language = _text("language", language)
            fact["language"] = names.get(language, language)
            fact["sentence"] = _number(row.values.get(columns.sentence))
            fact["speaker"] = _text("speaker", speaker)
            fact["text"] = _text("text", text)
            if not fact["story_id"] or not fact["speaker"]:
                raise ValueError("no name of a story or of a speaker")
            if fact["language"] not in languages:
                raise ValueError(
                    f"{OTHER_LANGUAGE}: '{fact['language']}' is not one of "
                    f"{', '.join(languages)}"
                )
            _add_audio(fact, audio, folder, output_folder, max_seconds)
        except ValueError as error:
            fact["reason"] = str(error)
        facts.append(fact)
    return facts


def _text(name, value):
    try:
        return as_text(value).strip()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _number(value):
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if not 0 <= number < 2**31 or str(number) != str(value).strip():
        raise ValueError(
            f"sentence: found {value!r:.80}; expected 0, 1, 2, ..."
        )
    return number


def _add_audio(fact, audio, folder, output_folder, max_seconds):
    content, path = audio, None
    if isinstance(audio, dict):
        content, path = audio.get("bytes"), audio.get("path")
    elif isinstance(audio, str):
        content, path = None, audio
    if content is None:
        if not path or not isinstance(path, str):
            raise ValueError("no audio")
        path = Path(_text("audio", path))
        path = path if folder is None else folder / path
        with contextlib.suppress(OSError):  # told where it is opened
            path = as_stored(path)
        # Known before it is read: a second run looks whether it has changed.
        fact["file"] = os.path.abspath(path)
        sound = _read(fact, path, max_seconds)
    elif not isinstance(content, bytes):
        raise ValueError(f"audio: found {content!r:.80}; expected a path")
    else:
        sound = _sound(content, "", max_seconds)
        kind = _EXTENSIONS.get(sound.kind, sound.kind.lower())
        name = f"{sound.sha256[:32]}.{kind}"
        path = output_folder / "audio" / name[:2] / name
        if not path.is_file() or path.read_bytes() != content:
            write_atomic(path, content)
        fact["file"] = os.path.abspath(path)
        fact["stamp"] = file_stamp(path)
    absolute = path.is_absolute() and output_folder not in path.parents
    fact["audio"] = (
        str(path) if absolute else os.path.relpath(path, output_folder)
    )
    fact["num_samples"] = sound.num_samples
    fact["sample_rate"] = sound.sample_rate
    fact["sha256"] = sound.sha256


def _read(fact, path, max_seconds):
    """Read a file; what it is and the state that it was in belong together."""
    before = fact["stamp"] = file_stamp(path)
    if not before:
        raise ValueError(f"no audio: {path} does not exist")
    sound = _sound(path, f"{path}: ", max_seconds)
    if file_stamp(path) != before:
        raise ValueError(f"no audio: {path} was changed while it was read")
    return sound


def _sound(source, name, max_seconds):
    try:
        return read_audio(
            source, keep=None, audible=True, max_seconds=max_seconds
        )
    except BadAudio as error:
        raise ValueError(f"bad audio: {name}{error}") from error


def is_unchanged(table: pa.Table) -> bool:
    """Tell whether the audio files of a part are still what was read.

    Arguments
    ---------
    table : Columns ``file`` and ``stamp`` of its facts.

    """
    pairs = set(zip(*table.to_pydict().values(), strict=True))
    return all(stamp == file_stamp(file) for file, stamp in pairs if file)
