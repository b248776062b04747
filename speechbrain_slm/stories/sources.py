"""Where stories come from: text files and the bundled grammar.

A source is an iterable of `RawStory`, read as it is asked for: memory does not
grow with a corpus. It has a ``name``, with which the ids of its stories begin,
and ``languages``. Nothing is cleaned here; see ``cleaning``. Tables and data
sets of a hub: ``table_sources``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol

from speechbrain_slm.stories.grammar.grammar import StoryGrammar
from speechbrain_slm.utils.files import (
    as_stored,
    check_file,
    files_in,
    refuse_wide,
)

END_OF_TEXT = "<|endoftext|>"
# Characters; a file that has no separator in so many is not what it is said
# to be, and would be held in memory.
LONGEST_STORY = 4_000_000
BLOCK = 1 << 20
Paths = str | Path | Iterable[str | Path]


class RawStory(NamedTuple):
    """A story as its source has it."""

    story_id: str | None  # None: it is named by its text
    texts: Mapping[str, object]  # language -> text, list of sentences, or None
    place: str  # a file, and its number from 1; in a table its row, from 0
    fault: str = ""  # why nothing can be read of it


class Source(Protocol):
    """What the text stage asks of a source."""

    @property
    def name(self) -> str:
        """With which the ids of its stories begin."""

    @property
    def languages(self) -> Sequence[str]:
        """Those of each story."""

    def __iter__(self) -> Iterator[RawStory]: ...


def _each(paths: Paths) -> list[Path]:
    named = [paths] if isinstance(paths, str | Path) else paths
    return [as_stored(path) for path in named]


def list_files(paths: Paths, pattern: str, kind: str) -> list[Path]:
    """List files; a folder stands for those in it, at any depth, that match."""
    found = []
    for path in _each(paths):
        inside = files_in(path, pattern) if path.is_dir() else [path]
        if not inside or not inside[0].exists():
            there = "a folder without any" if path.is_dir() else "nothing"
            raise FileNotFoundError(
                f"{path}: expected {kind}, or a folder with {pattern}; found "
                f"{there}"
            )
        found += [check_file(one, kind) for one in inside]
    return found


@dataclass(frozen=True)
class _Texts:
    paths: Paths
    language: str
    name: str

    @property
    def languages(self) -> tuple[str, ...]:
        """The one language."""
        return (self.language,)


@dataclass(frozen=True)
class SeparatedText(_Texts):
    r"""Text files of many stories, as TinyStories is published.

    Bytes that are not UTF-8 are read as U+FFFD, by which cleaning knows them.

    Example
    -------
    >>> path = getfixture("tmp_path") / "stories.txt"
    >>> _ = path.write_text("One.\n\nTwo.\n<|endoftext|>\nThree.\n")
    >>> [story.place for story in SeparatedText(path, "en", "tiny")]
    ['stories.txt:1', 'stories.txt:2']
    """

    separator: str = END_OF_TEXT  # between stories, which may hold line ends

    def __iter__(self) -> Iterator[RawStory]:
        kind = f"a text file of stories with '{self.separator}' between them"
        for path in list_files(self.paths, "*.txt", kind):
            for number, text in enumerate(self._stories(path), start=1):
                place = f"{path.name}:{number}"
                yield RawStory(None, {self.language: text}, place)

    def _stories(self, path: Path) -> Iterator[str]:
        rest, separated = "", False
        refuse_wide(path)
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            while block := file.read(BLOCK):
                # Half a separator at a block's end stays in the rest.
                *whole, rest = (rest + block).split(self.separator)
                separated |= bool(whole)
                yield from whole
                if len(rest) > LONGEST_STORY:
                    self._refuse(path, f"in {LONGEST_STORY:,} characters")
        if not separated:
            self._refuse(path, "in it")
        # A file may end with the separator, or with a story.
        if rest.strip():
            yield rest

    def _refuse(self, path: Path, where: str) -> NoReturn:
        raise ValueError(
            f"{path}: no '{self.separator}' {where}; expected it between "
            "stories. Set 'separator', or use TextFolder for a story a file."
        )


@dataclass(frozen=True)
class TextFolder(_Texts):
    """Text files of one story each, in folders or by name."""

    pattern: str = "*.txt"

    def __iter__(self) -> Iterator[RawStory]:
        # Not `list_files`: an empty file is a story, left out by cleaning.
        for folder in _each(self.paths):
            files = [folder]
            if folder.is_dir() or not folder.exists():
                files = files_in(folder, self.pattern)
            if not files:
                raise FileNotFoundError(
                    f"{folder}: found no {self.pattern}; mend paths or pattern"
                )
            for path in files:
                text = ""
                # What the system makes up has no size, and may have no end.
                if not path.is_file() or path.stat().st_size:
                    refuse_wide(check_file(path, "a text file of one story"))
                    text = path.read_text("utf-8-sig", errors="replace")
                place = path.relative_to(folder).as_posix()
                if path == folder:  # a file that was named: place is "."
                    place = path.name
                yield RawStory(None, {self.language: text}, place)


@dataclass(frozen=True)
class MiniCorpus:
    """Stories of the bundled grammar: sentence i is the same in all languages.

    Example
    -------
    >>> story = next(iter(MiniCorpus(4, ["en", "fr"], seed=1)))
    >>> len(story.texts["en"]) == len(story.texts["fr"])
    True
    """

    num_stories: int  # drawn at once, and held in memory
    languages: Sequence[str] = ("en", "fr")
    seed: int = 0
    name: str = "mini"

    def __iter__(self) -> Iterator[RawStory]:
        stories = StoryGrammar.load().generate(
            self.num_stories, "train", self.seed, self.languages
        )
        for story in stories:
            texts = {key: list(told) for key, told in story.sentences.items()}
            yield RawStory(None, texts, story.story_id)
