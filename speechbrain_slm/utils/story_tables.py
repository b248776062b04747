"""Stories tables that recipes make, and the manifests that list them.

A manifest of stories that change is withdrawn before they do: whenever a run
is killed, the manifests that are there fit the text and the items.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from speechbrain_slm.utils.ownership import mark_of, refuse_foreign, withdraw
from speechbrain_slm.utils.tables import (
    STORIES,
    STORIES_KEY,
    read_table,
    write_table,
)

ITEMS_FILE = "items.parquet"
# Of the manifests of the synthesis: what is removed or replaced carries it.
MARK = "synthesis"


def story_rows(
    story_id: str, texts: Mapping[str, Sequence[str]], **others: object
) -> list[dict]:
    """Return a story as rows, one a sentence.

    Arguments
    ---------
    texts : Language -> sentences, as many in each.
    **others : Further columns, the same in each row.

    Example
    -------
    >>> story_rows("a", {"en": ["Hi.", "Bye."], "fr": ["Salut.", "Adieu."]})[1]
    {'story_id': 'a', 'sentence': 1, 'en': 'Bye.', 'fr': 'Adieu.'}
    """
    matched = zip(*texts.values(), strict=True)
    return [
        {"story_id": story_id, "sentence": number, **others}
        | dict(zip(texts, sentences, strict=True))
        for number, sentences in enumerate(matched)
    ]


def stories_table(rows: list[dict], columns: Iterable[str]) -> pa.Table:
    """Make a stories table with further columns of text."""
    fields = [*STORIES, *(pa.field(name, pa.string()) for name in columns)]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def write_stories(
    output_folder: str | Path,
    tables: Mapping[str, pa.Table],
    items: pa.Table,
    maker: str,
) -> dict[str, Path]:
    """Write the stories tables (by split) and the items of a recipe.

    FileExistsError, and nothing is changed, if a table, the items or a manifest
    is in the way that another made.

    Arguments
    ---------
    output_folder
        Gets ``text/<split>.parquet``, which are returned, and
        ``items.parquet``. Loses the manifest ``<split>.parquet`` of a split
        whose stories change.
    maker : Who writes them: its mark.
    """
    refuse_others(output_folder, tables, maker)
    folder, mark, paths = Path(output_folder), mark_of(maker), {}
    for split, table in tables.items():
        path = paths[split] = folder / "text" / f"{split}.parquet"
        # A manifest of the same stories stays: they need not be spoken again.
        if not _is_there(path, table):
            withdraw([folder / f"{split}.parquet"], MARK)
        write_table(path, table.replace_schema_metadata(mark))
    write_table(folder / ITEMS_FILE, items.replace_schema_metadata(mark))
    return paths


def refuse_others(
    output_folder: str | Path, splits: Iterable[str], maker: str
) -> None:
    """Refuse to write where another's tables, items or manifests stand.

    FileExistsError, which names the first.
    """
    folder, names = Path(output_folder), [f"{one}.parquet" for one in splits]
    ours = [*(folder / "text" / name for name in names), folder / ITEMS_FILE]
    refuse_foreign(ours, maker, damaged=True)
    refuse_foreign([folder / name for name in names], MARK)


def _is_there(path, table):
    try:
        return read_table(path, table.schema, STORIES_KEY).equals(table)
    except (FileNotFoundError, ValueError):
        return False
