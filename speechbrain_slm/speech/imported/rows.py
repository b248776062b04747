"""Rows of somebody's spoken corpus, one a spoken sentence, checked."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from speechbrain_slm.utils.audio import BadAudio, Sound, read_audio
from speechbrain_slm.utils.audio_cells import content_or_path, keep_audio
from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.hashing import file_stamp
from speechbrain_slm.utils.tables import MANIFEST
from speechbrain_slm.utils.user_tables import Row, as_text

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
# Of a row of which nothing is known yet.
EMPTY: dict = dict.fromkeys(FACTS.names, "")
EMPTY |= {"sentence": None, "num_samples": 0, "sample_rate": 0}
# The kind of reason of rows that nobody asked for.
OTHER_LANGUAGE = "language"


@dataclass(frozen=True)
class Columns:
    """Which columns of a source hold what.

    Arguments
    ---------
    sentence : The sentence's number in its story, from any number on.
    audio
        A path (absolute, or relative to the table's folder), bytes, or the
        hub's ``{bytes, path}``. Language -> column where a row holds a
        sentence in several languages; there is no ``language`` then.
    speaker : Or language -> column. By default all is spoken by ``unknown``.
    text : What is said, or language -> column.
    """

    story: str
    sentence: str
    audio: str | dict[str, str]
    language: str | None = None
    speaker: str | dict[str, str] | None = None
    text: str | dict[str, str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.audio, dict) == (self.language is not None):
            raise ValueError(
                f"audio is {self.audio!r} and language is {self.language!r}; "
                "expected a column of each, or for audio a mapping (language: "
                "column) and no language"
            )

    def names(self) -> list[str]:
        """List the columns that a source must have."""
        found = [self.story, self.sentence, self.language]
        for one in (self.audio, self.speaker, self.text):
            found += one.values() if isinstance(one, dict) else [one]
        return list(dict.fromkeys(name for name in found if name))

    def request(self) -> dict:
        """Say what is asked for: what is read otherwise has another name."""
        return vars(self)

    def spoken(self, row: dict) -> Iterator[tuple]:
        """Yield language, speaker, text and audio: of each that a row holds."""
        pairs: list = [(row.get(self.language or ""), self.audio)]
        if isinstance(self.audio, dict):
            pairs = list(self.audio.items())
        for language, column in pairs:
            names = (
                one.get(language) if isinstance(one, dict) else one
                for one in (self.speaker, self.text)
            )
            speaker, text = (row.get(name or "") for name in names)
            who = speaker if self.speaker else "unknown"
            yield language, who, text, row.get(column)


@dataclass(frozen=True)
class Reader:
    """Finds out what a manifest says of the audio of a source's rows."""

    columns: Columns
    languages: list[str]  # those that are wanted
    language_names: dict[str, str]  # a language's name in the source -> ours
    output_folder: Path  # of the manifest; gets audio that comes as bytes
    max_seconds: float  # what is longer is left out

    def facts_of(self, row: Row, where: str, folder: Path | None) -> list[dict]:
        """Return what is known of a row, with the fields of ``FACTS``.

        Whatever is wrong is a reason to leave it out, and no more: its kind
        stands before its first colon. ``where`` is the source, for the ledger;
        audio paths are relative to ``folder``.
        """
        empty = {**EMPTY, "source": f"{where}, row {row.number}"}
        if row.fault:
            return [{**empty, "reason": f"no row: {row.fault}"}]
        facts = []
        for *names, audio in self.columns.spoken(row.values):
            fact = dict(empty)
            try:
                self._add_names(fact, row.values, *names)
                self._add_audio(fact, audio, folder)
            except ValueError as error:
                fact["reason"] = str(error)
            facts.append(fact)
        return facts

    def _add_names(
        self, fact: dict, row: dict, language: Any, speaker: Any, text: Any
    ) -> None:
        # First what says whose row it is: the rest may be bad.
        fact["story_id"] = as_name("story", row.get(self.columns.story))
        name = as_name("language", language)
        fact["language"] = self.language_names.get(name, name)
        fact["sentence"] = _number(row.get(self.columns.sentence))
        fact["speaker"] = as_name("speaker", speaker)
        fact["text"] = as_name("text", text)
        if not fact["story_id"] or not fact["speaker"]:
            raise ValueError("no name of a story or of a speaker")
        if fact["language"] not in self.languages:
            raise ValueError(
                f"{OTHER_LANGUAGE}: '{fact['language']}' is not one of "
                f"{', '.join(self.languages)}"
            )

    def _add_audio(self, fact: dict, cell: Any, folder: Path | None) -> None:
        audio = content_or_path(cell)
        if isinstance(audio, bytes):
            sound = self._sound(audio, "")
            path = keep_audio(audio, sound, self.output_folder / "audio")
            fact |= {"file": os.path.abspath(path), "stamp": file_stamp(path)}
        else:
            path = Path(folder or "", as_name("audio", audio))
            with contextlib.suppress(OSError):  # told where it is opened
                path = as_stored(path)
            # Known though it may be bad: a second run looks whether it changed.
            stamp = file_stamp(path)
            fact |= {"file": os.path.abspath(path), "stamp": stamp}
            if not stamp:
                raise ValueError(f"no audio: {path} does not exist")
            sound = self._sound(path, f"{path}: ")
            # What it is and the state it was in belong together.
            if file_stamp(path) != stamp:
                raise ValueError(f"no audio: {path} was changed while read")
        # Relative where both may be moved together.
        outside = path.is_absolute() and self.output_folder not in path.parents
        beside = path if outside else os.path.relpath(path, self.output_folder)
        fact["audio"] = str(beside)
        for name in ("num_samples", "sample_rate", "sha256"):
            fact[name] = getattr(sound, name)

    def _sound(self, source: Path | bytes, name: str) -> Sound:
        most = self.max_seconds
        try:
            return read_audio(source, keep=None, audible=True, max_seconds=most)
        except BadAudio as error:
            raise ValueError(f"bad audio: {name}{error}") from error


def as_name(name: str, value: Any) -> str:
    """Return a name or a text without spaces around it; ValueError if none."""
    try:
        return as_text(value).strip()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _number(value: Any) -> int:
    # 1.5 and "01" are none: which sentence they mean, nobody knows.
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = int(value)
        if 0 <= number < 2**31 and str(number) == str(value).strip():
            return number
    raise ValueError(f"sentence: found {value!r:.80}; expected 0, 1, 2, ...")


def is_unchanged(table: pa.Table) -> bool:
    """Tell whether ``file`` is in each row still what was read: ``stamp``."""
    pairs = set(zip(*table.to_pydict().values(), strict=True))
    return all(stamp == file_stamp(file) for file, stamp in pairs if file)
