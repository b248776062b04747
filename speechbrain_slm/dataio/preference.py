"""Pairs of continuations of which one is preferred, as a table of units.

A pair is a prompt, a chosen and a rejected continuation. They come of stories
(the right ending against that of another story: no text, no judge), or of
what a model has said itself, ranked by a measure.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.utils.columns import check_columns
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.ledger import write_ledger
from speechbrain_slm.utils.numbers import check_choice, check_number
from speechbrain_slm.utils.tables import read_table, write_table

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
REJECTED = ("another", "same_opening")
# What is read of a table of continuations, beside a measure.
_OF_A_PROMPT = ("story_id", "direction", "steered_by")
_SAID = pa.schema(
    [(name, pa.string()) for name in _OF_A_PROMPT]
    + [("sample", pa.int64())]
    + [(name, pa.list_(pa.int64())) for name in ("prompt_units", "units")]
)
_SAID_KEY = (*_OF_A_PROMPT, "sample")
_SAY = "The continuation recipe writes it."
_NUMBERS = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)


def write_ending_pairs(
    path: str | Path,
    units_folder: str | Path,
    directions: Sequence[str],
    num_pairs: int,
    seed: int,
    rejected: str = "another",
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
    rejected
        ``another``: the ending of any other story. ``same_opening``: of one
        that begins with the same units and has no other sentence of this one,
        so that both endings are of what was told. For corpora where several
        stories begin alike, by a voice that says the same alike.
    """
    check_choice("rejected", rejected, REJECTED)
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
    what = store, languages, seed, rejected
    for name, story, other in _drawn(*what, left_out):
        if len(rows) >= stories * len(directions):
            break
        for direction, (begin, ending) in zip(directions, pairs, strict=True):
            units = [*story[begin][:-1]], story[ending][-1:], other[ending][-1:]
            row: dict = {"pair_id": f"{name} {direction}", "group": name}
            row["prompt_language"], row["ending_language"] = begin, ending
            parts = [np.concatenate(part) for part in units]
            row |= zip(PARTS, parts, strict=True)
            rows.append({**row, "tokenizer": store.identity})
    _publish(path, rows, left_out, units_folder)


def write_ranked_pairs(
    path: str | Path,
    continuations: str | Path,
    tokenizer: str,
    measure: str,
    higher: bool = True,
    margin: float = 0.0,
) -> None:
    """Write pairs of what a model has said: the best and the worst of each.

    Of the continuations of a prompt in a direction, the one of the best
    measure is chosen and that of the worst rejected.

    Arguments
    ---------
    path : Gets the table; ``left_out.jsonl`` goes beside it.
    continuations
        A table as the continuation recipe writes it, with several samples a
        prompt: ``story_id, direction, steered_by, sample, prompt_units,
        units`` and the measure; the prompt is ``prompt_symbols``, if it is
        there. Stories that are evaluated do not belong in it.
    tokenizer : The identity of what made the units.
    measure : The name of a column of numbers; rows without one do not count.
    higher : Whether more of it is better.
    margin : A prompt whose best and worst differ by no more makes no pair.
    """
    check_number("margin", margin, at_least=0)
    table = read_table(continuations, _SAID, _SAID_KEY, advice=_SAY)
    check_columns(continuations, table.column_names, [measure])
    kind = table.schema.field(measure).type
    if not any(is_kind(kind) for is_kind in _NUMBERS):
        raise ValueError(
            f"{continuations}: column '{measure}' is {kind}; expected numbers, "
            "by which continuations are ranked"
        )
    said: dict[tuple, list[dict]] = defaultdict(list)
    for row in table.to_pylist():
        said[tuple(row[name] for name in _OF_A_PROMPT)].append(row)
    left_out: list[dict] = []
    rows: list[dict] = []
    for (story, direction, steered_by), several in sorted(said.items()):
        ranked = [r for r in several if math.isfinite(r[measure] or 0)]
        known = [r for r in ranked if r["units"] and r[measure] is not None]
        known.sort(key=lambda row: row[measure], reverse=higher)
        name = f"{story} {direction} {steered_by}"
        apart = known and abs(known[0][measure] - known[-1][measure]) > margin
        if not apart or known[0]["units"] == known[-1]["units"]:
            entry = {"story_id": story, "item": name, "action": "dropped"}
            left_out.append({**entry, "reason": f"no two differ in {measure}"})
            continue
        begin, ending = _languages_of(direction)
        row = {"pair_id": name, "group": story, "tokenizer": tokenizer}
        row |= {"prompt_language": begin, "ending_language": ending}
        # As the model has read it: with language tags, where it has them.
        units = known[0]["prompt_units"]
        row |= {"prompt": known[0].get("prompt_symbols", units)}
        rows.append(
            row | {"chosen": known[0]["units"], "rejected": known[-1]["units"]}
        )
    _publish(Path(path), rows, left_out, continuations)


def _publish(
    path: Path, rows: list[dict], left_out: list[dict], source: str | Path
) -> None:
    """Write the ledger, then the pairs, of which there must be some."""
    reasons = write_ledger(path.with_name("left_out.jsonl"), left_out)
    if not rows:
        raise ValueError(f"{source}: it makes no pair: {reasons}")
    write_table(path, pa.Table.from_pylist(rows, schema=PAIRS))
    logger.info(
        "%s: %d pairs; %d left out (%s)",
        *(path, len(rows), len(left_out), str(reasons) or "none"),
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
    store: UnitStore,
    languages: list[str],
    seed: int,
    rejected: str,
    left_out: list[dict],
) -> Iterator[tuple[str, dict, dict]]:
    """Yield stories with another one each, by language, in a random order."""
    names, told = store.story_ids.to_pylist(), store.speakers()
    digest = identity_of([seed, "pairs of endings", store.info["identity"]])
    generator = np.random.default_rng(int(digest, 16))
    order = [names[n] for n in generator.permutation(len(names))]
    alike: dict[tuple, list[str]] = defaultdict(list)
    keys: dict[str, tuple] = {}
    for name in order:
        key: tuple = tuple(told.get((name, one)) for one in languages)
        if rejected == "same_opening" and None not in key:
            begin = (store.story(name, one)[0] for one in languages)
            key += tuple(units.tobytes() for units in begin)
        keys[name] = key
        alike[key].append(name)
    for name in order:
        key, reason = keys[name], ""
        if None in key:
            reason = "a language is missing"
        elif "" in key:
            reason = "several speakers tell it"
        else:
            story = {one: store.story(name, one) for one in languages}
            if len(story[languages[0]]) < 2:
                reason = "a single sentence"
        if not reason:
            first = REJECTED.index(rejected) or -1
            found = _another(store, name, story, alike[key], first, generator)
            if found:
                yield name, story, found
                continue
            reason = "no other story of the same speaker has another ending"
        entry = {"story_id": name, "action": "dropped", "reason": reason}
        left_out.append(entry)


def _another(
    store: UnitStore,
    name: str,
    story: dict[str, list[np.ndarray]],
    names: list[str],
    first: int,
    generator: np.random.Generator,
) -> dict[str, list[np.ndarray]] | None:
    """Return the next story, from a random place, that goes on otherwise.

    From its sentence ``first`` on it says nothing that the other story says.
    """
    own = {one.tobytes() for said in story.values() for one in said}
    begin = int(generator.integers(len(names)))
    for candidate in (*names[begin:], *names[:begin]):
        if candidate == name:
            continue
        found = {one: store.story(candidate, one) for one in story}
        ends = [one for said in found.values() for one in said[first:]]
        if ends and own.isdisjoint(one.tobytes() for one in ends):
            return found
    return None
