"""Items of a benchmark: which ending is the right one after which prompt?

A table of items names stories of a unit store. Here it is read and checked,
and becomes the unit sequences that are scored, each distinct one once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.evaluation.cloze.accuracy import direction_of
from speechbrain_slm.evaluation.inputs import tag_of
from speechbrain_slm.utils import tables
from speechbrain_slm.utils.ledger import LEDGER
from speechbrain_slm.utils.numbers import check_choice

if TYPE_CHECKING:
    from speechbrain_slm.dataio.reader import UnitStore
    from speechbrain_slm.evaluation.cloze.scorer import Scorer

SIDES = ("right", "wrong")


def read_items(path: str | Path) -> pa.Table:
    """Read a table of items: the columns of ``utils.tables.ITEMS``, and two.

    Items of one ``group``, such as the voices of a pair of words, count once;
    where the table names none, each counts. ``subset`` is ``""`` for none.
    """
    may_lack = tables.ITEMS_EMPTY, tables.ITEMS_OPTIONAL
    table = tables.read_table(path, tables.ITEMS, tables.ITEMS_KEY, *may_lack)
    if not len(table):
        raise ValueError(f"{path}: the table of items is empty")
    same = pc.index(pc.equal(table["right"], table["wrong"]), True).as_py()
    if same >= 0:
        row = table.slice(same, 1).to_pylist()[0]
        raise ValueError(
            f"{path}: {name_of(row)}: its right and its wrong ending are both "
            f"'{row['right']}'; expected two different stories"
        )
    columns = {name: table[name] for name in tables.ITEMS.names}
    empty = pa.array([""] * len(table))
    for name, default in (("group", table["item_id"]), ("subset", empty)):
        own = table[name] if name in table.column_names else default
        columns[name] = pc.if_else(pc.equal(own, ""), default, own)
    return pa.table(columns)


def name_of(row: dict) -> str:
    """Name an item in a message: ``item 'test-1' (sSC, en>fr)``."""
    direction = direction_of(row["prompt_language"], row["ending_language"])
    return f"item '{row['item_id']}' ({row['benchmark']}, {direction})"


@dataclass(frozen=True)
class Pairs:
    """The distinct (prompt, ending) pairs of N items."""

    # With language tags where the model has them; those of one prompt stand
    # together.
    pairs: list[tuple[np.ndarray, np.ndarray]]
    names: list[str]  # for messages: the first item that has the pair
    index: dict[str, np.ndarray]  # right, wrong -> each item's pair, int64 [N]
    truncated: np.ndarray  # whether a prompt was cut at its beginning, bool [N]
    # Whether a prompt's own units differ from those that it has together with
    # an ending, bool [N]; False where endings are units of their own.
    changed: np.ndarray


def make_pairs(
    items: pa.Table,
    store: UnitStore,
    scorer: Scorer,
    endings: str = "apart",
    too_long: str = "refuse",
) -> Pairs:
    """Look up what is to be scored, in an order that the items do not decide.

    Arguments
    ---------
    scorer : Says which tags the model has, and how much it can read.
    endings
        ``apart``: a prompt and an ending are utterances of their own.
        ``together``: ``right`` and ``wrong`` name utterances that begin with
        the prompt, and the ending is what comes after as many units as it has
        by itself. For causal tokenizers, whose first units stay as they are.
    too_long
        What becomes of an item that exceeds the model's context: ``refuse``,
        or ``truncate``: its prompt loses its first units, before both endings
        alike.
    """
    check_choice("endings", endings, ("apart", "together"))
    check_choice("too_long", too_long, ("refuse", "truncate"))
    tokenizer = store.info["tokenizer"]
    timeless = tokenizer["deduplicated"] or "bpe" in tokenizer["config"]
    if endings == "together" and timeless:
        raise ValueError(
            f"{store.folder}: endings is 'together', but its units are "
            "de-duplicated or pieces of several, so nothing says where a "
            "prompt ends; extract plain units, or set endings to 'apart'"
        )
    stories: dict[tuple, np.ndarray] = {}
    # Equal sequences are scored once, whatever their items are called: the
    # right ending, which stands in several items, costs one pass, and endings
    # of equal units tie to the last bit.
    found: dict[tuple, tuple] = {}
    keys: dict[str, list] = {side: [] for side in SIDES}
    truncated, changed = np.zeros((2, len(items)), dtype=bool)
    for number, row in enumerate(items.to_pylist()):
        prompt, *after = _units(row, store, stories)
        prompts = [prompt, prompt]
        if endings == "together" and row["prompt"]:
            prompts, after = _split(row, prompt, after)
            same = [np.array_equal(begin, prompt) for begin in prompts]
            changed[number] = not all(same)
        cut = _excess(row, prompts[0], after, scorer, too_long)
        truncated[number] = cut > 0
        languages = row["prompt_language"], row["ending_language"]
        for side, begin, ending in zip(SIDES, prompts, after, strict=True):
            name = f"{name_of(row)}, {side} ending"
            what = languages, scorer.language_tags, name
            pair = tagged(begin[cut:], ending, *what)
            key = tuple(units.tobytes() for units in pair)
            found.setdefault(key, (pair, name))
            keys[side].append(key)
    order = {key: place for place, key in enumerate(sorted(found))}
    index = {s: np.array([order[key] for key in keys[s]]) for s in SIDES}
    pairs, names = map(list, zip(*(found[key] for key in order), strict=True))
    return Pairs(pairs, names, index, truncated, changed)


def _units(row, store, stories):
    """Return the units of a prompt (none: no units) and of both endings."""
    units = []
    for role in ("prompt", *SIDES):
        kind = "prompt" if role == "prompt" else "ending"
        key = row[role], row[f"{kind}_language"]
        if key not in stories:
            try:
                story = store.story(*key) if row[role] else [[]]
            except KeyError as error:
                ledger = Path(store.folder).parent / LEDGER
                raise ValueError(
                    f"{name_of(row)}: its {role} is missing: {error.args[0]}. "
                    f"If its audio was rejected, {ledger} says why; else "
                    "extract its units."
                ) from error
            stories[key] = np.concatenate(story).astype(np.int64)
        units.append(stories[key])
    return units


def _split(row, prompt, joined):
    """Cut what was encoded as one where the prompt ends."""
    for side, units in zip(SIDES, joined, strict=True):
        if len(units) <= len(prompt):
            raise ValueError(
                f"{name_of(row)}: '{row[side]}' has {len(units)} units and "
                f"its prompt alone {len(prompt)}; expected an utterance that "
                "begins with the prompt and goes on (endings is 'together')"
            )
    halves = (np.split(units, [len(prompt)]) for units in joined)
    return zip(*halves, strict=True)


def _excess(row, prompt, endings, scorer, too_long):
    """Return how many of its units a prompt loses, or refuse its item."""
    if scorer.context is None:
        return 0
    crossed = row["prompt_language"] != row["ending_language"]
    tags = (1 + crossed) if scorer.language_tags else 0
    longest = max(map(len, endings))
    symbols = scorer.count_symbols(len(prompt) + longest + tags)
    excess = max(symbols - scorer.context, 0)
    # The same for both endings, so by the longer one: both must be read after
    # the same units. A prompt that is cut away wholly would make another item.
    enough = excess < len(prompt)
    if not excess or (too_long == "truncate" and enough):
        return excess
    advice = "its endings alone are too long"
    if enough:
        advice = "set too_long to 'truncate', which cuts the prompt's beginning"
    raise ValueError(
        f"{name_of(row)}: it has {excess} symbols more than the model's "
        f"context of {scorer.context}; {advice}, or take another model"
    )


def tagged(
    prompt: np.ndarray,
    ending: np.ndarray,
    languages: tuple[str, str],
    tags: dict[str, int],
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Put a tag where training has one: where a language begins.

    ``languages`` are the prompt's and the ending's; ``name`` is for errors.
    """
    if not tags:
        return prompt, ending
    own = [tag_of(tags, language, name) for language in languages]
    # en>fr: [en] prompt | [fr] ending; en: [en] prompt | ending; and [fr]
    # ending where there is no prompt, which would have had the tag.
    before = own[:1] if len(prompt) else []
    after = [] if len(prompt) and own[0] == own[1] else own[1:]
    prompt, ending = (
        np.concatenate(part).astype(np.int64)
        for part in ((before, prompt), (after, ending))
    )
    return prompt, ending
