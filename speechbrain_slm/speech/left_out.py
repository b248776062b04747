"""What is left out when speech fails, so that sentences stay aligned.

A sentence that fails in one language goes in every language of its story, and
those after it move up: sentence ``i`` says the same in all of them. A story
of which fewer than two sentences are left goes as a whole, and a cloze item
goes with all its parts. All of it is listed in a ledger.
"""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.speech.story_shards import groups_of
from speechbrain_slm.utils.ledger import ELSEWHERE, TOO_FEW, goes
from speechbrain_slm.utils.tables import MANIFEST_KEY


def leave_out(table: pa.Table, failures: dict) -> tuple[pa.Table, list[dict]]:
    """Drop the sentences that failed, in every language of their stories.

    Arguments
    ---------
    table
        Columns ``story_id, sentence, language, speaker, audio, text``; whole
        stories, the same sentences in each language.
    failures : Audio file -> (reason, detail).

    Returns
    -------
    pyarrow.Table
        What stays, sorted by language, story and sentence, and numbered
        0, 1, 2, ...
    list of dict
        The ledger: an entry for each row that goes, and one for each story
        that goes as a whole. ``sentence`` is the number it had.

    Example
    -------
    >>> table = pa.table({
    ...     "story_id": ["s"] * 6,
    ...     "sentence": pa.array([0, 1, 2] * 2, pa.int32()),
    ...     "language": ["en"] * 3 + ["fr"] * 3,
    ...     "speaker": ["anna"] * 6,
    ...     "audio": ["a", "b", "c", "d", "e", "f"],
    ...     "text": ["A", "B", "C", "D", "E", "F"],
    ... })
    >>> kept, ledger = leave_out(table, {"e": ("silence", "")})
    >>> kept["audio"].to_pylist(), kept["sentence"].to_pylist()
    (['a', 'c', 'd', 'f'], [0, 1, 0, 1])
    >>> [(entry["language"], entry["reason"]) for entry in ledger]
    [('en', 'dropped in another language'), ('fr', 'silence')]
    """
    order = ("language", "story_id", "sentence")
    table = table.sort_by([(name, "ascending") for name in order])
    if not failures:
        return table, []
    groups = groups_of(table["story_id"]).to_pylist()
    keys = list(
        zip(
            table["story_id"].to_pylist(),
            table["sentence"].to_pylist(),
            strict=True,
        )
    )
    audio = table["audio"].to_pylist()
    lost = {
        key for key, name in zip(keys, audio, strict=True) if name in failures
    }
    whole = _whole_stories(keys, groups, lost)
    keep = np.array([key not in lost and key[0] not in whole for key in keys])
    columns = [*MANIFEST_KEY, "speaker", "text", "audio"]
    dropped = table.select(columns).filter(pa.array(~keep)).to_pylist()
    ledger = [
        {**row, "action": "dropped", **_reason(row, lost, whole, failures)}
        for row in dropped
    ]
    ledger += [
        {"story_id": story, "action": "dropped", "reason": reason}
        for story, reason in sorted(whole.items())
    ]
    return _numbered(table.filter(pa.array(keep))), ledger


def _whole_stories(keys, groups, lost):
    """Return the stories that go as a whole, each with its reason."""
    group_of = {
        story: group for (story, _), group in zip(keys, groups, strict=True)
    }
    hurt = {story for story, _ in lost}
    items = {group_of[story] for story in hurt if group_of[story] != story}
    whole = {
        story: "a part of the cloze item was left out"
        for story, group in group_of.items()
        if group in items
    }
    had = Counter(story for story, _ in set(keys))
    less = Counter(story for story, _ in lost)
    few = {
        story for story in hurt if goes(had[story], had[story] - less[story])
    }
    return dict.fromkeys(few, TOO_FEW) | whole


def _reason(row, lost, whole, failures):
    if row["audio"] in failures:
        reason, detail = failures[row["audio"]]
        return {"reason": reason, "detail": detail}
    if (row["story_id"], row["sentence"]) in lost:
        return {"reason": ELSEWHERE}
    return {"reason": whole[row["story_id"]]}


def _numbered(table):
    """Number the sentences of each story and language anew."""
    if not len(table):
        return table
    same = np.ones(len(table), dtype=bool)
    for name in ("language", "story_id"):
        column = table[name].combine_chunks()
        same[1:] &= pc.equal(column[1:], column[:-1]).to_numpy(False)
    same[0] = False
    rows = np.arange(len(table))
    begins = np.maximum.accumulate(np.where(same, 0, rows))
    numbers = pa.array((rows - begins).astype(np.int32))
    position = table.column_names.index("sentence")
    return table.set_column(position, "sentence", numbers)
