"""A shard of stories, spoken: its utterances, then its part.

A part is a piece (see ``utils.pieces``) of manifest rows; its facts say what
made it and hold the ledger. The parts that are there are what a run that was
killed has done.
"""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.speech.planning import Planner
from speechbrain_slm.speech.processes import run_in_workers
from speechbrain_slm.speech.story_shards import Shard, groups_of
from speechbrain_slm.speech.utterances import Fact, Utterance, speak_chunk
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
Sentence = tuple[str, int]  # of which story, and its number


def part_path(output_folder: Path, shard: Shard) -> Path:
    """Return where the part of a shard stands."""
    return output_folder / PARTS / shard.split / f"{shard.number:05d}" / ROWS


def is_complete(path: Path, identity: str, output_folder: Path) -> bool:
    """Tell whether a part is what would be made now, its audio all there."""
    part = find_piece(path, ["audio", "size"])
    if part is None or part.facts["identity"] != identity:
        return False
    try:
        files = set(zip(*part.table.to_pydict().values(), strict=True))
        return all(
            (output_folder / name).stat().st_size == size
            for name, size in files
        )
    except OSError:
        return False


def changed(path: str | Path) -> ValueError:
    """Return the error of a table that changed while it was spoken."""
    return ValueError(
        f"{path} was changed while it was spoken. Run the same command again: "
        "it speaks what the text is then, and keeps what it has spoken of it."
    )


def speak_shard(
    shard: Shard,
    identity: str,
    planner: Planner,
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
    table, found = planner.read(shard)
    if found != identity:
        raise changed(shard.path)
    rows, utterances = planner.rows(table)
    facts = _speak_all(
        utterances, output_folder, planner, num_workers, max_left_out
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
    rate = pa.scalar(planner.tts.sample_rate, pa.int32())
    rows = rows.append_column("sample_rate", pa.repeat(rate, len(rows)))
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
    output_folder: Path,
    planner: Planner,
    num_workers: int,
    max_left_out: float,
) -> dict[str, Fact]:
    total, failed = len(utterances), 0
    starts = range(0, total, _CHUNK)
    chunks = (utterances[start : start + _CHUNK] for start in starts)
    context = (planner.tts, planner.shape, output_folder)
    facts: dict[str, Fact] = {}
    most = max(max_left_out * total, _BAD_LUCK) if max_left_out else 0
    progress = Progress(total, "utterances")
    for results in run_in_workers(speak_chunk, context, chunks, num_workers):
        for fact in results:
            facts[fact.audio] = fact
            if fact.failure is None:
                continue
            failed += 1
            if failed > most:
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
    samples = sum(fact.num_samples for fact in facts.values())
    seconds = samples / planner.tts.sample_rate
    states = Counter(fact.state for fact in facts.values())
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    speed = seconds / len(facts) * progress.speed if facts else 0
    shown = "%d utterances, %.0f s of speech (%.0f x real time): %s"
    logger.info(shown, len(facts), seconds, speed, told)
    return facts


def leave_out(
    table: pa.Table, failures: dict[str, tuple[str, str]]
) -> tuple[pa.Table, list[dict]]:
    """Drop the sentences that failed, in every language of their stories.

    A cloze item goes with all its parts.

    Arguments
    ---------
    table : Whole stories, the same sentences in each language.
    failures : Audio file -> (reason, detail).

    Returns
    -------
    What stays, sorted by language, story and sentence, and numbered anew; and
    the ledger: an entry for each row that goes, with the number that it had,
    and one for each story that goes as a whole.
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
    place, column = table.column_names.index("sentence"), pa.array(anew, "i4")
    table = table.filter(pa.array(keep))
    return table.set_column(place, "sentence", column), ledger


def _whole_stories(keys: set[Sentence], lost: set[Sentence]) -> dict[str, str]:
    """Return the stories that go as a whole, each with its reason."""
    had = Counter(story for story, _ in keys)
    less = Counter(story for story, _ in lost)
    whole = {one: NOTHING_LEFT for one in less if had[one] == less[one]}
    names = groups_of(pa.array(list(had))).to_pylist()
    group_of = dict(zip(had, names, strict=True))
    items = {group_of[one] for one in less if group_of[one] != one}
    gone = "a part of the cloze item was left out"
    return whole | {k: gone for k, group in group_of.items() if group in items}
