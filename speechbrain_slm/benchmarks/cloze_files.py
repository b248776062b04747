"""Cloze items from files: StoryCloze, XStoryCloze, JSON lines, stories.

A table (see ``utils.user_tables``) has an item a row, under one of three sets
of names:

- StoryCloze, spring 2016 and winter 2018, and XStoryCloze: ``InputStoryid``,
  ``InputSentence1`` to ``InputSentence4``, ``RandomFifthSentenceQuiz1``,
  ``RandomFifthSentenceQuiz2`` and ``AnswerRightEnding`` (1 or 2);
- XStoryCloze on the hub: ``story_id``, ``input_sentence_1`` to
  ``input_sentence_4``, ``sentence_quiz1``, ``sentence_quiz2`` and
  ``answer_right_ending`` (1 or 2);
- JSON lines of one's own: ``{"id": ..., "prompt": [sentences], "right": ...,
  "wrong": ...}``.

Such a file holds one language. A ``.parquet`` file may be a stories table
instead, which holds them all: an item is a story whose last two sentences are
the right and the wrong ending (see ``whole_table``).

The natural items come with the package.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

import yaml

from speechbrain_slm.benchmarks.cloze_texts import ClozeItem
from speechbrain_slm.utils.columns import check_columns
from speechbrain_slm.utils.files import check_file
from speechbrain_slm.utils.tables import STORIES, STORIES_KEY, read_table
from speechbrain_slm.utils.user_tables import as_text, iterate_rows


def _published(name, sentence, ending, answer):
    sentences = (f"{sentence}{number}" for number in range(1, 5))
    return (name, *sentences, f"{ending}1", f"{ending}2", answer)


_FIRST = "InputStoryid InputSentence RandomFifthSentenceQuiz AnswerRightEnding"
_HUB = "story_id input_sentence_ sentence_quiz answer_right_ending"
_PUBLISHED = _published(*_FIRST.split()), _published(*_HUB.split())
_OURS = ("id", "prompt", "right", "wrong")
NATURAL = Path(__file__).parent / "natural_items" / "items.yaml"


def load_natural() -> list[ClozeItem]:
    """Load the natural items, in English and French.

    Example
    -------
    >>> items = load_natural()
    >>> len(items), items[0].item_id
    (120, 'natural-001-toothache')
    """
    items = []
    entries = yaml.safe_load(NATURAL.read_text(encoding="utf-8"))
    for number, entry in enumerate(entries, start=1):
        name, right = f"natural-{number:03d}-{entry['item']}", entry["right"]
        prompt = {k: tuple(line[k] for line in entry["prompt"]) for k in right}
        items.append(ClozeItem(name, prompt, right, entry["wrong"]))
    return items


def read_cloze(
    files: Mapping[str, str | Path],
) -> tuple[list[ClozeItem], list[dict]]:
    """Read the items of a benchmark and match their languages.

    An item that a language lacks, or with an empty sentence in one, is left
    out in all, with a line in the ledger.

    Arguments
    ---------
    files
        Language -> path. The languages of a ``.parquet`` file name the same
        path.

    Returns
    -------
    The items in the order of the first language, and lines of the ledger.

    Raises
    ------
    ValueError
        If a file cannot be read, an item stands twice, or the languages of an
        item disagree in its number of sentences or in its right ending.
    """
    if not files:
        raise ValueError("files: found none; expected language -> path")
    read = {}
    for language, path in files.items():
        path = check_file(path, f"cloze items in '{language}'")
        read[language] = _read(path, language)
    first = next(iter(read))
    items, ledger = [], []
    for name in dict.fromkeys(itertools.chain.from_iterable(read.values())):
        if fault := _fault(name, read):
            ledger.append({"story_id": name, "action": "dropped", **fault})
            continue
        rows = {language: found[name] for language, found in read.items()}
        # Translators keep the order of the endings: where the answers differ,
        # the files are of two versions, and one of the endings is wrong.
        shapes = {k: (len(row[0]) - 2, row[1]) for k, row in rows.items()}
        for language, found in shapes.items():
            if found != (expected := shapes[first]):
                raise ValueError(
                    f"{files[language]}: item '{name}' has {found[0]} "
                    f"sentences and right ending {found[1]}; expected "
                    f"{expected[0]} and {expected[1]} as in {files[first]}"
                )
        prompt = {key: texts[:-2] for key, (texts, _) in rows.items()}
        right = {key: texts[-2] for key, (texts, _) in rows.items()}
        wrong = {key: texts[-1] for key, (texts, _) in rows.items()}
        items.append(ClozeItem(name, prompt, right, wrong))
    return items, ledger


def _fault(name, read):
    """Tell the first language without the item, and the reason, or nothing."""
    for language, rows in read.items():
        if name not in rows:
            reason = f"the item is not there in '{language}'"
        elif not all(rows[name][0]):
            reason = "a sentence is empty"
        else:
            continue
        return {"language": language, "reason": reason}
    return None


def _read(path, language):
    """Return name -> (prompt, right and wrong ending), answer."""
    columns = _columns(path)
    if not columns:
        return _read_stories(path, language)
    found = {}
    for number, values, fault in iterate_rows(path, columns):
        try:
            if fault:
                raise ValueError(f"{fault}; mend the row")
            parse = _own if columns == _OURS else _as_published
            name, texts, answer = parse(columns, values)
            if not name or name in found:
                raise ValueError(
                    f"the item's name is '{name}'; expected another"
                )
        except ValueError as error:
            raise ValueError(f"{path}, row {number}: {error}") from error
        found[name] = tuple(text.strip() for text in texts), answer
    return found


def _columns(path):
    """Tell which names a file has; none: those of a stories table."""
    known = dict.fromkeys(itertools.chain(*_PUBLISHED, _OURS))
    rows = (row.values for row in iterate_rows(path, (), known) if row.values)
    there = {key for key, value in next(rows, {}).items() if value is not None}
    # The names of which most are there; so one that is misspelt is named.
    best = max(_PUBLISHED, key=lambda names: len(there & set(names)))
    # One column alone says nothing: a stories table has a story_id, too.
    if len(there & set(best)) < 2 and path.suffix in (".parquet", ".jsonl"):
        return _OURS if path.suffix == ".jsonl" else ()
    if set(best) - there == {best[-1]}:
        raise ValueError(
            f"{path}: no column {best[-1]}, like the winter 2018 test set, "
            "whose answers were not published; use a file that has it"
        )
    return best


def _as_published(columns, values):
    row = {key: as_text(text).strip() for key, text in values.items()}
    # A sentence has none; half a table in one field has many.
    if stray := [key for key, text in row.items() if "\n" in text]:
        raise ValueError(
            f"a line break in {stray[0]}; expected one sentence (is a "
            "quotation mark not closed?)"
        )
    name, *texts, answer = (row[key] for key in columns)
    if answer not in ("1", "2"):
        raise ValueError(f"{columns[-1]} is '{answer}'; expected 1 or 2")
    # Half of the answers are 2, so that the place tells nothing.
    if answer == "2":
        texts[-2:] = reversed(texts[-2:])
    return name, texts, answer


def _own(columns, values):
    name, prompt, *endings = (values[key] for key in columns)
    # A text instead of a list would be read letter by letter.
    texts = [*prompt, *endings] if isinstance(prompt, list) else []
    if len(texts) < 3 or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"found {values!r:.80}; expected an object with "
            '"id", "prompt" (a list), "right", "wrong"'
        )
    return as_text(name), texts, "right"


def _read_stories(path, language):
    table = read_table(path, STORIES, STORIES_KEY)
    check_columns(path, table.column_names, [language])
    # Sentences in their order, whatever the table's; stories as they stand.
    stories = {name: [] for name in table["story_id"].to_pylist()}
    for row in table.sort_by("sentence").to_pylist():
        stories[row["story_id"]].append((row[language] or "").strip())
    for name, texts in stories.items():
        if len(texts) < 3:
            raise ValueError(
                f"{path}: story '{name}' has {len(texts)} sentence(s);"
                " expected a prompt, the right and the wrong ending"
            )
    return {name: (tuple(texts), "right") for name, texts in stories.items()}
