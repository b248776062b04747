"""Folders of recordings, a folder a language: the rows of a spoken corpus.

Recordings of one name say the same: ``en/tale/03.wav`` and ``fr/tale/03.flac``
are sentence ``tale/03`` in two languages. Which of them make a story is said in
one of three ways.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from speechbrain_slm.utils.files import files_in
from speechbrain_slm.utils.user_tables import Row, iterate_rows

KINDS = frozenset(
    f".{kind}"
    for kind in (
        *("aif", "aifc", "aiff", "au", "caf", "flac", "m4a", "mp3", "oga"),
        *("ogg", "opus", "snd", "w64", "wav", "webm"),
    )
)
# Of the rows, as arguments of ``spoken_rows.Columns``.
COLUMNS = {
    "story": "story_id",
    "sentence": "sentence",
    "language": "language",
    "speaker": "speaker",
    "audio": "audio",
}
_DIGITS = re.compile(r"(\d+)")


def recording_rows(
    folders: dict,
    stories: int | str,
    speaker: str | dict | None = None,
    table: str | Path | None = None,
) -> Iterator[Row]:
    """List the rows of folders of recordings.

    Arguments
    ---------
    folders
        Language -> folder. Two recordings are the same sentence if their
        paths in their folders are equal but for the suffix.
    stories
        A number N: a story is N recordings of a folder, one after the other
        by name (numbers in names count as numbers). ``folder``: all of a
        folder inside are one story. Else: the column of ``table`` that names
        the story.
    speaker
        Who speaks, or language -> who. By default the speaker is ``unknown``.
    table
        For stories by a column: a table with the columns ``name`` (a
        recording's path without its suffix) and that one, in the order of the
        sentences.

    Yields
    ------
    ``story_id, sentence, language, speaker, audio``.

    Raises
    ------
    FileNotFoundError
        If a folder is missing or holds no recording.
    ValueError
        If ``stories`` is none of the three, or a name stands twice.
    """
    names = {
        language: _recordings(language, folder)
        for language, folder in folders.items()
    }
    every = sorted({name for one in names.values() for name in one}, key=_key)
    numbers = itertools.count()
    for story, members in _stories(every, stories, table):
        for sentence, name in enumerate(members):
            for language, found in names.items():
                # What one language lacks is told by the row of the others.
                if name in found:
                    values = {
                        "story_id": story,
                        "sentence": sentence,
                        "language": language,
                        "speaker": _speaker(speaker, language),
                        "audio": str(found[name]),
                    }
                    yield Row(next(numbers), values)


def _speaker(speaker, language):
    if isinstance(speaker, dict):
        return speaker[language]
    return speaker or "unknown"


def _key(name):
    """Sort ``2`` before ``10``."""
    parts = _DIGITS.split(name)
    return [
        (int(part), part) if number % 2 else (0, part)
        for number, part in enumerate(parts)
    ]


def _recordings(language, folder):
    folder, found = Path(folder), {}
    for path in files_in(folder):
        if path.suffix.lower() not in KINDS:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise ValueError(
                f"{folder} ('{language}') holds {found[name].name} and "
                f"{path.name}; expected one recording of a name"
            )
        found[name] = path.absolute()
    if not found:
        raise FileNotFoundError(
            f"{folder} ('{language}') holds no recording; expected a folder "
            f"with files of {', '.join(sorted(KINDS))}"
        )
    return found


def _stories(names, stories, table):
    """Yield a story's name and the names of its recordings, in order."""
    if table is not None:
        found, seen = {}, set()
        for number, values, fault in iterate_rows(table, ["name", stories]):
            name = str(values.get("name") or "")
            if fault or not name or not values[stories] or name in seen:
                raise ValueError(
                    f"{table}, row {number}: {fault or values}; expected the "
                    f"name of a recording, which no other row has, and its "
                    f"{stories}"
                )
            seen.add(name)
            found.setdefault(str(values[stories]), []).append(name)
        if unknown := sorted(set(names) - seen):
            raise ValueError(
                f"{table} lacks {len(unknown)} of {len(names)} recordings, "
                f"{unknown[0]} the first; expected a row for each"
            )
        yield from found.items()
        return
    by_folder = {}
    for name in names:
        by_folder.setdefault(name.rpartition("/")[0], []).append(name)
    if stories == "folder":
        if "" in by_folder:
            raise ValueError(
                f"stories is 'folder', but {by_folder[''][0]} stands in none; "
                "expected a folder a story inside the folder of a language"
            )
        yield from by_folder.items()
        return
    if not isinstance(stories, int) or stories < 2:
        raise ValueError(
            f"stories is {stories!r}; expected how many recordings make one "
            "(2 or more), 'folder', or the column of a table"
        )
    for folder, members in by_folder.items():
        for number, start in enumerate(range(0, len(members), stories)):
            name = f"{number:06d}"
            yield (
                f"{folder}/{name}" if folder else name,
                members[start : start + stories],
            )
