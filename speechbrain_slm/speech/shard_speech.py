"""A shard of stories, spoken: its utterances, then its part.

A part is a piece (see ``utils.pieces``) of manifest rows; its facts say what
made it and hold the ledger. The parts that are there are what a run that was
killed has done.
"""

import logging
from collections import Counter
from pathlib import Path

import pyarrow as pa

from speechbrain_slm.speech.left_out import leave_out
from speechbrain_slm.speech.processes import run_in_workers
from speechbrain_slm.speech.utterances import speak_chunk
from speechbrain_slm.utils.jobs import PARTS, Progress
from speechbrain_slm.utils.ledger import TooManyLeftOut
from speechbrain_slm.utils.pieces import find_piece, write_piece
from speechbrain_slm.utils.tables import MANIFEST

logger = logging.getLogger(__name__)
SCHEMA = pa.schema([*MANIFEST, ("text", pa.string()), ("size", pa.int64())])
ROWS = "rows.parquet"
_CHUNK = 16  # utterances


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
    progress = Progress(len(utterances), "utterances")
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
        progress.add(len(results))
    seconds = sum(fact.num_samples for fact in facts.values())
    seconds /= planner.tts.sample_rate
    logger.info(
        "%d utterances, %.0f s of speech (%.0f x real time): %s",
        len(facts),
        seconds,
        seconds / len(facts) * progress.speed if facts else 0,
        ", ".join(f"{count} {state}" for state, count in counts.items()),
    )
    return facts, counts


def _most(max_left_out, utterances):
    """How many may fail in a shard: a small one may have its bad luck."""
    return max(max_left_out * utterances, 100 if max_left_out else 0)


def part_path(output_folder: str | Path, shard) -> Path:
    """Return where the part of a shard stands.

    Arguments
    ---------
    shard : Shard
        A shard of stories.

    """
    folder = Path(output_folder) / PARTS / shard.split
    return folder / f"{shard.number:05d}" / ROWS


def write_part(path: Path, table: pa.Table, facts: dict) -> None:
    """Publish a part.

    Arguments
    ---------
    path : See :func:`part_path`.
    table : Columns of ``SCHEMA``.
    facts : ``identity``, ``utterances`` and ``failed`` (counts), ``ledger``.
    """
    write_piece(path, table.select(SCHEMA.names).cast(SCHEMA), facts)


def is_complete(path: Path, identity: str, output_folder: str | Path) -> bool:
    """Tell whether a part is this run's and its audio is all there.

    Arguments
    ---------
    path : See :func:`part_path`.
    identity : What would make it now.
    output_folder : Where ``audio/`` is.

    """
    part = find_piece(path, ["audio", "size"])
    if part is None or part.facts["identity"] != identity:
        return False
    try:
        for name, size in set(
            zip(*part.table.to_pydict().values(), strict=True)
        ):
            if (Path(output_folder) / name).stat().st_size != size:
                return False
    except OSError:
        return False
    return True
