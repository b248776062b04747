"""Pooled states of pairs on the disk, a file a shard of pairs.

A file is float32 ``[poolings, L + 1, sides, pairs, D]``: each pooling and
layer stands in one piece, which is read alone. Behind the array stands its
SHA-256, taken before anything was written.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from speechbrain_slm.evaluation.alignment.matches import units_of
from speechbrain_slm.evaluation.alignment.pairs import GROUP, SIDES
from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.jobs import missing, run

if TYPE_CHECKING:
    from speechbrain_slm.dataio.reader import UnitStore
    from speechbrain_slm.evaluation.alignment.hidden_states import StatePooler

PATTERN = "states-*.npy"


class Shard(NamedTuple):
    """Some consecutive pairs of one group."""

    start: int  # the first row of the table of pairs
    end: int  # the row after the last
    path: Path  # the file of their states


def cut_shards(
    pairs: pa.Table, pairs_per_shard: int, folder: Path
) -> list[list[Shard]]:
    """Cut each group of pairs into shards of a fixed size."""
    # A shard never holds pairs of two groups, so a group's files are its own
    # and its results do not depend on which others were asked for.
    changes = np.zeros(len(pairs), bool)
    for name in GROUP:
        values = pairs[name].combine_chunks().dictionary_encode().indices
        changes[1:] |= np.diff(values.to_numpy()) != 0
    edges = [0, *np.flatnonzero(changes).tolist(), len(pairs)]
    count = itertools.count()
    return [
        [
            Shard(
                start,
                min(start + pairs_per_shard, end),
                folder / PATTERN.replace("*", f"{next(count):05d}"),
            )
            for start in range(begin, end, pairs_per_shard)
        ]
        for begin, end in itertools.pairwise(edges)
    ]


def publish_missing(
    pairs: pa.Table,
    groups: list[list[Shard]],
    store: UnitStore,
    pooler: StatePooler,
) -> None:
    """Compute this rank's share of the shards that are not there yet."""

    def publish(shard):
        start, end, path = shard
        states = _states(pairs.slice(start, end - start), store, pooler)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, states)
            file.write(hashlib.sha256(states).digest())

    shards = itertools.chain(*groups)
    run(missing(shards, lambda shard: shard.path.is_file()), publish)


def _states(pairs, store, pooler):
    sequences, names = [], []
    for side, row in itertools.product(SIDES, pairs.to_pylist()):
        story, number = row[f"{side}_story"], row[f"{side}_sentence"]
        language = row[f"{'source' if side == 'source' else 'target'}_language"]
        units = units_of(store, story, number, language)
        sequences.append((units, language))
        part = "" if number < 0 else f", sentence {number}"
        names.append(f"{store.folder}: story '{story}'{part} in '{language}'")
    # All at once: a sentence that is the source of one pair and the mismatch
    # of another goes through the model once.
    states = pooler.states(sequences, names)
    states = states.reshape(len(SIDES), len(pairs), *states.shape[1:])
    return np.ascontiguousarray(states.transpose(2, 3, 0, 1, 4))


def open_part(shard: Shard, check: bool = False) -> np.ndarray:
    """Map the states of a shard; ``check`` compares all with its SHA-256."""
    path, count = shard.path, shard.end - shard.start
    advice = "remove it and run again, only what is missing is computed"
    try:
        part = np.load(path, mmap_mode="r")
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); {advice}") from error
    if part.ndim != 5 or part.shape[2:4] != (len(SIDES), count):
        raise ValueError(
            f"{path} has the shape {part.shape}, expected (poolings, layers, "
            f"{len(SIDES)}, {count}, width); {advice}"
        )
    if check:
        with open(path, "rb") as file:
            file.seek(-hashlib.sha256().digest_size, os.SEEK_END)
            expected = file.read()
        if hashlib.sha256(part).digest() != expected:
            raise ValueError(
                f"{path} is damaged: it differs from its SHA-256; {advice}"
            )
    return part
