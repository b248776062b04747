"""Stories of Parquet files, JSON lines and data sets of a hub.

A row is a story; its columns are named by the user, a language each.
"""

from dataclasses import dataclass

from speechbrain_slm.stories.sources import RawStory, list_files
from speechbrain_slm.utils.columns import check_columns
from speechbrain_slm.utils.user_tables import as_text, iterate_rows


@dataclass(frozen=True)
class _Rows:
    """What sources have in common whose stories are rows with named columns.

    Arguments
    ---------
    columns : dict
        language -> column: text, or a list of sentences. Where there are
        several languages, each needs lists.
    name : str
        Of the source.
    id_column : str, optional
        Names a story, as it stands there; without it, its text does.
    """

    columns: dict
    name: str
    id_column: str | None = None

    @property
    def languages(self):
        """The languages of the columns."""
        return tuple(self.columns)

    @property
    def _wanted(self):
        ids = [] if self.id_column is None else [self.id_column]
        return [*ids, *self.columns.values()]

    def _read(self, paths, kind, what):
        for path in list_files(paths, f"*{kind}", what):
            for number, values, fault in iterate_rows(
                path, self._wanted, kind=kind
            ):
                place = f"{path.name}, row {number}"
                yield self._story(values, place, fault)

    def _story(self, row, place, fault=""):
        texts = {key: row.get(name) for key, name in self.columns.items()}
        story_id = None
        if self.id_column and not fault:
            try:
                story_id = as_text(row.get(self.id_column)) or None
            except ValueError as error:
                fault = f"{self.id_column}: {error}"
        return RawStory(story_id, texts, place, fault)


@dataclass(frozen=True)
class ParquetStories(_Rows):
    """Parquet files with a row a story, read some rows at a time.

    Arguments
    ---------
    paths : str, Path or list
        Files, or folders with ``*.parquet``.
    """

    paths: object = ()

    def __iter__(self):
        yield from self._read(self.paths, ".parquet", "a Parquet file")


@dataclass(frozen=True)
class JSONLines(_Rows):
    """Files with a JSON object a line, as of parallel sentences made elsewhere.

    ``{"story_id": "s1", "en": ["Hi.", "Bye."], "fr": ["Salut.", "Adieu."]}``

    Arguments
    ---------
    paths : str, Path or list
        Files, or folders with ``*.jsonl``.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.jsonl"
    >>> _ = path.write_text('{"en": ["Hi.", "Bye."], "fr": ["Ah.", "Oh."]}')
    >>> source = JSONLines({"en": "en", "fr": "fr"}, "mine", paths=path)
    >>> [story.texts["fr"] for story in source]
    [['Ah.', 'Oh.']]
    """

    paths: object = ()

    def __iter__(self):
        yield from self._read(self.paths, ".jsonl", "a file of JSON lines")


@dataclass(frozen=True)
class HubStories(_Rows):
    """A data set of the Hugging Face hub (or a folder of that form), streamed.

    Arguments
    ---------
    dataset : str
        Its name, such as ``roneneldan/TinyStories``, or a local folder.
    split : str
        Of the data set.
    config : str, optional
        Where it has several.
    revision : str, optional
        A commit or tag, so that it stays the same.
    """

    dataset: str = ""
    split: str = "train"
    config: str | None = None
    revision: str | None = None

    def __iter__(self):
        try:
            import datasets
        except ImportError:
            raise ImportError(
                f"{self.dataset}: reading a hub data set needs the package "
                "'datasets': pip install datasets. Or fetch its Parquet files "
                "and use ParquetStories."
            ) from None
        try:
            rows = datasets.load_dataset(
                self.dataset,
                self.config,
                split=self.split,
                revision=self.revision,
                streaming=True,
            )
        except OSError as error:
            raise OSError(
                f"{self.dataset} cannot be read from the hub ({error}). Fetch "
                "it where there is a network (hf download --repo-type dataset "
                f"{self.dataset} --local-dir <folder>), and use ParquetStories."
            ) from error
        for number, row in enumerate(rows):
            if not number:
                check_columns(self.dataset, row, self._wanted)
            place = f"{self.dataset}/{self.split}, row {number}"
            yield self._story(row, place)
