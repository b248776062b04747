"""What is left out of the stores, and the ledger that says so.

A sentence whose audio is bad in one language goes in every language of its
story, so that sentence ``i`` says the same in all of them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from speechbrain_slm.units.rows import Rows, first_rows, parts
from speechbrain_slm.units.utterances import Utterances, forget_rejects
from speechbrain_slm.utils import ledger as left_out
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.jobs import claim
from speechbrain_slm.utils.scratch import (
    blocks,
    fill,
    positions,
    scratch,
    select,
)

logger = logging.getLogger(__name__)
OLD_LEDGER = "rejects.jsonl"  # what it was called; a link leads there


class Kept(NamedTuple):
    """What is left of a manifest; the arrays are uint32, in files."""

    table: pa.Table  # the whole manifest
    rows: np.ndarray  # of it, those that stay
    utterances: np.ndarray  # for each of them its row in ``speech``
    # Opened again, the folder may hold more files, and a row's number would
    # lead to another utterance.
    speech: Utterances


def drop_rejected(
    table: pa.Table, utterances: Utterances, location: np.ndarray
) -> tuple[Kept, Iterator[dict]]:
    """Leave out of a manifest what has no units, in every language.

    ``location`` is ``utterances.locate(table)``. Returns what stays, and the
    ledger: an entry for each row that was dropped or kept with a note, then one
    for each story that goes as a whole, in the manifest's order.
    """
    rejected, noted = (utterances.has_text(one) for one in ("reason", "note"))
    count = len(table)
    bad = fill(count, bool, lambda part: rejected[location[part]])
    lost, whole = _in_all_languages(table, bad)
    told = fill(count, bool, lambda part: noted[location[part]] | lost[part])
    kept = fill(count, bool, lambda part: ~lost[part])
    here = positions(told), whole
    ledger = _entries(table, utterances, location, lost, *here)
    located = select(location, kept)
    return Kept(table, positions(kept), located, utterances), ledger


def _in_all_languages(table, bad):
    """Spread what is bad: which rows go, and of which stories all.

    A story is named by its first row.
    """
    if not bad.any():
        return bad, np.zeros(0, np.int64)
    story = first_rows(table, "story_id")
    sentence, found = scratch(len(table), np.int64), []
    for part, batch in parts(table, ["sentence"]):
        # Both are below 2^31 or 2^32.
        sentence[part] = story[part].astype(np.int64) << 31
        sentence[part] += batch["sentence"].to_numpy()
        found.append(sentence[part][bad[part]])
    # What is bad is little, and so are the stories that it hurts; arrays of
    # all would be sorted, too.
    gone = np.unique(np.concatenate(found))
    hurt, less = np.unique(gone >> 31, return_counts=True)
    cut = [sentence[part] for part in blocks(len(bad))]  # views
    told = [here[np.isin(here >> 31, hurt)] for here in cut]
    told = np.unique(np.concatenate(told))
    _, had = np.unique(told >> 31, return_counts=True)
    lost = fill(len(bad), bool, lambda part: np.isin(sentence[part], gone))
    return lost, hurt[had == less]


def _entries(table, utterances, location, lost, listed, whole):
    rows = Rows(table.select(["story_id", "sentence", "language", "audio"]))
    for part in blocks(len(listed)):
        here = listed[part]
        entries = rows.take(here).to_pylist()
        texts = utterances.texts(location[here])
        for row, entry, text in zip(here, entries, texts, strict=True):
            action, reason = "kept", text["note"]
            if lost[row]:
                action, reason = "dropped", text["reason"] or left_out.ELSEWHERE
            yield {**entry, "action": action, "reason": reason}
    told = {"action": "dropped", "reason": left_out.NOTHING_LEFT}
    for story in rows.take(whole)["story_id"].to_pylist():
        yield {"story_id": story, **told}


def leave_out_rejects(
    manifests: dict[str, pa.Table],
    utterances_folder: str | Path,
    folder: str | Path,
    max_rejects: float,
) -> dict[str, Kept]:
    """Take the bad audio out of all splits, and write ``left_out.jsonl``.

    ValueError if nothing is left of a split, or the extraction is incomplete.

    Arguments
    ---------
    utterances_folder : What ``extract_utterances`` filled for these manifests.
    max_rejects
        The share of audio files that may be bad. If more are, TooManyLeftOut;
        a rerun reads them again.
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
    logger.info("%d of %d audio files are bad", bad.sum(), len(bad))
    path = Path(folder) / left_out.LEDGER
    if is_main():
        with left_out.open_ledger(path) as ledger:
            for split, (_, entries) in found.items():
                for entry in entries:
                    ledger.write(split=split, **entry)
        old = path.with_name(OLD_LEDGER)
        with contextlib.suppress(OSError):  # Not every disk has links.
            old.unlink(missing_ok=True)
            old.symlink_to(path.name)

        def forget():
            with claim(utterances_folder):
                forget_rejects(utterances_folder)

        lost = ("audio files", int(np.count_nonzero(bad)), len(bad))
        told = (str(ledger), path, "Mend them and run again.")
        left_out.check_share(*lost, max_rejects, *told, forget, "max_rejects")
    kept = {split: one for split, (one, _) in found.items()}
    barrier()
    if empty := [split for split, one in kept.items() if not len(one.rows)]:
        text = f"No story is left of {', '.join(empty)}; {path} says why"
        raise ValueError(text)
    return kept
