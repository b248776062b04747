"""Stories of Parquet files, JSON lines and data sets of a hub.

A row is a story; its columns are named by the user, a language each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from speechbrain_slm.stories.sources import Paths, RawStory, list_files
from speechbrain_slm.utils.columns import check_columns
from speechbrain_slm.utils.user_tables import as_text, iterate_rows


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
        names = [self.id_column, *self.columns.values()]
        return [name for name in names if name is not None]

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
    _kind: ClassVar[tuple[str, str]]

    def __iter__(self) -> Iterator[RawStory]:
        suffix, what = self._kind
        for path in list_files(self.paths, f"*{suffix}", what):
            for row in iterate_rows(path, self._wanted, kind=suffix):
                place = f"{path.name}, row {row.number}"
                yield self._story(row.values, place, row.fault)


@dataclass(frozen=True)
class ParquetStories(_Tables):
    """Parquet files with a row a story, or folders with ``*.parquet``."""

    _kind = (".parquet", "a Parquet file")


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

    _kind = (".jsonl", "a file of JSON lines")


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
