"""Cloze items from files: StoryCloze, XStoryCloze, JSON lines, stories.

======== ==============================================================
file     content
======== ==============================================================
.csv     StoryCloze, spring 2016 and winter 2018: ``InputStoryid``,
         ``InputSentence1`` to ``InputSentence4``,
         ``RandomFifthSentenceQuiz1``, ``RandomFifthSentenceQuiz2`` and
         ``AnswerRightEnding`` (1 or 2)
.tsv     XStoryCloze: the same columns
.jsonl   ``{"id": ..., "prompt": [sentences], "right": ..., "wrong": ...}``
.parquet a stories table: an item is a story whose last two sentences are
         the right and the wrong ending (see ``whole_table``)
======== ==============================================================

A file holds one language, but for the stories table, which holds them all.
"""

import csv
import json
from pathlib import Path

from speechbrain_slm.corpus.cloze.items import ClozeItem
from speechbrain_slm.utils.tables import STORIES, STORIES_KEY, read_table

_ID = "InputStoryid"
_PROMPT = [f"InputSentence{number}" for number in range(1, 5)]
_ENDINGS = ["RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2"]
_ANSWER = "AnswerRightEnding"
_COLUMNS = [_ID, *_PROMPT, *_ENDINGS, _ANSWER]
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_cloze(files):
    """Read the items of a benchmark and align their languages.

    An item that a language lacks, or with an empty sentence in one, is left
    out in all, with a line in the ledger.

    Arguments
    ---------
    files : dict
        Language -> path. The languages of a ``.parquet`` file name the same
        path.

    Returns
    -------
    items : list of ClozeItem
        In the order of the first language.
    ledger : list of dict
        What was left out: ``story_id``, ``language``, ``action``, ``reason``.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ValueError
        If a file cannot be read, an item stands twice, or the languages of an
        item disagree in its number of sentences or in its right ending. Names
        the file, the row or the item, and what was expected.

    Example
    -------
    >>> path = getfixture("tmp_path") / "de.jsonl"
    >>> row = '{"id": "a", "prompt": ["Es war kalt."], '
    >>> row += '"right": "Er fror.", "wrong": "Er schwitzte."}'
    >>> _ = path.write_text(row)
    >>> items, ledger = read_cloze({"de": path})
    >>> items[0].right, ledger
    ({'de': 'Er fror.'}, [])
    """
    if not files:
        raise ValueError("files: found none; expected language -> path")
    read = {}
    for language, path in files.items():
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} ('{language}') does not exist")
        read[language] = _read(path, language)
    first = next(iter(read))
    names = dict.fromkeys(name for one in read.values() for name in one)
    items, ledger = [], []
    for name in names:
        if entry := _fault(name, read):
            ledger.append(entry)
            continue
        one = {language: rows[name] for language, rows in read.items()}
        for language, (prompt, *_, answer) in one.items():
            expected = len(one[first][0]), one[first][-1]
            if (len(prompt), answer) != expected:
                raise ValueError(
                    f"{files[language]}: item '{name}' has {len(prompt)} "
                    f"sentences and right ending {answer}; expected "
                    f"{expected[0]} and {expected[1]} as in {files[first]}"
                )
        parts = (
            {language: row[part] for language, row in one.items()}
            for part in range(3)
        )
        items.append(ClozeItem(name, *parts))
    return items, ledger


def _fault(name, read):
    """Tell why an item is left out, or None."""
    for language, rows in read.items():
        if name not in rows:
            reason = f"the item is not there in '{language}'"
        elif not all((*rows[name][0], *rows[name][1:3])):
            reason = "a sentence is empty"
        else:
            continue
        return {
            "story_id": name,
            "language": language,
            "action": "dropped",
            "reason": reason,
        }
    return None


def _read(path, language):
    """Return an item's prompt, right, wrong and answer by its name."""
    if path.suffix in _SEPARATORS:
        rows = _read_story_cloze(path)
    elif path.suffix == ".jsonl":
        rows = _read_jsonl(path)
    elif path.suffix == ".parquet":
        rows = _read_stories(path, language)
    else:
        raise ValueError(
            f"{path}: expected a .csv, .tsv, .jsonl or .parquet file"
        )
    found = {}
    for number, name, *row in rows:
        if not name or name in found:
            raise ValueError(
                f"{path}, row {number}: the item's name is '{name}'; expected "
                "one that no other row has"
            )
        found[name] = row
    return found


def _read_story_cloze(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(
            file, delimiter=_SEPARATORS[path.suffix], strict=True
        )
        try:
            found = reader.fieldnames or ["none"]
            rows = list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path}, after line {reader.line_num}: {error}; expected "
                "UTF-8 text in columns separated by "
                f"{reader.reader.dialect.delimiter!r}"
            ) from error
    missing = [name for name in _COLUMNS if name not in found]
    if missing == [_ANSWER]:
        raise ValueError(
            f"{path}: no column {_ANSWER}, like the winter 2018 test set, "
            "whose answers were not published; use a file that has it"
        )
    if missing:
        raise ValueError(
            f"{path}: missing column(s) {', '.join(missing)}; found "
            f"{', '.join(found)}"
        )
    for number, row in enumerate(rows, start=1):
        yield _story_cloze_row(path, number, row)


def _story_cloze_row(path, number, row):
    if None in row or None in row.values():
        raise ValueError(
            f"{path}, row {number}: found another number of columns than in "
            "the first line; mend the row"
        )
    if stray := [key for key, text in row.items() if "\n" in text]:
        raise ValueError(
            f"{path}, row {number}: a line break in {stray[0]}; expected one "
            "row a line. A quotation mark that is not closed does this."
        )
    row = {key: text.strip() for key, text in row.items()}
    if row[_ANSWER] not in ("1", "2"):
        raise ValueError(
            f"{path}, row {number}: {_ANSWER} is '{row[_ANSWER]}'; expected "
            "1 or 2"
        )
    endings = [row[name] for name in _ENDINGS]
    if row[_ANSWER] == "2":
        endings.reverse()
    prompt = tuple(row[name] for name in _PROMPT)
    return number, row[_ID], prompt, *endings, row[_ANSWER]


def _read_jsonl(path):
    # Not splitlines(): JSON may hold U+2028 and its like as they are.
    lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            name, prompt = str(row["id"]), tuple(row["prompt"])
            texts = [*prompt, row["right"], row["wrong"]]
            right = isinstance(row["prompt"], list) and prompt
        except (ValueError, KeyError, TypeError):
            right = False
        if not right or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"{path}, row {number}: found {line[:80]}; expected an object "
                'with "id", "prompt" (a list of sentences), "right", "wrong"'
            )
        *prompt, right, wrong = (text.strip() for text in texts)
        yield number, name, tuple(prompt), right, wrong, "right"


def _read_stories(path, language):
    table = read_table(path, STORIES, STORIES_KEY)
    if language not in table.column_names:
        raise ValueError(
            f"{path}: no column '{language}'; found "
            f"{', '.join(table.column_names)}"
        )
    stories = {}
    for row in table.sort_by([("sentence", "ascending")]).to_pylist():
        text = (row[language] or "").strip()
        stories.setdefault(row["story_id"], []).append(text)
    # The rows are sorted by sentence, the stories again as they stood.
    order = dict.fromkeys(table["story_id"].to_pylist())
    for number, name in enumerate(order, start=1):
        if len(stories[name]) < 3:
            raise ValueError(
                f"{path}: story '{name}' has {len(stories[name])} sentence(s);"
                " expected a prompt, the right and the wrong ending"
            )
        *prompt, right, wrong = stories[name]
        yield number, name, tuple(prompt), right, wrong, "right"
