"""What is left out when speech fails, so that sentences stay matched.

A sentence that fails in one language goes in every language of its story, and
those after it move up: sentence ``i`` says the same in all of them. A story
of which too little is left goes as a whole, and a cloze item goes with all its
parts.
"""

from collections import Counter

import numpy as np
import pyarrow as pa

from speechbrain_slm.speech.story_shards import groups_of
from speechbrain_slm.utils.ledger import ELSEWHERE, TOO_FEW, goes
from speechbrain_slm.utils.tables import MANIFEST_KEY

Sentence = tuple[str, int]  # of which story, and its number


def leave_out(
    table: pa.Table, failures: dict[str, tuple[str, str]]
) -> tuple[pa.Table, list[dict]]:
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
    columns = (table[name].to_pylist() for name in ("story_id", "sentence"))
    keys: list[Sentence] = list(zip(*columns, strict=True))
    audio = table["audio"].to_pylist()
    lost = {k for k, name in zip(keys, audio, strict=True) if name in failures}
    whole = _whole_stories(set(keys), lost)
    keep = np.array([key not in lost and key[0] not in whole for key in keys])
    names = [*MANIFEST_KEY, "speaker", "text", "audio"]
    ledger = []
    for row in table.select(names).filter(pa.array(~keep)).to_pylist():
        reason, detail = whole.get(row["story_id"], ""), ""
        if row["audio"] in failures:
            reason, detail = failures[row["audio"]]
        elif (row["story_id"], row["sentence"]) in lost:
            reason = ELSEWHERE
        why = {"action": "dropped", "reason": reason, "detail": detail}
        ledger.append({**row, **why})
    ledger += [
        {"story_id": story, "action": "dropped", "reason": reason}
        for story, reason in sorted(whole.items())
    ]
    left, numbers = Counter[str](), {}
    for key in sorted(set(keys) - lost):
        numbers[key] = left[key[0]]
        left[key[0]] += 1
    anew = [numbers[k] for k, stays in zip(keys, keep, strict=True) if stays]
    table, place = (
        table.filter(pa.array(keep)),
        table.column_names.index("sentence"),
    )
    return table.set_column(
        place, "sentence", pa.array(anew, pa.int32())
    ), ledger


def _whole_stories(keys: set[Sentence], lost: set[Sentence]) -> dict[str, str]:
    """Return the stories that go as a whole, each with its reason."""
    had = Counter(story for story, _ in keys)
    less = Counter(story for story, _ in lost)
    whole = {
        story: TOO_FEW
        for story, count in less.items()
        if goes(had[story], had[story] - count)
    }
    stories = list(had)
    group_of = dict(
        zip(stories, groups_of(pa.array(stories)).to_pylist(), strict=True)
    )
    items = {group_of[one] for one in less if group_of[one] != one}
    for story, group in group_of.items():
        if group in items:
            whole[story] = "a part of the cloze item was left out"
    return whole
