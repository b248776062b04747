"""Pairs of continuations of which one is preferred, as a table of units.

A pair is a prompt, a chosen and a rejected continuation. They come of stories
(the right ending against that of another story: no text, no judge), or of
what a model has said itself, ranked by a measure.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.ledger import write_ledger
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.tables import write_table

logger = logging.getLogger(__name__)
_UNITS = pa.list_(pa.uint16())
PARTS = ("prompt", "chosen", "rejected")
# One row a pair. Pairs of one group (of one story) are held out together;
# ``tokenizer`` is the identity of what made the units.
PAIRS = pa.schema(
    [(name, pa.string()) for name in ("pair_id", "group", "tokenizer")]
    + [(f"{name}_language", pa.string()) for name in ("prompt", "ending")]
    + [(name, _UNITS) for name in PARTS]
)
PAIRS_KEY = ("pair_id",)


def write_ending_pairs(
    path: str | Path,
    units_folder: str | Path,
    directions: Sequence[str],
    num_pairs: int,
    seed: int,
) -> None:
    """Write pairs of endings of a store's stories.

    The prompt is all of a story but its last sentence, which is chosen; the
    last sentence of another story is rejected. It is told by the same speaker,
    so that no voice gives the answer, has other units, and is the same story's
    in all directions. Take the store that the model was trained on: what it
    is evaluated on must not be in it.

    Arguments
    ---------
    path : Gets the table; ``left_out.jsonl`` goes beside it.
    units_folder : The store of a split.
    directions : ``en``, ``en>fr``: of the prompt, then of the endings.
    num_pairs : At most; all directions have equally many.
    """
    check_number("num_pairs", num_pairs, at_least=len(directions), whole=True)
    store, path = UnitStore(units_folder), Path(path)
    pairs = [_languages_of(direction) for direction in directions]
    languages = sorted({name for pair in pairs for name in pair})
    if unknown := sorted({*languages} - {*store.languages}):
        raise ValueError(
            f"directions name {', '.join(unknown)}; {units_folder} holds "
            f"{', '.join(store.languages)}"
        )
    stories = num_pairs // len(directions)
    left_out: list[dict] = []
    rows: list[dict] = []
    for name, story, other in _drawn(store, languages, seed, left_out):
        if len(rows) >= stories * len(directions):
            break
        for direction, (begin, ending) in zip(directions, pairs, strict=True):
            units = [*story[begin][:-1]], story[ending][-1:], other[ending][-1:]
            row: dict = {"pair_id": f"{name} {direction}", "group": name}
            row["prompt_language"], row["ending_language"] = begin, ending
            parts = [np.concatenate(part) for part in units]
            row |= zip(PARTS, parts, strict=True)
            rows.append({**row, "tokenizer": store.identity})
    reasons = write_ledger(path.with_name("left_out.jsonl"), left_out)
    if not rows:
        raise ValueError(f"{units_folder}: no story makes a pair: {reasons}")
    write_table(path, pa.Table.from_pylist(rows, schema=PAIRS))
    logger.info(
        "%s: %d pairs of %d stories; %d stories left out (%s)",
        *(path, len(rows), len(rows) // len(directions)),
        *(len(left_out), str(reasons) or "none"),
    )


def _languages_of(direction: str) -> tuple[str, str]:
    """Return the languages of a prompt and of its endings."""
    begin, sign, ending = direction.partition(">")
    if not begin or ">" in ending or bool(sign) != bool(ending):
        raise ValueError(
            f"direction is '{direction}'; expected a language, en, or those of "
            "a prompt and of its endings, en>fr"
        )
    return begin, ending or begin


def _drawn(
    store: UnitStore, languages: list[str], seed: int, left_out: list[dict]
) -> Iterator[tuple[str, dict, dict]]:
    """Yield stories with another one each, by language, in a random order."""
    names, told = store.story_ids.to_pylist(), store.speakers()
    digest = identity_of([seed, "pairs of endings", store.info["identity"]])
    generator = np.random.default_rng(int(digest, 16))
    order = [names[n] for n in generator.permutation(len(names))]
    groups: dict[tuple, list[str]] = defaultdict(list)
    for name in order:
        groups[tuple(told.get((name, one)) for one in languages)].append(name)
    for name in order:
        speakers = tuple(told.get((name, one)) for one in languages)
        reason = ""
        if None in speakers:
            reason = "a language is missing"
        elif "" in speakers:
            reason = "several speakers tell it"
        else:
            story = {one: store.story(name, one) for one in languages}
            if len(story[languages[0]]) < 2:
                reason = "a single sentence"
        if not reason:
            found = _another(store, name, story, groups[speakers], generator)
            if found:
                yield name, story, found
                continue
            reason = "no other story of the same speaker has another ending"
        left_out.append(
            {"story_id": name, "action": "dropped", "reason": reason}
        )


def _another(
    store: UnitStore,
    name: str,
    story: dict[str, list[np.ndarray]],
    names: list[str],
    generator: np.random.Generator,
) -> dict[str, list[np.ndarray]] | None:
    """Return the first story from a random place whose ending is not said."""
    own = {one.tobytes() for said in story.values() for one in said}
    begin = int(generator.integers(len(names)))
    for candidate in (*names[begin:], *names[:begin]):
        if candidate == name:
            continue
        found = {one: store.story(candidate, one) for one in story}
        if own.isdisjoint(said[-1].tobytes() for said in found.values()):
            return found
    return None
