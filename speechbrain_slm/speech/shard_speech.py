"""A shard of stories, spoken: its utterances, then its part."""

import logging
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa

from speechbrain_slm.speech.left_out import leave_out
from speechbrain_slm.speech.parts import part_path, write_part
from speechbrain_slm.speech.processes import run_in_workers
from speechbrain_slm.speech.utterances import speak_chunk
from speechbrain_slm.utils.ledger import TooManyLeftOut

logger = logging.getLogger(__name__)
_CHUNK = 16  # utterances
_LOG_INTERVAL = 5.0  # seconds


def changed(path: str | Path):
    """Return the error of a table that changed while it was spoken.

    Returns
    -------
    ValueError
    """
    return ValueError(
        f"{path} was changed while it was spoken. Run the same command again: "
        "it speaks what the text is then, and keeps what it has spoken of it."
    )


def speak_shard(
    shard,
    identity: str,
    planner,
    output_folder: Path,
    num_workers: int,
    max_left_out: float,
) -> Counter:
    """Speak a shard and publish its part.

    Arguments
    ---------
    shard : Shard
        Of a stories table.
    identity : Of what it was when the run began.
    planner : Planner
        Says which file each sentence has.
    output_folder : Gets the audio and the part.
    max_left_out : Share of the utterances that may fail.

    Returns
    -------
    Of the states of utterances.

    Raises
    ------
    ValueError
        If the table holds other text now.
    TooManyLeftOut
        If more utterances fail.
    """
    table = planner.read(shard)
    if planner.identity(table) != identity:
        raise changed(shard.path)
    rows, utterances = planner.rows(table)
    facts, counts = _speak_all(
        utterances, output_folder, planner, num_workers, max_left_out
    )
    failures = {
        name: fact.failure for name, fact in facts.items() if fact.failure
    }
    rows, ledger = leave_out(rows, failures)
    audio = rows["audio"].combine_chunks().dictionary_encode()
    found = [facts[name] for name in audio.dictionary.to_pylist()]
    for column, kind in (
        ("num_samples", pa.int64()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
    ):
        values = pa.array([getattr(fact, column) for fact in found], kind)
        rows = rows.append_column(column, values.take(audio.indices))
    rate = pa.scalar(planner.tts.sample_rate, pa.int32())
    rows = rows.append_column("sample_rate", pa.repeat(rate, len(rows)))
    write_part(
        part_path(output_folder, shard),
        rows,
        {
            "identity": identity,
            "utterances": len(utterances),
            "failed": len(failures),
            "ledger": [{"split": shard.split, **entry} for entry in ledger],
        },
    )
    return counts


def _speak_all(utterances, output_folder, planner, num_workers, max_left_out):
    chunks = (
        utterances[start : start + _CHUNK]
        for start in range(0, len(utterances), _CHUNK)
    )
    context = (planner.tts, planner.shape, output_folder)
    texts = {one.audio: one for one in utterances}
    facts, counts = {}, Counter()
    begin = logged = time.monotonic()
    for results in run_in_workers(speak_chunk, context, chunks, num_workers):
        for fact in results:
            facts[fact.audio] = fact
            counts[fact.state] += 1
            if counts["failed"] > _most(max_left_out, len(utterances)):
                utterance = texts[fact.audio]
                reason, detail = fact.failure
                raise TooManyLeftOut(
                    f"cannot speak {utterance.text!r} with {utterance.voice}: "
                    f"{reason} ({detail}). It is failure {counts['failed']} "
                    f"among {len(utterances)} utterances of a shard, and "
                    f"max_left_out is {max_left_out:.2%}. Mend the texts or "
                    "the voices, or raise max_left_out: what fails is then "
                    "left out in every language and listed in left_out.jsonl."
                )
        now = time.monotonic()
        if now - logged >= _LOG_INTERVAL:
            logged = now
            left = (now - begin) / len(facts) * (len(utterances) - len(facts))
            logger.info(
                "%d of %d utterances, %.0f s left",
                len(facts),
                len(utterances),
                left,
            )
    wall = time.monotonic() - begin
    seconds = sum(fact.num_samples for fact in facts.values())
    seconds /= planner.tts.sample_rate
    logger.info(
        "%d utterances, %.0f s of speech, in %.0f s (%.0f x real time): %s",
        len(facts),
        seconds,
        wall,
        seconds / wall,
        ", ".join(f"{count} {state}" for state, count in counts.items()),
    )
    return facts, counts


def _most(max_left_out, utterances):
    """How many may fail in a shard: a small one may have its bad luck."""
    return max(max_left_out * utterances, 100 if max_left_out else 0)
