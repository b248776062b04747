"""What is left out of the stores, and the ledger that says so.

A sentence whose audio is bad in one language goes in every language of its
story, so that sentence ``i`` says the same in all of them. Whatever goes is
written to a ledger with its reason.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from speechbrain_slm.units.rows import Rows, first_rows, numbers
from speechbrain_slm.units.utterances import Utterances, forget_rejects
from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.scratch import blocks, positions, scratch, select
from speechbrain_slm.utils.sharing import claim
from speechbrain_slm.utils.store_format import LEDGER

logger = logging.getLogger(__name__)


class TooManyRejects(ValueError):
    """More audio is bad than the run may leave out."""


class Kept(NamedTuple):
    """What is left of a manifest.

    Attributes
    ----------
    table : pyarrow.Table
        The whole manifest.
    rows : numpy.ndarray
        The rows that stay, uint32.
    utterances : numpy.ndarray
        For each of them its row in ``speech``, uint32. Both in files.
    speech : Utterances
        What these rows are of. Opened again, the folder may hold more files,
        and a row's number would lead to another utterance.
    """

    table: pa.Table
    rows: np.ndarray
    utterances: np.ndarray
    speech: Utterances


def drop_rejected(
    table: pa.Table, utterances: Utterances, location: np.ndarray
) -> tuple[Kept, Iterator[dict]]:
    """Leave out of a manifest what has no units, in every language.

    Arguments
    ---------
    utterances : The units of its audio.
    location : Where they are: ``utterances.locate(table)``.

    Returns
    -------
    Kept
        The rows that stay.
    iterator of dict
        The ledger: an entry for each row that was dropped or kept with a
        note, then one for each story of which nothing is left, both in the
        manifest's order.
    """
    bad = _of(location, utterances.has_text("reason"))
    dropped = _in_all_languages(table, bad)
    listed = _of(location, utterances.has_text("note"))
    kept = scratch(len(table), bool)
    for part in blocks(len(table)):
        listed[part] |= dropped[part]
        kept[part] = ~dropped[part]
    ledger = _ledger(table, utterances, location, dropped, listed)
    rows = positions(kept)
    return Kept(table, rows, select(location, kept), utterances), ledger


def _of(location, flags):
    found = scratch(len(location), bool)
    for part in blocks(len(location)):
        found[part] = flags[location[part]]
    return found


def _in_all_languages(table, bad):
    """Spread what is bad to the same sentence in the other languages."""
    if not bad.any():
        return bad
    story = first_rows(table, "story_id")
    sentence = numbers(table, "sentence", np.int64)
    # What is bad is little; an array of all would be sorted, too.
    lost = [np.zeros(0, dtype=np.int64)]
    for part in blocks(len(bad)):
        # Both are below 2^31 or 2^32.
        sentence[part] += story[part].astype(np.int64) << 31
        lost.append(sentence[part][bad[part]])
    lost, dropped = np.unique(np.concatenate(lost)), scratch(len(bad), bool)
    for part in blocks(len(bad)):
        dropped[part] = np.isin(sentence[part], lost)
    return dropped


def _ledger(table, utterances, location, dropped, listed):
    columns = ["story_id", "sentence", "language", "audio"]
    rows = Rows(table.select(columns))
    listed = positions(listed)
    for part in blocks(len(listed)):
        here = listed[part]
        entries = rows.take(here).to_pylist()
        texts = utterances.texts(location[here])
        for row, entry, text in zip(here, entries, texts, strict=True):
            if dropped[row]:
                action, reason = "dropped", text["reason"]
                reason = (
                    reason or "the sentence was dropped in another language"
                )
            else:
                action, reason = "kept", text["note"]
            yield {**entry, "action": action, "reason": reason}
    if not dropped.any():
        return
    story = first_rows(table, "story_id")
    left = scratch(len(table), bool)
    for part in blocks(len(table)):
        left[story[part][~dropped[part]]] = True
    for part in blocks(len(table)):
        # A story is listed where it first appears.
        first = story[part] == np.arange(part.start, part.stop)
        gone = np.flatnonzero(first & ~left[part]) + part.start
        for entry in rows.take(gone).to_pylist():
            reason = "no sentence of the story is left"
            yield {
                "story_id": entry["story_id"],
                "action": "dropped",
                "reason": reason,
            }


def leave_out_rejects(
    manifests: dict,
    utterances_folder: str | Path,
    folder: str | Path,
    max_rejects: float,
) -> dict:
    """Take the bad audio out of all splits and write the ledger.

    Arguments
    ---------
    manifests : A manifest (pyarrow.Table) for each split.
    utterances_folder : What ``extract_utterances`` filled for these manifests.
    folder : Gets ``rejects.jsonl``.
    max_rejects : The share of audio files that may be bad.

    Returns
    -------
    For each split what :func:`drop_rejected` keeps.

    Raises
    ------
    TooManyRejects
        If more files are bad. A rerun reads them again.
    ValueError
        If nothing is left of a split, or the extraction is not complete.
    """
    utterances = Utterances(utterances_folder)
    used, found = scratch(len(utterances), bool), {}
    for split, table in manifests.items():
        location = utterances.locate(table)
        for part in blocks(len(location)):
            used[location[part]] = True
        found[split] = drop_rejected(table, utterances, location)
    utterances.forget_index()
    bad = select(utterances.has_text("reason"), used)
    num_bad, num_files = np.count_nonzero(bad), len(bad)
    logger.info("%d of %d audio files are bad", num_bad, num_files)
    ledger = Path(folder) / LEDGER
    if is_main():
        _write_ledger(ledger, found)
        if num_bad > max_rejects * num_files:
            with claim(utterances_folder):
                forget_rejects(utterances_folder)
            raise TooManyRejects(
                f"{num_bad} of {num_files} audio files are bad "
                f"({num_bad / num_files:.2%}; max_rejects is "
                f"{max_rejects:.2%}). {ledger} names each with its reason. "
                "Mend them and run again, or raise max_rejects."
            )
    kept = {split: one for split, (one, _) in found.items()}
    barrier()
    empty = [split for split, one in kept.items() if not len(one.rows)]
    if empty:
        raise ValueError(
            f"No story is left of {', '.join(empty)}; {ledger} says why"
        )
    return kept


def _write_ledger(path, found):
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        for split, (_, ledger) in found.items():
            for entry in ledger:
                line = {"split": split, **entry}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
