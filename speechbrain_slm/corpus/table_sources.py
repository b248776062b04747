"""Stories of Parquet files, JSON lines and data sets of a hub.

A row is a story; its columns are named by the user, a language each.
"""

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from speechbrain_slm.corpus.sources import RawStory, list_files

ROWS = 1024  # read at a time


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
        Names a story; without it, its text does.
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

    def _story(self, row, place):
        story_id = row.get(self.id_column) if self.id_column else None
        texts = {key: row.get(name) for key, name in self.columns.items()}
        named = None if story_id is None else f"{self.name}-{story_id}"
        return RawStory(named, texts, place)

    def _check(self, where, found):
        missing = [name for name in self._wanted if name not in found]
        if missing:
            raise ValueError(
                f"{where}: no column {', '.join(missing)}; found "
                f"{', '.join(found)}. Mend 'columns' or 'id_column'."
            )


@dataclass(frozen=True)
class ParquetStories(_Rows):
    """Parquet files with a row a story, read a row group at a time.

    Arguments
    ---------
    paths : str, Path or list
        Files, or folders with ``*.parquet``.
    """

    paths: object = ()

    def __iter__(self):
        for path in list_files(self.paths, "*.parquet", "a Parquet file"):
            try:
                with pq.ParquetFile(path) as file:
                    self._check(path, file.schema_arrow.names)
                    number = 0
                    for batch in file.iter_batches(ROWS, columns=self._wanted):
                        for row in batch.to_pylist():
                            number += 1
                            yield self._story(row, f"{path.name}:{number}")
            except pa.ArrowException as error:
                raise ValueError(
                    f"{path} cannot be read as Parquet: {error}. Fetch it "
                    "again."
                ) from error


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
        for path in list_files(self.paths, "*.jsonl", "a file of JSON lines"):
            with open(path, encoding="utf-8-sig", errors="replace") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        row = self._parse(line, f"{path}:{number}")
                        yield self._story(row, f"{path.name}:{number}")

    @staticmethod
    def _parse(line, where):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{where} is not JSON: {error}; expected one object a line"
            ) from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{where} is no JSON object; expected text or lists of "
                "sentences by name"
            )
        return row


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
        for number, row in enumerate(rows, start=1):
            if number == 1:
                self._check(self.dataset, list(row))
            yield self._story(row, f"{self.dataset}/{self.split}:{number}")
