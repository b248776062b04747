"""Cloze items, and the tables in which they are spoken and scored."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from speechbrain_slm.benchmarks.topics import draw_topics
from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.speakers import draw_speaker
from speechbrain_slm.utils.story_tables import write_stories
from speechbrain_slm.utils.tables import ITEMS, STORIES

logger = logging.getLogger(__name__)
# Beside the table: ``left_out.jsonl`` is that of the speech.
LEDGER = "text/cloze.left_out.jsonl"
MAKER = "cloze items"


class ClozeItem(NamedTuple):
    """A story with two endings, in one language or in several.

    Attributes
    ----------
    item_id : str
        Its name; no other item has it.
    prompt : dict
        The beginning: language -> sentences, as many in each language.
    right : dict
        The ending that follows: language -> sentence.
    wrong : dict
        The ending that does not.
    """

    item_id: str
    prompt: dict
    right: dict
    wrong: dict


def write_cloze(
    output_folder: str | Path,
    items: list[ClozeItem],
    languages: list[str],
    seed: int,
    speakers: list[str],
    ledger: Iterable[dict] = (),
    sources: Iterable[str] = (),
) -> dict:
    """Write the stories table and the items table of a benchmark.

    Story ``X.prompt`` holds an item's beginning, ``X.right`` and ``X.wrong``
    its endings, and ``X.topic`` the right ending of another item. All are told
    by one speaker, so that a voice cannot give the answer. An item for which
    no other one is off its topic has no ``X.topic`` and is none of sTC.

    Arguments
    ---------
    output_folder
        Gets ``text/cloze.parquet``, ``text/cloze.left_out.jsonl`` and
        ``items.parquet``.
        Loses the manifest ``cloze.parquet`` if the stories change.
    languages : Those to write; an item a pair of them as prompt and ending.
    seed : Another seed draws other speakers and off-topic endings.
    speakers : Who may tell an item.
    ledger : What was left out before.
    sources : Named in the error if there is nothing to write.

    Returns
    -------
    The stories table: ``{"cloze": path}``.

    Raises
    ------
    ValueError
        If there is no item, or no off-topic ending for any.
    FileExistsError
        If a file is in the way that another made; nothing is changed then.

    Example
    -------
    >>> from speechbrain_slm.benchmarks.natural import load_natural
    >>> from speechbrain_slm.utils.tables import ITEMS_KEY, read_table
    >>> folder = getfixture("tmp_path")
    >>> paths = write_cloze(folder, load_natural(), ["fr"], 0, ["anna"])
    >>> len(read_table(folder / "items.parquet", ITEMS, ITEMS_KEY))
    240
    """
    ledger = list(ledger)
    if not items:
        reasons = sorted({entry["reason"] for entry in ledger})
        raise ValueError(
            f"{', '.join(map(str, sources)) or 'the source'}: found no item; "
            f"expected one or more. Left out: {'; '.join(reasons) or 'none'}"
        )
    topics = draw_topics(items, languages, seed)
    without = [
        item.item_id
        for item, other in zip(items, topics, strict=True)
        if other is None
    ]
    if len(without) == len(items):
        raise ValueError(
            f"each of the {len(items)} items shares a name or a word with the "
            "endings of all others, so none is off its topic; add items"
        )
    ledger += [
        {
            "story_id": name,
            "action": "dropped",
            "reason": "no ending of another item is off its topic: not in sTC",
        }
        for name in without
    ]
    output_folder = Path(output_folder)
    rows = _items(items, set(without), languages)
    paths = write_stories(
        output_folder,
        {"cloze": _stories(items, topics, languages, seed, speakers)},
        pa.Table.from_pylist(rows, schema=ITEMS),
        MAKER,
    )
    write_ledger(output_folder / LEDGER, ledger)
    logger.info(
        "%d cloze items, %d with an off-topic ending; %s has %d line(s)",
        len(items),
        len(items) - len(without),
        LEDGER,
        len(ledger),
    )
    return paths


def whole_table(items: list[ClozeItem], languages: list[str]) -> pa.Table:
    """Put each item into one story: its prompt, then right, then wrong.

    This is what is translated: a translator that reads a story as context
    reads both endings with their prompt.

    Returns
    -------
    A stories table.
    """
    rows = []
    for item in items:
        sentences = {
            language: (
                *item.prompt[language],
                item.right[language],
                item.wrong[language],
            )
            for language in languages
        }
        rows += _rows(item.item_id, sentences)
    return _table(rows, languages)


def _stories(items, topics, languages, seed, speakers):
    rows = []
    for item, other in zip(items, topics, strict=True):
        parts = {
            "prompt": item.prompt,
            "right": {key: (item.right[key],) for key in languages},
            "wrong": {key: (item.wrong[key],) for key in languages},
        }
        if other is not None:
            ending = items[other].right
            parts["topic"] = {key: (ending[key],) for key in languages}
        speaker = draw_speaker(seed, item.item_id, speakers)
        for part, texts in parts.items():
            texts = {key: texts[key] for key in languages}
            rows += _rows(f"{item.item_id}.{part}", texts, speaker=speaker)
    return _table(rows, ["speaker", *languages])


def _rows(story_id, texts, **others):
    return [
        {
            "story_id": story_id,
            "sentence": number,
            **others,
            **dict(zip(texts, aligned, strict=True)),
        }
        for number, aligned in enumerate(zip(*texts.values(), strict=True))
    ]


def _table(rows, columns):
    fields = [*STORIES, *(pa.field(name, pa.string()) for name in columns)]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _items(items, without_topic, languages):
    return [
        {
            "item_id": item.item_id,
            "benchmark": benchmark,
            "prompt_language": prompt_language,
            "ending_language": ending_language,
            "prompt": f"{item.item_id}.prompt",
            "right": f"{item.item_id}.right",
            "wrong": f"{item.item_id}.{wrong}",
        }
        for benchmark, wrong in (("sSC", "wrong"), ("sTC", "topic"))
        for prompt_language, ending_language in itertools.product(
            languages, repeat=2
        )
        for item in items
        if benchmark == "sSC" or item.item_id not in without_topic
    ]


def write_ledger(path: Path, entries: Iterable[dict]) -> None:
    """Write what was left out, a line of JSON each."""
    with atomic_path(path) as temporary:
        lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
        temporary.write_text(
            "".join(f"{line}\n" for line in lines), encoding="utf-8"
        )
