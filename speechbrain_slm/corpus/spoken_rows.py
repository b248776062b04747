"""Rows of somebody's spoken corpus, one a spoken sentence, checked."""

import contextlib
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import soundfile

from speechbrain_slm.corpus.spoken_sources import stamp_of
from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.files import as_stored, check_file
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

    def __post_init__(self):
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


def facts_of(row, where, columns, languages, folder, output_folder, names):
    """Find out what a manifest says of a row's audio.

    Whatever is wrong with a row is a reason to leave it out, and no more.

    Arguments
    ---------
    row : Row
        Of a source.
    where : str
        The source, for the ledger.
    columns : Columns
        What the row's columns mean.
    languages : list of str
        Those wanted.
    folder : Path or None
        What audio paths are relative to.
    output_folder : Path
        Where the manifest will be; gets audio that comes as bytes.
    names : dict
        A language's name in the source -> ours.

    Returns
    -------
    list of dict
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
            _add_audio(fact, audio, folder, output_folder)
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


def _add_audio(fact, audio, folder, output_folder):
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
        fact["stamp"], content = _read(path)
    elif not isinstance(content, bytes):
        raise ValueError(f"audio: found {content!r:.80}; expected a path")
    else:
        path = None
    if not content:
        raise ValueError("no audio: it has 0 bytes")
    digest = hashlib.sha256(content).hexdigest()
    kind, count, rate = _decode(content)
    if path is None:
        name = f"{digest[:32]}.{_EXTENSIONS.get(kind, kind.lower())}"
        path = output_folder / "audio" / name[:2] / name
        if not path.is_file() or path.read_bytes() != content:
            write_atomic(path, content)
        fact["file"] = os.path.abspath(path)
        fact["stamp"] = stamp_of(path.stat())
    absolute = path.is_absolute() and output_folder not in path.parents
    fact["audio"] = (
        str(path) if absolute else os.path.relpath(path, output_folder)
    )
    fact["num_samples"] = count
    fact["sample_rate"] = rate
    fact["sha256"] = digest


def _read(path):
    """Return a file's state and its content, from one opening of it."""
    try:
        check_file(path, "audio")
        with open(path, "rb") as file:
            stamp = stamp_of(os.fstat(file.fileno()))
            content = file.read()
            if stamp_of(os.fstat(file.fileno())) == stamp:
                return stamp, content
    except (ValueError, OSError) as error:
        missing = isinstance(error, FileNotFoundError)
        text = f"{path} does not exist" if missing else str(error)
        raise ValueError(f"no audio: {text}") from error
    raise ValueError(f"no audio: {path} was changed while it was read")


def is_unchanged(table):
    """Tell whether the audio files of a part are still what was read.

    Arguments
    ---------
    table : pyarrow.Table
        Columns ``file`` and ``stamp`` of its facts.

    Returns
    -------
    bool
    """
    pairs = set(zip(*table.to_pydict().values(), strict=True))
    return all(stamp == _stamp(file) for file, stamp in pairs if file)


def _stamp(path):
    try:
        return stamp_of(os.stat(path))
    except (OSError, ValueError):
        return ""


def _decode(content):
    """Return format, number of samples and rate; all of it is decoded."""
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            kind, rate, stated = file.format, file.samplerate, file.frames
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        # The message may hold the address of the buffer that was read.
        text = str(error).split(": ")[-1]
        raise ValueError(f"cannot be decoded: {text}") from error
    if len(samples) != stated:
        raise ValueError(
            f"not whole: {len(samples)} of {stated} samples are there"
        )
    if not samples.any():
        raise ValueError("silent: every sample is 0")
    return kind, len(samples), rate
