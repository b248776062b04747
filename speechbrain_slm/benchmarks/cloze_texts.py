"""Cloze items of text, and the tables in which they are spoken and scored."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from speechbrain_slm.benchmarks.spoken_items import item_table, items_of
from speechbrain_slm.benchmarks.topics import draw_topics
from speechbrain_slm.utils.ledger import write_ledger
from speechbrain_slm.utils.speakers import draw_speaker
from speechbrain_slm.utils.tables import (
    stories_table,
    story_rows,
    write_stories,
)

logger = logging.getLogger(__name__)
# Beside the table: ``left_out.jsonl`` is that of the speech.
LEDGER = "text/cloze.left_out.jsonl"
MAKER = "cloze items"


class ClozeItem(NamedTuple):
    """A story with two endings, in one language or in several."""

    item_id: str  # no other item has it
    # Language -> the beginning, as many sentences in each language.
    prompt: dict[str, tuple[str, ...]]
    right: dict[str, str]  # language -> the ending that follows
    wrong: dict[str, str]  # the one that does not


def write_cloze(
    output_folder: str | Path,
    items: Sequence[ClozeItem],
    languages: Sequence[str],
    seed: int,
    speakers: Sequence[str],
    ledger: Iterable[dict] = (),
    sources: Iterable[str | Path] = (),
) -> dict[str, Path]:
    """Write the stories table, whose path is returned, and the items table.

    Arguments
    ---------
    output_folder
        Gets ``text/cloze.parquet``, ``text/cloze.left_out.jsonl`` and
        ``items.parquet``. Loses the manifest ``cloze.parquet`` if the stories
        change. A file in the way that another made is an error.
    ledger : What was left out before.
    sources : Named in the error if there is nothing to write.
    """
    ledger = list(ledger)
    if not items:
        reasons = sorted({entry["reason"] for entry in ledger})
        raise ValueError(
            f"{', '.join(map(str, sources)) or 'the source'}: found no item; "
            f"expected one or more. Left out: {'; '.join(reasons) or 'none'}"
        )
    topics = draw_topics(items, languages, seed)
    pairs = zip(items, topics, strict=True)
    without = [item.item_id for item, other in pairs if other is None]
    if len(without) == len(items):
        raise ValueError(
            f"each of the {len(items)} items shares a word with the endings of "
            "all others, so none is off its topic; add items"
        )
    reason = "no ending of another item is off its topic"
    lost = {"action": "dropped", "reason": reason, "detail": "not in sTC"}
    ledger += [{"story_id": name, **lost} for name in without]
    stories, table = cloze_tables(items, topics, languages, seed, speakers)
    paths = write_stories(output_folder, {"cloze": stories}, table, MAKER)
    write_ledger(Path(output_folder) / LEDGER, ledger)
    logger.info(
        f"{len(items)} cloze items, {len(without)} without an off-topic "
        f"ending; {LEDGER} has {len(ledger)} line(s)"
    )
    return paths


def cloze_tables(
    items: Sequence[ClozeItem],
    topics: Sequence[int | None],
    languages: Sequence[str],
    seed: int,
    speakers: Sequence[str],
) -> tuple[pa.Table, pa.Table]:
    """Make the stories of items, and sSC and sTC in every direction.

    Story ``X.prompt`` holds an item's beginning, ``X.right`` and ``X.wrong``
    its endings, and ``X.topic`` the right ending of another item.

    Arguments
    ---------
    topics : Of each item the other's index; None: it is none of sTC.
    """
    rows, kept = [], []
    for item, other in zip(items, topics, strict=True):
        endings = {"right": item.right, "wrong": item.wrong}
        if other is not None:
            kept.append(item.item_id)
            endings["topic"] = items[other].right
        # One speaker tells all: a voice cannot give the answer.
        speaker = draw_speaker(seed, item.item_id, speakers)
        told = {"prompt": {key: item.prompt[key] for key in languages}}
        # An ending is a story of its own: it is spoken once, and follows the
        # prompt of any language.
        for part, ending in endings.items():
            told[part] = {key: (ending[key],) for key in languages}
        for part, texts in told.items():
            name = f"{item.item_id}.{part}"
            rows += story_rows(name, texts, speaker=speaker)
    names = [item.item_id for item in items]
    coherent = items_of(names, "sSC", "wrong", languages)
    on_topic = items_of(kept, "sTC", "topic", languages)
    table = item_table([*coherent, *on_topic])
    return stories_table(rows, ["speaker", *languages]), table


def whole_table(
    items: Iterable[ClozeItem], languages: Sequence[str]
) -> pa.Table:
    """Put each item into one story: its prompt, then right, then wrong.

    This is what is translated: a translator that reads a story as context
    reads both endings with their prompt.
    """
    rows = []
    for item in items:
        texts = {
            key: (*item.prompt[key], item.right[key], item.wrong[key])
            for key in languages
        }
        rows += story_rows(item.item_id, texts)
    return stories_table(rows, languages)
