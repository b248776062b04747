"""From the units of audio files to a unit store of stories.

A sentence whose audio is bad in one language goes in every language of its
story, so that sentence ``i`` says the same in all of them. Whatever goes is
written to a ledger with its reason.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.units.extraction import forget_rejects, read_utterances
from speechbrain_slm.units.manifest import content_identity
from speechbrain_slm.units.tokenizer import describe
from speechbrain_slm.utils.atomic import remove_temporary, write_atomic
from speechbrain_slm.utils.distributed import (
    barrier,
    is_main,
    rank,
    world_size,
)
from speechbrain_slm.utils.store import StoreWriter
from speechbrain_slm.utils.store_format import LEDGER, STORE_JSON, verify
from speechbrain_slm.utils.tables import MANIFEST

logger = logging.getLogger(__name__)


class TooManyRejects(ValueError):
    """More audio is bad than the run may leave out."""


def drop_rejected(table, utterances):
    """Leave out of a manifest what has no units, in every language.

    Arguments
    ---------
    table : pyarrow.Table
        A manifest.
    utterances : pyarrow.Table
        What ``read_utterances`` returns.

    Returns
    -------
    pyarrow.Table
        The rows that stay, with a column ``utterance``: the row of
        ``utterances``.
    list of dict
        The ledger: an entry for each row that was dropped or kept with a
        note, then one for each story of which nothing is left, both in the
        manifest's order.
    """
    utterance = pc.index_in(table["sha256"], utterances["sha256"])
    utterance = utterance.combine_chunks().to_numpy()
    table = table.append_column("utterance", pa.array(utterance))
    reasons = utterances["reason"].take(utterance)
    bad = pc.not_equal(reasons, "").to_numpy()
    story = _codes(table["story_id"])
    sentence = table["sentence"].to_numpy().astype(np.int64)
    place = story * (sentence.max() + 1) + sentence
    dropped = np.isin(place, place[bad])
    notes = utterances["note"].take(utterance)
    noted = pc.not_equal(notes, "").to_numpy() & ~dropped
    listed = np.flatnonzero(dropped | noted)
    columns = ["story_id", "sentence", "language", "audio"]
    entries = table.select(columns).take(listed).to_pylist()
    listed_reasons = reasons.take(listed).to_pylist()
    listed_notes = notes.take(listed).to_pylist()
    ledger = []
    for row, entry, reason, note in zip(
        listed, entries, listed_reasons, listed_notes, strict=True
    ):
        if noted[row]:
            ledger.append({**entry, "action": "kept", "reason": note})
        else:
            reason = reason or "the sentence was dropped in another language"
            ledger.append({**entry, "action": "dropped", "reason": reason})
    lost = np.setdiff1d(story, story[~dropped])
    _, first = np.unique(story, return_index=True)
    ledger += [
        {
            "story_id": table["story_id"][row].as_py(),
            "action": "dropped",
            "reason": "no sentence of the story is left",
        }
        for row in first[lost]
    ]
    return table.filter(pa.array(~dropped)).combine_chunks(), ledger


def _codes(column):
    """Number strings in the order of their first appearance."""
    encoded = pa.chunked_array(column).combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64)


def leave_out_rejects(manifests, utterances_folder, folder, max_rejects):
    """Take the bad audio out of all splits and write the ledger.

    Arguments
    ---------
    manifests : dict
        A manifest (pyarrow.Table) for each split.
    utterances_folder : str or Path
        What ``extract_utterances`` filled for these manifests.
    folder : str or Path
        Gets ``rejects.jsonl``.
    max_rejects : float
        The share of audio files that may be bad.

    Returns
    -------
    dict
        For each split what :func:`drop_rejected` keeps.

    Raises
    ------
    TooManyRejects
        If more files are bad. A rerun reads them again.
    ValueError
        If nothing is left of a split.
    """
    utterances = read_utterances(utterances_folder)
    ledger_path = Path(folder) / LEDGER
    kept, ledger = {}, []
    for split, table in manifests.items():
        kept[split], entries = drop_rejected(table, utterances)
        ledger += [{"split": split, **entry} for entry in entries]
    bad = int(pc.sum(pc.not_equal(utterances["reason"], "")).as_py())
    logger.info("%d of %d audio files are bad", bad, len(utterances))
    if is_main():
        lines = [json.dumps(line, ensure_ascii=False) for line in ledger]
        write_atomic(ledger_path, "".join(f"{line}\n" for line in lines))
        if bad > max_rejects * len(utterances):
            forget_rejects(utterances_folder)
            raise TooManyRejects(
                f"{bad} of {len(utterances)} audio files are bad "
                f"({bad / len(utterances):.2%}; max_rejects is "
                f"{max_rejects:.2%}). {ledger_path} names each with its "
                "reason. Mend them and run again, or raise max_rejects."
            )
    barrier()
    empty = [split for split, table in kept.items() if not len(table)]
    if empty:
        raise ValueError(
            f"No story is left of {', '.join(empty)}; {ledger_path} says why"
        )
    return kept


def assemble_stores(
    kept,
    utterances_folder,
    tokenizer,
    folder,
    bpe=None,
    stories_per_shard=5000,
):
    """Make the unit stores of all splits.

    Arguments
    ---------
    kept : dict
        What :func:`leave_out_rejects` returns.
    utterances_folder : str or Path
        What ``extract_utterances`` filled.
    tokenizer : Tokenizer
        What it was filled with.
    folder : str or Path
        Gets a store named after each split.
    bpe : UnitBPE, optional
        Turns the tokenizer's units into those of the store.
    stories_per_shard : int
        Stories in a file of a store, each in all of its languages.

    Raises
    ------
    ValueError
        If a store was begun with another configuration, or one that is there
        already is damaged.
    """
    units = read_utterances(utterances_folder)["units"].combine_chunks()
    bounds = units.offsets.to_numpy()
    encoded = np.split(units.flatten().to_numpy(), bounds[1:-1] - bounds[0])
    if bpe is not None:
        # A bad file has no units, and BPE of nothing is nothing.
        encoded = bpe.encode(encoded)
    for split, table in kept.items():
        _write_store(
            table,
            encoded,
            Path(folder) / split,
            describe(bpe or tokenizer),
            stories_per_shard,
        )


def _write_store(table, encoded, folder, tokenizer, stories_per_shard):
    # Without the paths: audio may move. What was dropped is not in it.
    source = content_identity(
        table, [name for name in MANIFEST.names if name != "audio"]
    )
    story = _codes(table["story_id"])
    language = _codes(table["language"])
    num_shards = -(-int(story.max() + 1) // stories_per_shard)
    plan = (tokenizer, source, num_shards, stories_per_shard)
    if is_main():
        # The ranks that come later find the plan.
        StoreWriter(folder, *plan)
        remove_temporary(folder)
    barrier()
    writer = StoreWriter(folder, *plan)
    order = np.lexsort((table["sentence"].to_numpy(), language, story))
    table = table.take(pa.array(order))
    story, language = story[order], language[order]
    change = (np.diff(story) != 0) | (np.diff(language) != 0)
    starts = np.concatenate(([0], np.flatnonzero(change) + 1))
    ends = np.append(starts[1:], len(order))
    names = [
        table[name].take(pa.array(starts)).to_pylist()
        for name in ("story_id", "language", "speaker")
    ]
    utterance = table["utterance"].to_numpy()
    shard = story[starts] // stories_per_shard
    for index in writer.missing():
        if index % world_size() != rank():
            continue
        writer.write(
            index,
            (
                (
                    *(column[row] for column in names),
                    [encoded[i] for i in utterance[starts[row] : ends[row]]],
                )
                for row in np.flatnonzero(shard == index)
            ),
        )
    barrier()
    if is_main():
        if (folder / STORE_JSON).is_file():
            info = verify(folder)
        else:
            info = writer.finish(num_rows=len(starts))
        logger.info("%s: %s", folder, info["counts"])
    barrier()
