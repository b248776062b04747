"""Where a spoken corpus comes from: tables, or folders of recordings."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from speechbrain_slm.speech.imported.recordings import recording_rows
from speechbrain_slm.utils.table_parts import Part, row_parts, table_parts

_KEYS = ("folders", "stories", "speaker", "table")  # of folders of recordings
# A file, a folder, a dataset of the hub, or folders of recordings.
Source = str | Path | Mapping


def iterate_parts(
    source: Source, rows: int, columns: list[str]
) -> Iterator[Part]:
    """Yield the parts of a source, in order.

    Arguments are those of :func:`table_parts`; ``source`` may also be what
    :func:`recording_rows` takes.
    """
    if not isinstance(source, Mapping):
        yield from table_parts(source, rows, columns)
        return
    if not all(map(source.get, _KEYS[:2])) or source.keys() - set(_KEYS):
        raise ValueError(
            f"sources: found {dict(source)}; expected a mapping with the "
            "keys folders and stories, and no others but speaker and table"
        )
    found = recording_rows(**source)
    yield from row_parts("", str(dict(source["folders"])), None, found, rows)
