"""Pairs of translations in a unit store, and what each is compared with.

An *item* is a sentence (or a whole story) in two languages: a text, or, where
no text is known, a unit sequence, counted once however often the store holds
it. An item gives a pair told by one voice and one told by two. A pair's
*mismatch* is the translation of another item, of nearest length, by the very
voice that speaks the right one: neither length nor voice tells them apart.
"""

import itertools
import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from speechbrain_slm.evaluation.alignment.parallel_items import (
    LEVELS,
    Rendering,
    parallel_items,
)

logger = logging.getLogger(__name__)

VOICES = ("same", "different")
SIDES = ("source", "target", "mismatch")
# Rows that agree in these are compared with each other.
GROUP = ("source_language", "target_language", "same_voice")
PAIRS = pa.schema(
    [
        ("source_language", pa.string()),
        ("target_language", pa.string()),
        ("same_voice", pa.bool_()),
        ("item", pa.int32()),
        *(
            (f"{side}_{name}", kind)
            for side in SIDES
            for name, kind in zip(
                Rendering._fields,
                (pa.string(), pa.int32(), pa.string(), pa.int32()),
                strict=True,
            )
        ),
    ]
)


def parallel_pairs(
    store,
    languages: Sequence[str],
    level: str = "sentence",
    voices: Sequence[str] = VOICES,
    texts: dict | None = None,
    seed: int = 0,
    speakers: dict | None = None,
) -> tuple[pa.Table, list[dict]]:
    """Pair the translations of a store.

    All voices have the same items in the same order, so that their numbers
    can stand side by side: an item that lacks one is left out. A voice that
    fewer than two items have is itself left out, with a warning.

    Arguments
    ---------
    store : UnitStore
        Aligned stories.
    languages : Two or more; each pair of them is compared.
    level : ``sentence`` or ``story``.
    voices
        ``same``, ``different`` or both: whether the speaker's name is the
        same in both languages.
    texts
        Of :func:`read_spoken`. Without it, nothing says that a
        sentence stands in several stories.
    speakers
        Of :func:`read_spoken`. Needed where several speakers
        tell a story.

    Returns
    -------
    pyarrow.Table
        The columns ``PAIRS``; the rows of a group (see ``GROUP``) follow each
        other.
    list of dict
        For each pair of languages: the number of ``items``, how many are
        ``paired``, in which ``voices``, how many are ``left_out`` because
        they lack one of these, or as ``ambiguous``, because one of their
        texts has another translation too.

    Raises
    ------
    ValueError
        If the store lacks a language, ``texts`` or ``speakers`` a sentence of
        the store, a whole story has several speakers, or fewer than two items
        can be paired.
    """
    _check(store, languages, level, voices)
    generator = np.random.default_rng(seed)
    rows, summaries = [], []
    for pair in itertools.combinations(languages, 2):
        items, ambiguous, shortened = parallel_items(
            store, pair, level, texts, speakers
        )
        for places in items:
            generator.shuffle(places)
        pools = _pools(items)
        found = {
            voice: sum(
                _choose(places, pools, [voice]) is not None for places in items
            )
            for voice in VOICES
            if voice in voices
        }
        where = f"{store.folder}, {' and '.join(pair)}"
        kept = _with_pairs(where, found, texts)
        chosen = [_choose(places, pools, kept) for places in items]
        paired = [n for n, choice in enumerate(chosen) if choice is not None]
        if not kept or len(paired) < 2:
            counts = ", ".join(f"{found[v]} in {v} voice" for v in found)
            raise ValueError(
                f"{where}: of {len(items)} parallel items (level: {level}) "
                f"{len(paired) if kept else 0} can be paired in all voices "
                f"asked for ({counts}); expected at least 2. Take a larger "
                "store, or other 'voices'."
            )
        for voice, number in itertools.product(kept, paired):
            source, targets = chosen[number]
            target = targets[voice]
            pool = pools[target.speaker]
            mismatch = pool.nearest(number, target.units, generator)
            sides = (source, target, mismatch)
            values = (*pair, voice == "same", number, *itertools.chain(*sides))
            rows.append(values)
        summaries.append(
            {
                "languages": list(pair),
                "texts_known": texts is not None,
                "items": len(items),
                "paired": len(paired),
                "voices": kept,
                "left_out": len(items) - len(paired),
                "ambiguous": ambiguous,
                "shortened": shortened,
            }
        )
    columns = [list(column) for column in zip(*rows, strict=True)]
    return pa.table(columns, schema=PAIRS), summaries


def _with_pairs(where, found, texts):
    """Return the voices that have pairs; warn of the others."""
    for voice in found:
        if found[voice] < 2:
            logger.warning(
                "%s: %d pair(s) in %s voice, which is left out%s",
                where,
                found[voice],
                voice,
                ""
                if texts
                else ": without texts, nothing says which "
                "sentences of two stories are one",
            )
    return [voice for voice in found if found[voice] > 1]


def _check(store, languages, level, voices):
    if len(languages) < 2 or len(set(languages)) < len(languages):
        raise ValueError(
            f"languages are {list(languages)}; expected two or more, all "
            "different"
        )
    absent = [name for name in languages if name not in store.languages]
    if absent:
        raise ValueError(
            f"{store.folder} holds nothing in '{absent[0]}', only "
            f"{', '.join(store.languages)}; set 'languages' to some of these"
        )
    if level not in LEVELS:
        raise ValueError(f"level is '{level}'; expected sentence or story")
    if not voices or not set(voices) <= set(VOICES):
        raise ValueError(
            f"voices are {list(voices)}; expected [same], [different] or "
            "[same, different]"
        )


class _Pool:
    """What one voice says in the target language, each item once."""

    def __init__(self) -> None:
        self.renderings, self._by_length = {}, {}

    def add(self, item, rendering) -> None:
        """Take the first rendering of an item."""
        if item not in self.renderings:
            self.renderings[item] = rendering
            self._by_length.setdefault(rendering.units, []).append(item)

    def nearest(self, item, units, generator):
        """Draw one of the other items' renderings of nearest length."""
        distance = min(
            abs(length - units)
            for length, items in self._by_length.items()
            if items != [item]
        )
        shorter = self._by_length.get(units - distance, [])
        longer = self._by_length.get(units + distance, []) if distance else []
        while True:
            drawn = generator.integers(len(shorter) + len(longer))
            if drawn < len(shorter):
                other = shorter[drawn]
            else:
                other = longer[drawn - len(shorter)]
            if other != item:
                return self.renderings[other]


def _pools(items):
    pools = {}
    for number, places in enumerate(items):
        for _, target in places:
            pools.setdefault(target.speaker, _Pool()).add(number, target)
    # Who says but one item has no mismatch for it.
    return {
        speaker: pool
        for speaker, pool in pools.items()
        if len(pool.renderings) > 1
    }


def _choose(places, pools, voices):
    """Return a source and its target in each voice, or None."""
    first = {}
    for _, target in places:
        if target.speaker in pools:
            first.setdefault(target.speaker, target)
    for source, own in places:
        targets = {}
        for voice in voices:
            # Its own story's translation goes before another story's.
            for target in (own, *first.values()):
                same = target.speaker == source.speaker
                if target.speaker in pools and same == (voice == "same"):
                    targets[voice] = target
                    break
        if len(targets) == len(voices):
            return source, targets
    return None
