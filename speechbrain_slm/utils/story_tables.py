"""Stories tables that recipes make, and the manifests that list them.

A manifest of stories that change is withdrawn before they do: whenever a run
is killed, the manifests that are there fit the text and the items.
"""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from speechbrain_slm.utils.ownership import mark_of, refuse_foreign, withdraw
from speechbrain_slm.utils.tables import STORIES_KEY, read_table, write_table

ITEMS_FILE = "items.parquet"
# Of the manifests of the synthesis: what is removed or replaced carries it.
MARK = "synthesis"


def write_stories(
    output_folder: str | Path, tables: dict, items: pa.Table, maker: str
) -> dict:
    """Write the stories tables and the items of a recipe.

    Arguments
    ---------
    output_folder
        Gets ``text/<split>.parquet`` and ``items.parquet``. Loses the
        manifest ``<split>.parquet`` of a split whose stories change.
    tables : Split -> stories table (pyarrow.Table).
    maker : Who writes them: its mark.

    Returns
    -------
    Split -> path.

    Raises
    ------
    FileExistsError
        If a table, the items or a manifest is in the way that another made.
        Nothing is changed then.
    """
    refuse_others(output_folder, tables, maker)
    paths, manifests, file = _places(output_folder, tables)
    for split, table in tables.items():
        if not _is_there(paths[split], table):
            withdraw([manifests[split]], MARK)
        write_table(paths[split], table.replace_schema_metadata(mark_of(maker)))
    write_table(file, items.replace_schema_metadata(mark_of(maker)))
    return paths


def refuse_others(
    output_folder: str | Path, splits: Iterable[str], maker: str
) -> None:
    """Refuse to write where another's tables, items or manifests stand.

    Arguments
    ---------
    maker : Who would write them: its mark.

    Raises
    ------
    FileExistsError
        Names the first.
    """
    paths, manifests, file = _places(output_folder, splits)
    refuse_foreign([*paths.values(), file], maker, damaged=True)
    refuse_foreign(manifests.values(), MARK)


def _places(folder, splits):
    folder = Path(folder)
    paths = {split: folder / "text" / f"{split}.parquet" for split in splits}
    manifests = {split: folder / f"{split}.parquet" for split in splits}
    return paths, manifests, folder / ITEMS_FILE


def _is_there(path, table):
    try:
        return read_table(path, table.schema, STORIES_KEY).equals(table)
    except (FileNotFoundError, ValueError):
        return False
