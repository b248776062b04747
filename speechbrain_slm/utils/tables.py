"""The tables that stages hand to each other: stories, manifest, items.

Each is a Parquet file, or (manifest, items) a CSV file, and is checked where
it is read: columns, their types, missing values and keys that stand twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.utils import columns
from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.files import check_file
from speechbrain_slm.utils.ownership import mark_of, refuse_foreign, withdraw

# A story's text, one row a sentence and one text column a language.
STORIES = pa.schema([("story_id", pa.string()), ("sentence", pa.int32())])
STORIES_KEY = ("story_id", "sentence")

# One row a spoken sentence. A path is relative to the manifest's folder or
# absolute; several rows may share an audio file.
MANIFEST = pa.schema(
    [
        *STORIES,
        ("language", pa.string()),
        ("speaker", pa.string()),
        ("audio", pa.string()),
        ("num_samples", pa.int64()),
        ("sample_rate", pa.int32()),
        ("sha256", pa.string()),
    ]
)
MANIFEST_KEY = ("story_id", "sentence", "language")

# One row a comparison; prompt, right and wrong are story_id values of a unit
# store, each looked up in its language. An empty prompt is none.
ITEMS_KEY = ("item_id", "benchmark", "prompt_language", "ending_language")
_STORIES = ("prompt", "right", "wrong")
ITEMS = pa.schema([(name, pa.string()) for name in (*ITEMS_KEY, *_STORIES)])
ITEMS_EMPTY = ("prompt",)
# Columns of text that it may have.
ITEMS_OPTIONAL = ("group", "subset")

ITEMS_FILE = "items.parquet"
# Of the manifests of the synthesis: what is removed or replaced carries it.
MARK = "synthesis"
# Of the tables that a stage writes.
WRITTEN = "Run the stage that writes it first."


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write a Parquet file, all of it or nothing."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(
    path: str | Path,
    schema: pa.Schema,
    key: Sequence[str],
    may_be_empty: Sequence[str] = (),
    optional: Sequence[str] = (),
    advice: str = WRITTEN,
) -> pa.Table:
    """Read a table; ValueError names the file, the column and the row.

    That is if the file is damaged, a column is missing, of a wrong type or has
    holes (empty strings are such), or a key stands twice.

    Arguments
    ---------
    path : A ``.parquet`` or ``.csv`` file.
    schema : The columns that must be there. They come first; others are kept.
    key : The columns that name a row; no two rows may agree in all of them.
    may_be_empty : String columns that may have holes, which are read as ``""``.
    optional : Further such columns, which may be absent.
    advice : What to do where there is no such file.
    """
    path = Path(path)
    expected = f"a table with the columns {', '.join(schema.names)}"
    try:
        path = check_file(path, expected)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. {advice}".strip()) from None
    table = _read(path)
    columns.check_columns(path, table.column_names, schema.names)
    further = [name for name in optional if name in table.column_names]
    may_be_empty = [*may_be_empty, *further]
    # Text that looks like numbers is text, see ``as_type``: 01 is not 1.
    for field in [*schema, *(pa.field(name, pa.string()) for name in further)]:
        column = columns.as_type(path, field, table.column(field.name))
        holes = pc.is_null(column)
        if pa.types.is_string(field.type):
            column = pc.fill_null(column, "")
            holes = pc.equal(column, "")
        row = pc.index(holes, True).as_py()
        if row >= 0 and field.name not in may_be_empty:
            hole = f"{path}, row {row}: column '{field.name}' is empty"
            raise ValueError(f"{hole}; every row needs a value")
        position = table.column_names.index(field.name)
        table = table.set_column(position, field, column)
    _refuse_twice(path, table, list(key))
    # The schema's columns come first, so that a table can be written as it is.
    others = [name for name in table.column_names if name not in schema.names]
    return table.select(schema.names + others)


def read_items(path: str | Path) -> tuple[pa.Table, list[set[str]]]:
    """Read a table of items, and the stories that each names."""
    items = read_table(path, ITEMS, ITEMS_KEY, ITEMS_EMPTY)
    names = zip(*(items[name].to_pylist() for name in _STORIES), strict=True)
    # An item without a prompt names none.
    return items, [{*stories} - {""} for stories in names]


def _read(path):
    if path.suffix == ".csv":
        with columns.open_csv(path) as reader:
            return reader.read_all()
    if path.suffix != ".parquet":
        raise ValueError(
            f"{path}: expected a .parquet or a .csv file, found '{path.suffix}'"
        )
    with columns.open_parquet(path) as file:
        return file.read()


def _refuse_twice(path, table, key):
    counts = table.select(key).group_by(key).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1))
    if len(twice):
        first = {name: twice[name][0].as_py() for name in key}
        raise ValueError(
            f"{path}: {len(twice)} key(s) stand more than once, first {first}; "
            f"expected one row for each ({', '.join(key)})"
        )


def check_matched(
    path: str | Path, table: pa.Table, languages: Sequence[str]
) -> None:
    """Refuse a manifest whose stories are not matched across languages.

    It is empty, holds a language that the run does not know, a story whose
    sentences are not numbered 0, 1, 2, ..., or more of them in one language.
    """
    if not len(table):
        raise ValueError(f"{path}: no rows; expected a spoken sentence or more")
    found = set(pc.unique(table["language"]).to_pylist())
    if unknown := sorted(found - set(languages)):
        raise ValueError(
            f"{path}: unknown language(s) {', '.join(unknown)}; expected "
            f"{', '.join(languages)}. Add it to 'languages' or drop its rows."
        )
    counts = table.group_by(["story_id", "language"]).aggregate(
        [("sentence", "count"), ("sentence", "min"), ("sentence", "max")]
    )
    # No sentence stands twice (the key), so that first, last and count tell
    # whether one is missing between.
    count, last = pc.field("sentence_count"), pc.field("sentence_max")
    wrong = (pc.field("sentence_min") != 0) | (last != count - 1)
    for row in counts.filter(wrong).slice(0, 1).to_pylist():
        raise ValueError(
            f"{path}: story '{row['story_id']}' has {row['sentence_count']} "
            f"sentence(s) in '{row['language']}', numbered from "
            f"{row['sentence_min']} to {row['sentence_max']}; expected "
            "0, 1, 2, ... without a gap"
        )
    spread = counts.group_by("story_id").aggregate(
        [("sentence_count", "min"), ("sentence_count", "max")]
    )
    least, most = (pc.field(f"sentence_count_{end}") for end in ("min", "max"))
    uneven = spread.filter(least != most)
    for row in uneven.slice(0, 1).to_pylist():
        raise ValueError(
            f"{path}: story '{row['story_id']}' has "
            f"{row['sentence_count_min']} sentence(s) in one language and "
            f"{row['sentence_count_max']} in another ({len(uneven)} such "
            "stories); expected as many in each. Match it again, or drop it."
        )


def story_rows(
    story_id: str, texts: Mapping[str, Sequence[str]], **others: object
) -> list[dict]:
    """Return a story (language -> sentences) as rows, one a sentence.

    Each of them has the columns ``others``, too.

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


