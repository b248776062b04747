"""Where stories come from: text files, tables, a hub, the bundled grammar.

A source is an iterable of `RawStory`, read as it is asked for: memory does not
grow with a corpus. Nothing is cleaned here; see ``cleaning``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, NoReturn, Protocol

from speechbrain_slm.stories.grammar.grammar import StoryGrammar
from speechbrain_slm.utils import files
from speechbrain_slm.utils.columns import check_columns
from speechbrain_slm.utils.user_tables import as_text, iterate_rows

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


def _named(paths: Paths, pattern: str, kind: str) -> list[tuple[Path, Path]]:
    """List files, each with the folder that was named, or itself.

    A folder stands for those in it, at any depth, that match.
    """
    found = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        path = files.as_stored(path)
        inside = files.files_in(path, pattern) if path.is_dir() else [path]
        if not inside or not inside[0].exists():
            there = "a folder without any" if path.is_dir() else "nothing"
            raise FileNotFoundError(
                f"{path}: expected {kind}, or a folder with {pattern}; found "
                f"{there}"
            )
        found += [(one, path) for one in inside]
    return found


def _list_files(paths: Paths, pattern: str, kind: str) -> list[Path]:
    found = _named(paths, pattern, kind)
    return [files.check_file(path, kind) for path, _ in found]


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
        for path in _list_files(self.paths, "*.txt", kind):
            for number, text in enumerate(self._stories(path), start=1):
                place = f"{path.name}:{number}"
                yield RawStory(None, {self.language: text}, place)

    def _stories(self, path: Path) -> Iterator[str]:
        rest, separated = "", False
        files.refuse_wide(path)
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
        kind = "a text file of one story"
        for path, folder in _named(self.paths, self.pattern, kind):
            text = ""
            # An empty file is a story, left out by cleaning. But what the
            # system makes up has no size either, and may have no end.
            if not path.is_file() or path.stat().st_size:
                files.refuse_wide(files.check_file(path, kind))
                text = path.read_text("utf-8-sig", errors="replace")
            place = path.relative_to(folder if path != folder else path.parent)
            yield RawStory(None, {self.language: text}, place.as_posix())


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


@dataclass(frozen=True)
class _Rows:
    """Stories that are rows with named columns."""

    # language -> its column: text, or a list of sentences; where there are
    # several languages, each needs lists.
    columns: dict[str, str]
    name: str
    # Names a story, as it stands there; without it, its text does.
    id_column: str | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the columns."""
        return tuple(self.columns)

    @property
    def _wanted(self) -> list[str]:
        named = [self.id_column] if self.id_column else []
        return [*named, *self.columns.values()]

    def _story(self, row: dict, place: str, fault: str = "") -> RawStory:
        texts = {key: row.get(name) for key, name in self.columns.items()}
        story_id = None
        if self.id_column and not fault:
            try:
                story_id = as_text(row.get(self.id_column)) or None
            except ValueError as error:
                fault = f"{self.id_column}: {error}"
        return RawStory(story_id, texts, place, fault)


@dataclass(frozen=True)
class _Tables(_Rows):
    paths: Paths = ()
    _kind: ClassVar[str]

    def __iter__(self) -> Iterator[RawStory]:
        kind, what = self._kind, f"a {self._kind} file with a row a story"
        for path in _list_files(self.paths, f"*{kind}", what):
            for number, row, fault in iterate_rows(
                path, self._wanted, kind=kind
            ):
                yield self._story(row, f"{path.name}, row {number}", fault)


@dataclass(frozen=True)
class ParquetStories(_Tables):
    """Parquet files with a row a story, or folders with ``*.parquet``."""

    _kind = ".parquet"


@dataclass(frozen=True)
class JSONLines(_Tables):
    """Files with a JSON object a line, or folders with ``*.jsonl``.

    Parallel sentences made elsewhere may come so:
    ``{"story_id": "s1", "en": ["Hi.", "Bye."], "fr": ["Salut.", "Adieu."]}``

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.jsonl"
    >>> _ = path.write_text('{"en": ["Hi.", "Bye."], "fr": ["Ah.", "Oh."]}')
    >>> source = JSONLines({"en": "en", "fr": "fr"}, "mine", paths=path)
    >>> [story.texts["fr"] for story in source]
    [['Ah.', 'Oh.']]
    """

    _kind = ".jsonl"


@dataclass(frozen=True)
class HubStories(_Rows):
    """A data set of the Hugging Face hub, or a folder of that form."""

    dataset: str = ""  # such as roneneldan/TinyStories, or a local folder
    split: str = "train"
    config: str | None = None
    revision: str | None = None  # a commit or tag, so that it stays the same

    def __iter__(self) -> Iterator[RawStory]:
        try:
            import datasets
        except ImportError:
            raise ImportError(
                f"{self.dataset} needs the package 'datasets': pip install "
                "datasets. Or fetch its Parquet files and use ParquetStories."
            ) from None
        try:
            options = {"split": self.split, "revision": self.revision}
            rows = datasets.load_dataset(
                self.dataset, self.config, streaming=True, **options
            )
        except OSError as error:
            raise OSError(
                f"{self.dataset} cannot be read ({error}). Fetch it where a "
                f"network is (hf download --repo-type dataset {self.dataset} "
                "--local-dir <folder>), and use ParquetStories."
            ) from error
        for number, row in enumerate(rows):
            # A stream knows its columns by its first row alone.
            if not number:
                check_columns(self.dataset, row, self._wanted)
            place = f"{self.dataset}/{self.split}, row {number}"
            yield self._story(row, place)
