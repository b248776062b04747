"""Folders of recordings, a folder a language: the rows of a spoken corpus.

Recordings of one name say the same: ``en/tale/03.wav`` and ``fr/tale/03.flac``
are sentence ``tale/03`` in two languages. Which of them make a story is said in
one of three ways.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from speechbrain_slm.speech.imported.rows import Columns
from speechbrain_slm.utils.files import files_in
from speechbrain_slm.utils.user_tables import Row, iterate_rows

_KINDS = "aif aifc aiff au caf flac m4a mp3 oga ogg opus snd w64 wav webm"
KINDS = frozenset(f".{kind}" for kind in _KINDS.split())
COLUMNS = Columns("story_id", "sentence", "audio", "language", "speaker")


def recording_rows(
    folders: dict[str, str],
    stories: int | str,
    speaker: str | dict[str, str] | None = None,
    table: str | Path | None = None,
) -> Iterator[Row]:
    """List the rows of folders of recordings.

    Arguments
    ---------
    folders : Language -> folder.
    stories
        A number N: a story is N recordings of a folder, one after the other
        by name (numbers in names count as numbers). ``folder``: all of a
        folder inside are one story. Else: the column of ``table`` that names
        the story.
    speaker : Who speaks, or language -> who; else ``unknown``.
    table
        For stories by a column: a table with the columns ``name`` (a
        recording's path without its suffix) and that one, in the order of the
        sentences.
    """
    names = {
        language: _recordings(language, Path(folder))
        for language, folder in folders.items()
    }
    every = sorted(set().union(*names.values()), key=_key)
    if table is not None:
        told = _told_by_table(every, str(stories), table)
    else:
        told = _told_by_folders(every, stories)
    numbers = itertools.count()
    for story, members in told.items():
        for sentence, name in enumerate(members):
            # What one language lacks is told by the row of the others.
            there = [language for language in names if name in names[language]]
            for language in there:
                audio, who = str(names[language][name]), speaker
                if isinstance(who, dict):
                    who = who[language]
                values = story, sentence, language, audio, who or "unknown"
                row = dict(zip(COLUMNS.names(), values, strict=True))
                yield Row(next(numbers), row)


def _key(name: str) -> list[tuple[int, str]]:
    # Sorts 2 before 10: "a2b10" is cut into a, 2, b, 10 and "", of which every
    # other one is a number.
    parts = enumerate(re.split(r"(\d+)", name))
    return [(int(part) if n % 2 else 0, part) for n, part in parts]


def _recordings(language: str, folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
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


def _told_by_table(
    names: list[str], column: str, table: str | Path
) -> dict[str, list[str]]:
    """Return the recordings of each story, as a table has them."""
    found, seen = defaultdict(list), set()
    for number, values, fault in iterate_rows(table, ["name", column]):
        name = str(values.get("name") or "")
        if fault or not name or not values[column] or name in seen:
            raise ValueError(
                f"{table}, row {number}: {fault or values}; expected the name "
                f"of a recording, which no other row has, and its {column}"
            )
        seen.add(name)
        found[str(values[column])].append(name)
    if unknown := sorted(set(names) - seen):
        raise ValueError(
            f"{table} lacks {len(unknown)} of {len(names)} recordings, "
            f"{unknown[0]} the first; expected a row for each"
        )
    return found


def _told_by_folders(
    names: list[str], stories: int | str
) -> dict[str, list[str]]:
    """Return the recordings of each story: a folder, or so many of one."""
    folders = defaultdict(list)
    for name in names:
        folders[name.rpartition("/")[0]].append(name)
    if stories == "folder":
        if "" in folders:
            raise ValueError(
                f"stories is 'folder', but {folders[''][0]} stands in none; "
                "expected a folder a story inside the folder of a language"
            )
        return folders
    if not isinstance(stories, int) or stories < 2:
        raise ValueError(
            f"stories is {stories!r}; expected how many recordings make one "
            "(2 or more), 'folder', or the column of a table"
        )
    return {
        f"{folder}/{number:06d}".lstrip("/"): members[start : start + stories]
        for folder, members in folders.items()
        for number, start in enumerate(range(0, len(members), stories))
    }
