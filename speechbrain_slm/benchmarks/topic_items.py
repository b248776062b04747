"""Topic items (sTC) of any spoken manifest: which ending belongs here?

A story's prompt is all but its last sentence, its right ending the last one;
the wrong ending is the last sentence of another story. Nothing of it needs
text, so that recordings of one's own can be scored.
"""

import itertools
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.benchmarks.cloze_texts import ClozeItem
from speechbrain_slm.benchmarks.spoken_items import (
    item_table,
    items_of,
    publish_prepared,
)
from speechbrain_slm.benchmarks.topics import STOP_WORDS, draw_topics
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.ledger import LEDGER, check_share, write_ledger
from speechbrain_slm.utils.tables import (
    MANIFEST,
    MANIFEST_KEY,
    check_matched,
    read_table,
)

logger = logging.getLogger(__name__)
BENCHMARK = "sTC"


def write_topic_items(
    manifest: str | Path,
    output_folder: str | Path,
    seed: int = 1986,
    max_left_out: float = 0.2,
) -> pa.Table:
    """Write and return topic items of a manifest, in every direction.

    The wrong ending is spoken by the speaker of the right one, in every
    language, so that no voice gives the answer, and is another recording.
    Where the manifest has text in a language with stop words, it shares no
    name and no content word with the story.

    Arguments
    ---------
    output_folder
        Gets ``speech.parquet``, ``items.parquet`` and ``left_out.jsonl``.
    max_left_out : Share of the stories that may make no item.
    """
    manifest, output_folder = Path(manifest), Path(output_folder)
    table = read_table(manifest, MANIFEST, MANIFEST_KEY)
    languages = sorted(set(table["language"].to_pylist()))
    check_matched(manifest, table, languages)
    stories = _stories(table)
    drawn, left_out = _draw(stories, languages, seed)
    ledger = output_folder / LEDGER
    # Written before anything is refused: it says what to mend.
    reasons = write_ledger(ledger, left_out)
    if not drawn:
        raise ValueError(f"{manifest}: no story makes an item: {reasons}")
    counts = len(left_out), len(stories), max_left_out
    advice = "Add stories, longer ones or of the same speakers."
    check_share("stories", *counts, reasons, ledger, advice)
    rows = [
        row
        for name, other in drawn.items()
        for row in _rows(name, stories[name], stories[other], manifest.parent)
    ]
    items = item_table(items_of(drawn, BENCHMARK, "topic", languages))
    speech = pa.Table.from_pylist(rows, schema=MANIFEST)
    publish_prepared(output_folder, speech, items)
    logger.info(f"{output_folder}: {len(items)} items of {len(drawn)} stories")
    return items


def _stories(table):
    """Return story -> language -> rows."""
    stories = {}
    for row in table.sort_by("sentence").to_pylist():
        story = stories.setdefault(row["story_id"], {})
        story.setdefault(row["language"], []).append(row)
    return dict(sorted(stories.items()))


def _draw(stories, languages, seed):
    """Draw for each story another one; say why some have none."""
    left_out, groups = [], {}
    for name, story in stories.items():
        if missing := [one for one in languages if one not in story]:
            left_out.append(_entry(name, "a language is missing", missing[0]))
        elif len(story[languages[0]]) < 2:
            fault = "a single sentence", "no prompt is left"
            left_out.append(_entry(name, *fault))
        else:
            speakers = tuple(story[one][-1]["speaker"] for one in languages)
            groups.setdefault(speakers, []).append(name)
    # By the speakers of the endings, in all languages at once: a story's item
    # is the same in every direction.
    drawn = {}
    for speakers, names in sorted(groups.items()):
        # Without text of all, nothing tells what a story is about.
        by_topic = _has_text(stories, names, languages)
        draw = _by_topic if by_topic else _by_chance
        others = draw(stories, names, languages, seed)
        for name, other in zip(names, others, strict=True):
            if other is None:
                who = ", ".join(dict.fromkeys(speakers))
                detail = (
                    f"none of the same speaker ({who}) has an ending for it"
                )
                left_out.append(_entry(name, "no other story", detail))
            else:
                drawn[name] = other
    return dict(sorted(drawn.items())), left_out


def _entry(name, reason, detail):
    entry = {"action": "dropped", "reason": reason, "detail": detail}
    return {"story_id": name, **entry}


def _has_text(stories, names, languages):
    return any(language in STOP_WORDS for language in languages) and all(
        (row.get("text") or "").strip()
        for name in names
        for rows in stories[name].values()
        for row in rows
    )


def _by_topic(stories, names, languages, seed):
    items = []
    for name in names:
        texts = {
            language: [row["text"] for row in stories[name][language]]
            for language in languages
        }
        prompt = {key: tuple(text[:-1]) for key, text in texts.items()}
        right = {key: text[-1] for key, text in texts.items()}
        items.append(ClozeItem(name, prompt, right, wrong={}))
    drawn = draw_topics(items, languages, seed)
    return [None if other is None else names[other] for other in drawn]


def _by_chance(stories, names, languages, seed):
    digest = identity_of([seed, "off-topic endings", names])
    generator = np.random.default_rng(int(digest, 16))
    order = [names[n] for n in generator.permutation(len(names))]
    drawn = []
    for name in names:
        start = int(generator.integers(len(order)))
        own = {row["sha256"] for rows in stories[name].values() for row in rows}
        # Stories may share a recording, which would be right and wrong.
        free = (
            other
            for other in itertools.chain(order[start:], order[:start])
            if other != name
            and own.isdisjoint(
                stories[other][language][-1]["sha256"] for language in languages
            )
        )
        drawn.append(next(free, None))
    return drawn


def _rows(name, story, other, folder):
    for language, rows in story.items():
        parts = {
            "prompt": rows[:-1],
            "right": rows[-1:],
            "topic": other[language][-1:],
        }
        for part, spoken in parts.items():
            for sentence, row in enumerate(spoken):
                # In the order of the story; numbers begin anew in each part.
                yield {
                    **row,
                    "story_id": f"{name}.{part}",
                    "sentence": sentence,
                    "audio": str((folder / row["audio"]).resolve()),
                }
