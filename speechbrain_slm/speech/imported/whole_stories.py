"""A corpus with a whole story a row, cut into sentences by its time stamps.

A row has the story's audio, its text and its words with the seconds at which
they begin and end. Audio is cut in the middle of the pause between two
sentences, so that a story's sentences, one after the other, are its audio,
sample by sample. A story whose time stamps cannot be trusted goes as a whole:
a cut in the wrong place would make two wrong sentences.
"""

import contextlib
import difflib
import io
import itertools
import math
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import soundfile

from speechbrain_slm.speech.imported.rows import EMPTY, Reader, as_name
from speechbrain_slm.utils.audio import EXACT, BadAudio, Sound, read_audio
from speechbrain_slm.utils.audio_cells import content_or_path
from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.hashing import file_stamp
from speechbrain_slm.utils.ranges import check_settings
from speechbrain_slm.utils.table_parts import HUB, source_files
from speechbrain_slm.utils.user_tables import Row


class Word(NamedTuple):
    """A word, and when it is said, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class WholeStories:
    """Which columns of a source hold what, and how its stories are cut.

    Arguments
    ---------
    audio : As in ``Columns``.
    words : A list of mappings, which have the keys ``word, start, end``.
    segment : ``segment(text, rules)`` cuts a text into sentences.
    story : Names a story; None: its file and its row do.
    slack : Seconds by which a word may begin too early, or pass the audio.
    max_unlike : Share of the words that may differ from those of the text.
    """

    audio: str
    text: str
    words: str
    language: str
    segment: Callable[[str, Any], list[str]]
    rules: Any
    speaker: str = "unknown"
    story: str | None = None
    word: str = "word"
    start: str = "start"
    end: str = "end"
    slack: float = 0.02
    max_unlike: float = 0.1

    def __post_init__(self) -> None:
        check_settings(self, "slack", "max_unlike")

    def names(self) -> list[str]:
        """List the columns that a source must have."""
        names = [self.story, self.audio, self.text, self.words]
        return [name for name in names if name]

    def request(self) -> dict[str, str]:
        """Say what is asked for: what is cut otherwise has another name."""
        # A YAML file's !name: makes a partial, whose address is another one.
        function = getattr(self.segment, "func", self.segment)
        settings = {**vars(self), "segment": function.__name__}
        return {name: repr(value) for name, value in settings.items()}

    def refuse_one_name_twice(self, sources: dict[str, list]) -> None:
        """Refuse files whose stories, named after them, would be the same."""
        if self.story:
            return
        for here in sources.values():
            named: dict[str, Path] = {}
            for source in here:
                elsewhere = isinstance(source, Mapping)
                elsewhere |= str(source).startswith(HUB)
                for path in [] if elsewhere else source_files(source):
                    if other := named.get(path.stem):
                        raise ValueError(
                            f"{other} and {path}: stories are named after "
                            "their file, and these would be the same. Rename "
                            "one, or let 'story' name the column that tells "
                            "them apart."
                        )
                    named[path.stem] = path

    def read_words(self, cell: Any, seconds: float) -> list[Word]:
        """Read the time stamps of audio of so many seconds, or refuse them."""
        expected = f"a list of {{{self.word}, {self.start}, {self.end}}}"
        if not isinstance(cell, list) or not cell:
            raise _distrust(f"found {cell!r:.80}; expected {expected}")
        words, before = [], 0.0
        for one in cell:
            found: dict = one if isinstance(one, dict) else {}
            text, start, end = (
                found.get(name) for name in (self.word, self.start, self.end)
            )
            if not (
                isinstance(text, str) and _is_time(start) and _is_time(end)
            ):
                raise _distrust(f"found {one!r:.80}; expected {expected}")
            word = Word(text, start, end)
            told = f"'{text}' is said from {word.start:g} to {word.end:g} s"
            if not before - self.slack <= word.start <= word.end:
                fault = f"the word before it ends at {before:g} s"
                raise _distrust(f"not in order: {told}, and {fault}")
            if word.end > seconds + self.slack:
                fault = f"the audio lasts {seconds:g} s"
                raise _distrust(f"beyond the audio: {told}, and {fault}")
            words.append(word)
            before = word.end
        return words

    def cuts(self, sentences: Sequence[str], words: list[Word]) -> list[float]:
        """Return where sentences end, but for the last one, in seconds.

        ValueError if the words are not those of the sentences, or one of them
        does not end with a word of its own.
        """
        # What has no letter is a pause.
        words = [word for word in words if _letters(word.text)]
        said = [_letters(word.text) for word in words]
        texts = [
            list(filter(None, map(_letters, s.split()))) for s in sentences
        ]
        told = [word for text in texts for word in text]
        blocks = difflib.SequenceMatcher(
            None, told, said, autojunk=False
        ).get_matching_blocks()
        # Word of the text -> word that is said.
        places = {a + n: b + n for a, b, size in blocks for n in range(size)}
        unlike = 1 - len(places) / max(len(told), len(said), 1)
        if unlike > self.max_unlike:
            raise ValueError(
                f"sentences not found: {unlike:.0%} of the words differ from "
                f"the text; max_unlike is {self.max_unlike}"
            )
        ends, last = [], -1
        for sentence, text in zip(sentences[:-1], texts, strict=False):
            last += len(text)
            here, there = places.get(last), places.get(last + 1)
            if not text or here is None or there != here + 1:
                raise ValueError(
                    "sentences not found: no word is said with which "
                    f"'{sentence[-40:]}' ends, with the next one's behind it"
                )
            ends.append((words[here].end + words[there].start) / 2)
        return ends


@dataclass(frozen=True)
class StoryReader(Reader):
    """Finds out what a manifest says of the sentences of a story."""

    columns: WholeStories  # type: ignore[assignment]

    def __post_init__(self) -> None:
        language = self.columns.language
        if language not in self.languages:
            raise ValueError(
                f"columns: language is {language}; expected one of 'languages',"
                f" {', '.join(self.languages)}"
            )

    def facts_of(self, row: Row, where: str, folder: Path | None) -> list[dict]:
        """Return what is known of each sentence of a story.

        What is wrong with the story is the reason of each of them.
        """
        told, source = self.columns, f"{where}, row {row.number}"
        empty = {**EMPTY, "source": source, "language": told.language}
        empty["story_id"] = f"{Path(where).stem}.{row.number}"
        empty["speaker"] = told.speaker
        sentences: list[str] = []
        try:
            if row.fault:
                raise ValueError(f"no row: {row.fault}")
            if told.story:
                empty["story_id"] = as_name("story", row.values[told.story])
            text = as_name("text", row.values[told.text])
            sentences = told.segment(text, told.rules) if text else []
            if not sentences or not empty["story_id"]:
                raise ValueError("no text, or no name of a story")
            audio = self._source(row.values, folder)
            if isinstance(audio, Path):
                # Of what is cut it cannot be seen whether this has changed.
                file = {"file": os.path.abspath(audio)}
                empty |= file | {"stamp": file_stamp(audio)}
            parts = self._parts(row.values, audio, sentences)
        except ValueError as error:
            empty["reason"] = str(error)
            lost = enumerate(sentences)
            facts = [{**empty, "sentence": n, "text": t} for n, t in lost]
            return facts or [empty]
        facts = []
        for number, (text, part) in enumerate(parts):
            fact = {**empty, "sentence": number, "text": text}
            try:
                self._add_audio(fact, part, None)
            except ValueError as error:
                fact["reason"] = str(error)
            if empty["file"]:
                fact |= {name: empty[name] for name in ("file", "stamp")}
            facts.append(fact)
        return facts

    def _source(self, values: dict, folder: Path | None) -> bytes | Path:
        audio = content_or_path(values[self.columns.audio])
        if isinstance(audio, bytes):
            return audio
        path = Path(folder or "", audio)
        with contextlib.suppress(OSError):  # told where it is opened
            path = as_stored(path)
        return path

    def _parts(
        self, values: dict, audio: bytes | Path, sentences: list[str]
    ) -> list[tuple[str, bytes]]:
        """Cut a story's audio; return each sentence with its own."""
        most = self.max_seconds
        try:
            sound = read_audio(
                audio, dtype=None, max_seconds=most, audible=True
            )
        except BadAudio as error:
            raise ValueError(f"bad audio: {error}") from error
        rate = sound.sample_rate
        seconds = sound.num_samples / rate
        words = self.columns.read_words(values[self.columns.words], seconds)
        cuts = self.columns.cuts(sentences, words)
        starts = [0, *(round(second * rate) for second in cuts)]
        ends = [*starts[1:], sound.num_samples]
        parts = map(_encoded, itertools.repeat(sound), starts, ends)
        return list(zip(sentences, parts, strict=True))


def _distrust(fault: str) -> ValueError:
    return ValueError(f"time stamps: {fault}")


def _is_time(value: Any) -> TypeGuard[float]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0


def _letters(text: str) -> str:
    """Return what two spellings of a word share."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, folded))


def _encoded(sound: Sound, start: int, end: int) -> bytes:
    """Write samples to a file in memory, losing nothing."""
    file = io.BytesIO()
    subtype = sound.subtype if sound.subtype in EXACT else "FLOAT"
    # FLAC has half the size, but no floats.
    kind = "FLAC" if subtype in ("PCM_16", "PCM_24") else "WAV"
    assert sound.samples is not None
    part = sound.samples[start:end]
    soundfile.write(file, part, sound.sample_rate, subtype, format=kind)
    return file.getvalue()