def stories_table(rows: list[dict], names: Iterable[str]) -> pa.Table:
    """Make a stories table with further columns of text."""
    fields = [*STORIES, *(pa.field(name, pa.string()) for name in names)]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def write_stories(
    output_folder: str | Path,
    tables: Mapping[str, pa.Table],
    items: pa.Table,
    maker: str,
) -> dict[str, Path]:
    """Write a recipe's stories tables, ``text/<split>.parquet``, and its items.

    They carry the mark of their ``maker``. The manifest ``<split>.parquet`` of
    a split whose stories change is withdrawn first: whenever a run is killed,
    the manifests that are there fit the text and the items.
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
    """Refuse to write where another's tables, items or manifests stand."""
    folder, names = Path(output_folder), [f"{one}.parquet" for one in splits]
    ours = [*(folder / "text" / name for name in names), folder / ITEMS_FILE]
    refuse_foreign(ours, maker, damaged=True)
    refuse_foreign([folder / name for name in names], MARK)


def _is_there(path, table):
    try:
        return read_table(path, table.schema, STORIES_KEY).equals(table)
    except (FileNotFoundError, ValueError):
        return False


def markdown_row(cells: Iterable[str]) -> str:
    r"""Write a row of a table in Markdown, of what may be somebody else's.

    Nothing in a cell can end it, or be a tag of HTML.

    Example
    -------
    >>> markdown_row(["a|b", "<i>", "two\nlines"])
    '| a\\|b | &lt;i> | two lines |'
    """
    escaped = (
        " ".join(cell.split()).replace("|", r"\|").replace("<", "&lt;")
        for cell in cells
    )
    return f"| {' | '.join(escaped)} |"
