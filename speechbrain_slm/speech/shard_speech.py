"""A shard of stories, spoken: its utterances, then its part.

A part is a piece (see ``utils.pieces``) of manifest rows; its facts say what
made it and hold the ledger. The parts that are there are what a run that was
killed has done.
"""

import logging
from collections import Counter, defaultdict
from itertools import compress, groupby
from operator import itemgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.speech.planning import plan_rows, read_planned
from speechbrain_slm.speech.processes import run_in_workers
from speechbrain_slm.speech.story_shards import Shard, changed, group_of
from speechbrain_slm.speech.utterances import (
    Fact,
    Speech,
    Utterance,
    speak_chunk,
)
from speechbrain_slm.utils.jobs import PARTS, Progress
from speechbrain_slm.utils.ledger import ELSEWHERE, NOTHING_LEFT, TooManyLeftOut
from speechbrain_slm.utils.pieces import find_piece, write_piece
from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY

logger = logging.getLogger(__name__)
SCHEMA = pa.schema([*MANIFEST, ("text", pa.string()), ("size", pa.int64())])
ROWS = "rows.parquet"
_CHUNK = 16  # utterances
# How many may fail in a shard if any may: a small one may have its bad luck.
_BAD_LUCK = 100


def part_path(output_folder: Path, shard: Shard) -> Path:
    """Return where the part of a shard stands."""
    return output_folder / PARTS / shard.split / f"{shard.number:05d}" / ROWS


def is_complete(path: Path, identity: str, output_folder: Path) -> bool:
    """Tell whether a part is what would be made now, its audio all there."""
    part = find_piece(path, ["audio", "size"])
    if part is None or part.facts["identity"] != identity:
        return False
    files = set(zip(*part.table.to_pydict().values(), strict=True))
    try:
        return all(
            (output_folder / name).stat().st_size == size
            for name, size in files
        )
    except OSError:
        return False


def speak_shard(
    shard: Shard,
    identity: str,
    speech: Speech,
    output_folder: Path,
    num_workers: int,
    max_left_out: float,
) -> Counter[str]:
    """Speak a shard and publish its part; count the states of utterances.

    Arguments
    ---------
    identity : Of what it was when the run began; ValueError if it is other now.
    max_left_out : Share of the utterances that may fail, or TooManyLeftOut.
    """
    table, found = read_planned(shard, speech)
    if found != identity:
        raise changed(shard.path)
    rows, utterances = plan_rows(table, speech)
    facts = _speak_all(
        utterances, speech, output_folder, num_workers, max_left_out
    )
    failures = {k: fact.failure for k, fact in facts.items() if fact.failure}
    rows, ledger = leave_out(rows, failures)
    # A file that many rows share is looked up once.
    audio = rows["audio"].combine_chunks().dictionary_encode()
    files = [facts[name] for name in audio.dictionary.to_pylist()]
    for column in ("num_samples", "size", "sha256"):
        kind = SCHEMA.field(column).type
        values = pa.array([getattr(fact, column) for fact in files], kind)
        rows = rows.append_column(column, values.take(audio.indices))
    rate = pa.repeat(speech.tts.sample_rate, len(rows))
    rows = rows.append_column("sample_rate", rate)
    said = {
        "identity": identity,
        "utterances": len(utterances),
        "failed": len(failures),
        "ledger": [{"split": shard.split, **entry} for entry in ledger],
    }
    path = part_path(output_folder, shard)
    write_piece(path, rows.select(SCHEMA.names).cast(SCHEMA), said)
    return Counter(fact.state for fact in facts.values())


def _speak_all(
    utterances: list[Utterance],
    speech: Speech,
    output_folder: Path,
    num_workers: int,
    max_left_out: float,
) -> dict[str, Fact]:
    total, failed = len(utterances), 0
    starts = range(0, total, _CHUNK)
    chunks = (utterances[start : start + _CHUNK] for start in starts)
    context, facts = (speech, output_folder), dict[str, Fact]()
    most = max(max_left_out * total, _BAD_LUCK) if max_left_out else 0
    progress = Progress(total, "utterances")
    for results in run_in_workers(speak_chunk, context, chunks, num_workers):
        for fact in results:
            facts[fact.audio] = fact
            failed += fact.failure is not None
            if fact.failure and failed > most:
                (one,) = (u for u in utterances if u.audio == fact.audio)
                reason, detail = fact.failure
                raise TooManyLeftOut(
                    f"cannot speak {one.text!r} with {one.voice}: {reason} "
                    f"({detail}). It is failure {failed} among {total} "
                    f"utterances of a shard; max_left_out is "
                    f"{max_left_out:.2%}. Mend the texts or the voices, or "
                    "raise it: what fails is then left out in every language "
                    "and listed in left_out.jsonl."
                )
        progress.add(len(results))
    seconds = (
        sum(f.num_samples for f in facts.values()) / speech.tts.sample_rate
    )
    states = Counter(fact.state for fact in facts.values())
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    speed = seconds / max(total, 1) * progress.speed
    shown = "%d utterances, %.0f s of speech (%.0f x real time): %s"
    logger.info(shown, total, seconds, speed, told)
    return facts


def leave_out(
    table: pa.Table, failures: dict[str, tuple[str, str]]
) -> tuple[pa.Table, list[dict]]:
    """Drop the sentences that failed, in every language of their stories.

    A cloze item goes with all its parts. What stays of the table is sorted by
    language, story and sentence, and numbered anew; the ledger has an entry
    for each row that goes, with the number that it had, and one for each story
    that goes as a whole.

    Arguments
    ---------
    table : Whole stories, the same sentences in each language.
    failures : Audio file -> (reason, detail).
    """
    order = ("language", "story_id", "sentence")
    table = table.sort_by([(name, "ascending") for name in order])
    if not failures:
        return table, []
    columns = [table[name].to_pylist() for name in (*order, "audio")]
    rows, lost = list(zip(*columns, strict=True)), defaultdict(set)
    for _, story, sentence, audio in rows:
        if audio in failures:
            lost[story].add(sentence)
    # The last row of a story has its highest number; the first is 0.
    whole = _whole_stories({row[1]: row[2] + 1 for row in rows}, dict(lost))
    keep = [row[1] not in whole and row[2] not in lost[row[1]] for row in rows]
    gone = table.filter(pc.invert(pa.array(keep)))
    ledger = []
    for row in gone.select(
        [*MANIFEST_KEY, "speaker", "text", "audio"]
    ).to_pylist():
        story = row["story_id"]
        other = ELSEWHERE if row["sentence"] in lost[story] else whole[story]
        reason, detail = failures.get(row["audio"], (other, ""))
        why = {"action": "dropped", "reason": reason, "detail": detail}
        ledger.append({**row, **why})
    ledger += [
        {"story_id": story, "action": "dropped", "reason": reason}
        for story, reason in sorted(whole.items())
    ]
    kept = groupby(compress(rows, keep), key=itemgetter(0, 1))
    numbers = [n for _, story in kept for n, _ in enumerate(story)]
    place = table.column_names.index("sentence")
    table = table.filter(pa.array(keep))
    return table.set_column(place, "sentence", pa.array(numbers, "i4")), ledger


def _whole_stories(
    had: dict[str, int], lost: dict[str, set[int]]
) -> dict[str, str]:
    """Return the stories that go as a whole, each with its reason."""
    whole = {k: NOTHING_LEFT for k, gone in lost.items() if len(gone) == had[k]}
    items = {group_of(story) for story in lost if group_of(story) != story}
    gone = "a part of the cloze item was left out"
    return whole | {k: gone for k in had if group_of(k) in items}
