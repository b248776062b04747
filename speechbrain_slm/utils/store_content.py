"""What the arrays of a unit store may hold, checked once, when it is opened.

A store that somebody sends may agree with its own sums and still hold what no
writer makes: units beyond the vocabulary, sentences that end in the next story.
Everything here works on whole arrays; none of it copies the units.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ROWS = 1 << 16  # at a time: sentences of so many rows are copied
_ENDS = (
    "has sentences that do not end one after the other, the last with the story"
)


def check_content(
    paths: list[Path], tables: list[pa.Table], info: dict
) -> None:
    """Refuse tables that no writer of unit stores has made.

    ValueError if Arrow finds the arrays broken, a value is missing, a story has
    no sentence, a sentence no unit, sentences do not end in rising order and
    with their story, a unit is outside the vocabulary, a story stands twice in
    a language, or the counts are not those of ``store.json`` (``info``).
    """
    languages = pa.array(sorted(info["counts"]), pa.string())
    for path, table in zip(paths, tables, strict=True):
        for batch in table.to_batches():
            _check_arrays(path, batch)
            found = pc.index_in(batch["language"], languages)
            if found.null_count:
                row = pc.index(pc.is_null(found), True).as_py()
                raise ValueError(
                    f"{path}: {_name(batch, row)} is in no language that "
                    f"store.json counts ({', '.join(info['counts'])})"
                )
            _check_lists(path, batch, info["tokenizer"]["vocabulary_size"])
    if (found := counts_of(tables)) != info["counts"]:
        raise ValueError(
            f"{paths[0].parent}: its files hold {found}, but store.json counts "
            f"{info['counts']}. Extract the units again."
        )
    _refuse_twice(paths[0].parent, tables, languages)


def counts_of(tables: list[pa.Table]) -> dict[str, dict[str, int]]:
    """Count the stories, sentences and units of each language."""
    # Lengths alone: the units stay on the disk.
    lengths = pa.concat_tables(
        pa.table(
            {
                "language": table["language"],
                "sentences": pc.list_value_length(table["sentence_ends"]),
                "units": pc.list_value_length(table["units"]),
            }
        )
        for table in tables
    )
    sums = lengths.group_by("language").aggregate(
        [([], "count_all"), ("sentences", "sum"), ("units", "sum")]
    )
    return {
        row["language"]: {
            "stories": row["count_all"],
            "sentences": row["sentences_sum"],
            "units": row["units_sum"],
        }
        for row in sums.sort_by("language").to_pylist()
    }


def _check_arrays(path, batch):
    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise ValueError(
            f"{path}: its arrays are broken ({error}). Extract the units again."
        ) from error
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        inner = column.values if pa.types.is_list(column.type) else column
        if column.null_count or inner.null_count:
            raise ValueError(
                f"{path}: column '{name}' has {column.null_count} empty rows "
                f"and {inner.null_count} missing values; expected none"
            )


def _check_lists(path, batch, size):
    offsets = batch["units"].offsets.to_numpy()
    values = batch["units"].values.to_numpy()
    # The largest of uint16: nothing is copied.
    if len(values) and values.max() >= size:
        place = int(np.argmax(values >= size))
        row = int(np.searchsorted(offsets, place, "right")) - 1
        raise ValueError(
            f"{path}: {_name(batch, row)} has the unit {values[place]}; "
            f"expected units in [0, {size}), the tokenizer's vocabulary"
        )
    lengths = np.diff(offsets)
    bounds = batch["sentence_ends"].offsets.to_numpy()
    counts = np.diff(bounds)
    _refuse(path, batch, (lengths < 1) | (counts < 1), "has no units")
    ends = batch["sentence_ends"].values.to_numpy()
    for begin in range(0, len(batch), _ROWS):
        rows = slice(begin, min(begin + _ROWS, len(batch)))
        # Ends 3 5 | 2 4 are the lengths 3 2 | 2 2: what a first sentence
        # has before it is of another story.
        first = bounds[rows] - bounds[begin]
        last = first + counts[rows] - 1
        part = ends[bounds[begin] : bounds[begin] + last[-1] + 1]
        part = part.astype(np.int64)
        steps = np.diff(part, prepend=0)
        steps[first] = part[first]
        wrong = np.minimum.reduceat(steps, first) < 1
        wrong |= part[last] != lengths[rows]
        _refuse(path, batch, wrong, _ENDS, begin)


def _refuse(path, batch, wrong, what, begin=0):
    if wrong.any():
        row = begin + int(wrong.argmax())
        raise ValueError(
            f"{path}: {_name(batch, row)} {what}. Extract the units again."
        )


def _name(batch, row):
    return f"story '{batch['story_id'][row]}' in '{batch['language'][row]}'"


def _refuse_twice(folder, tables, languages):
    names, spoken = (
        pa.chunked_array([c for t in tables for c in t[name].chunks])
        for name in ("story_id", "language")
    )
    # A number for each name, in all files: no string is compared twice.
    encoded = names.dictionary_encode().chunks
    story = np.concatenate([chunk.indices.to_numpy() for chunk in encoded])
    code = pc.index_in(spoken, languages).to_numpy()
    key = story.astype(np.int64) * len(languages) + code
    twice = np.bincount(key) > 1
    if twice.any():
        row = int(np.argmax(key == int(twice.argmax())))
        raise ValueError(
            f"{folder}: {np.count_nonzero(twice)} (story, language) pair(s) "
            f"stand more than once, first '{names[row]}' in '{spoken[row]}'; "
            "expected one row each"
        )
