"""Rows of somebody's spoken corpus, one a spoken sentence, checked."""

import hashlib
import io
import os
from dataclasses import dataclass

import pyarrow as pa
import soundfile

from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.tables import MANIFEST
from speechbrain_slm.utils.user_tables import as_text

# What has been found out of a row; `reason` is empty where it is good.
FACTS = pa.schema(
    [
        *MANIFEST,
        ("text", pa.string()),
        ("source", pa.string()),
        ("reason", pa.string()),
    ]
)
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
        """Yield (language, audio, speaker, text) of a row, as they are."""
        if isinstance(self.audio, dict):
            for language, column in self.audio.items():
                yield self._one(row, language, column)
        else:
            yield self._one(row, row[self.language], self.audio)

    def _one(self, row, language, column):
        def pick(name):
            name = name.get(language) if isinstance(name, dict) else name
            return row[name] if name else None

        speaker = pick(self.speaker) if self.speaker else "unknown"
        return language, row[column], speaker, pick(self.text)


def _name(value):
    return as_text(value).strip()


def facts_of(row, where, columns, languages, folder, output_folder, names):
    """Find out what a manifest says of a row's audio.

    Arguments
    ---------
    row : Row
        A row of a source.
    where : str
        The source, for the ledger.
    columns : Columns
        What it means.
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
        With the fields of ``FACTS``; bad ones have a ``reason``.
    """
    where = f"{where}, row {row.number}"
    if row.fault:
        return [_fact(where, row.fault)]
    facts = []
    for language, audio, speaker, text in columns.spoken(row.values):
        fact = _fact(where)
        try:
            # First what the ledger says of a row that is left out.
            fact["story_id"] = _name(row.values[columns.story])
            language = _name(language)
            fact["language"] = language = names.get(language, language)
            fact["sentence"] = _number(row.values[columns.sentence])
            fact["speaker"] = _name(speaker)
            fact["text"] = _name(text)
            if not fact["story_id"] or not fact["speaker"]:
                raise ValueError("no name of a story or of a speaker")
            if language not in languages:
                raise ValueError(
                    f"language '{language}' is not one of "
                    f"{', '.join(languages)}"
                )
            fact.update(_audio_facts(audio, folder, output_folder))
        except (ValueError, FileNotFoundError) as error:
            fact["reason"] = str(error)
        facts.append(fact)
    return facts


def _fact(where, reason=""):
    """Return what is known of a row before it is looked at."""
    numbers = {"sentence": None, "num_samples": 0, "sample_rate": 0}
    return {
        **dict.fromkeys(FACTS.names, ""),
        **numbers,
        "source": where,
        "reason": reason,
    }


def _number(value):
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < 2**31 or str(number) != str(value).strip():
        raise ValueError(f"sentence is {value!r}; expected 0, 1, 2, ...")
    return number


def _audio_facts(audio, folder, output_folder):
    content, path = audio, None
    if isinstance(audio, dict):
        content, path = audio.get("bytes"), audio.get("path")
    elif isinstance(audio, str):
        content, path = None, audio
    if content is None:
        if not path:
            raise ValueError("no audio")
        path = as_stored(path if folder is None else folder / path)
        # Not Path.is_file(), which fails at a name that is too long.
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path} does not exist")
        content = path.read_bytes()
    else:
        path = None
    if not content:
        raise ValueError("the audio has 0 bytes")
    digest = hashlib.sha256(content).hexdigest()
    kind, count, rate = _decode(content)
    if path is None:
        name = f"{digest[:32]}.{_EXTENSIONS.get(kind, kind.lower())}"
        path = output_folder / "audio" / name[:2] / name
        # Its name is its content's, so whatever is there is the same.
        if not path.is_file():
            write_atomic(path, content)
    absolute = path.is_absolute() and output_folder not in path.parents
    return {
        "audio": str(path)
        if absolute
        else os.path.relpath(path, output_folder),
        "num_samples": count,
        "sample_rate": rate,
        "sha256": digest,
    }


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
        raise ValueError(f"{len(samples)} of {stated} samples are there")
    if not samples.any():
        raise ValueError("every sample is 0")
    return kind, len(samples), rate
