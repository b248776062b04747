"""Topic items (sTC) of any spoken manifest: which ending belongs here?

A story's prompt is all but its last sentence, its right ending the last one;
the wrong ending is the last sentence of another story. Nothing of it needs
text, so that recordings of one's own can be scored.
"""

import itertools
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.benchmarks import cloze_texts, spoken_items
from speechbrain_slm.utils import tables
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.ledger import LEDGER, check_share, write_ledger

logger = logging.getLogger(__name__)
BENCHMARK = "sTC"


def write_topic_items(
    manifest: str | Path,
    output_folder: str | Path,
    seed: int = 1986,
    max_left_out: float = 0.2,
) -> None:
    """Write topic items of a manifest, in every direction.

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
    key = tables.MANIFEST_KEY
    table = tables.read_table(manifest, tables.MANIFEST, key)
    languages = sorted(set(table["language"].to_pylist()))
    tables.check_matched(manifest, table, languages)
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
    items = spoken_items.items_of(drawn, BENCHMARK, "topic", languages)
    speech = pa.Table.from_pylist(rows, schema=tables.MANIFEST)
    table = spoken_items.item_table(items)
    spoken_items.publish_prepared(output_folder, speech, table)
    logger.info(f"{output_folder}: {len(table)} items of {len(drawn)} stories")


def _stories(table):
    """Return story -> language -> rows."""
    stories = {}
    for row in table.sort_by("sentence").to_pylist():
        story = stories.setdefault(row["story_id"], {})
        story.setdefault(row["language"], []).append(row)
    return dict(sorted(stories.items()))


def _draw(stories, languages, seed):
    """Draw for each story another one; say why some have none."""
    left_out, groups = [], defaultdict(list)

    def drop(name, reason, detail):
        entry = {"action": "dropped", "reason": reason, "detail": detail}
        left_out.append({"story_id": name, **entry})

    for name, story in stories.items():
        if missing := [one for one in languages if one not in story]:
            drop(name, "a language is missing", missing[0])
        elif len(story[languages[0]]) < 2:
            drop(name, "a single sentence", "no prompt is left")
        else:
            # The speakers of the endings, in all languages at once: a story's
            # item is the same in every direction.
            speakers = tuple(story[one][-1]["speaker"] for one in languages)
            groups[speakers].append(name)
    drawn = {}
    for speakers, names in sorted(groups.items()):
        own = {name: stories[name] for name in names}
        # Without text of all, nothing tells what a story is about.
        draw = _by_topic if _has_text(own, languages) else _by_chance
        for name, other in zip(names, draw(own, languages, seed), strict=True):
            if other is not None:
                drawn[name] = names[other]
                continue
            who = ", ".join(dict.fromkeys(speakers))
            detail = f"none of the same speaker ({who}) has an ending for it"
            drop(name, "no other story", detail)
    return dict(sorted(drawn.items())), left_out


def _has_text(stories, languages):
    return not cloze_texts.STOP_WORDS.keys().isdisjoint(languages) and all(
        (row.get("text") or "").strip()
        for story in stories.values()
        for row in itertools.chain.from_iterable(story.values())
    )


def _by_topic(stories, languages, seed):
    items = []
    for name, story in stories.items():
        texts = {key: [row["text"] for row in story[key]] for key in languages}
        prompt = {key: tuple(text[:-1]) for key, text in texts.items()}
        right = {key: text[-1] for key, text in texts.items()}
        items.append(cloze_texts.ClozeItem(name, prompt, right, wrong={}))
    return cloze_texts.draw_topics(items, languages, seed)


def _by_chance(stories, languages, seed):
    digest = identity_of([seed, "off-topic endings", list(stories)])
    generator = np.random.default_rng(int(digest, 16))
    order = generator.permutation(len(stories))
    endings = [
        {story[language][-1]["sha256"] for language in languages}
        for story in stories.values()
    ]
    drawn = []
    for number, story in enumerate(stories.values()):
        rows = itertools.chain.from_iterable(story.values())
        own = {row["sha256"] for row in rows}
        # Stories may share a recording, which would be right and wrong.
        walk = np.roll(order, -int(generator.integers(len(order))))
        free = (n for n in walk if n != number and not own & endings[n])
        drawn.append(next(free, None))
    return drawn


def _rows(name, story, other, folder):
    for language, rows in story.items():
        ending = other[language][-1:]
        parts = {"prompt": rows[:-1], "right": rows[-1:], "topic": ending}
        for part, spoken in parts.items():
            # In the order of the story; numbers begin anew in each part.
            for sentence, row in enumerate(spoken):
                new = {"story_id": f"{name}.{part}", "sentence": sentence}
                new["audio"] = str((folder / row["audio"]).resolve())
                yield {**row, **new}
