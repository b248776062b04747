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
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from speechbrain_slm.evaluation.alignment.matches import units_of
from speechbrain_slm.evaluation.alignment.pairs import GROUP, SIDES
from speechbrain_slm.utils.atomic import atomic_path
from speechbrain_slm.utils.jobs import missing, run

PATTERN = "states-*.npy"


class Shard(NamedTuple):
    """Some consecutive pairs of one group.

    Arguments
    ---------
    start : int
        The first row of the table of pairs.
    end : int
        The row after the last.
    path : Path
        The file of their states.
    """

    start: int
    end: int
    path: Path


def cut_shards(
    pairs: pa.Table, pairs_per_shard: int, folder: Path
) -> list[list[Shard]]:
    """Cut each group of pairs into shards of a fixed size.

    Arguments
    ---------
    pairs : Of :func:`parallel_pairs`.

    Returns
    -------
    For each group its shards, in order.
    """
    changes = np.zeros(len(pairs), bool)
    for name in GROUP:
        values = pairs[name].combine_chunks().dictionary_encode().indices
        changes[1:] |= np.diff(values.to_numpy()) != 0
    edges = [0, *np.flatnonzero(changes).tolist(), len(pairs)]
    groups, count = [], itertools.count()
    for begin, end in itertools.pairwise(edges):
        starts = range(begin, end, pairs_per_shard)
        groups.append(
            [
                Shard(
                    start,
                    min(start + pairs_per_shard, end),
                    folder / PATTERN.replace("*", f"{next(count):05d}"),
                )
                for start in starts
            ]
        )
    return groups


def publish_missing(
    pairs: pa.Table, groups: list[list[Shard]], store, pooler
) -> None:
    """Compute this rank's share of the shards that are not there yet.

    Arguments
    ---------
    pairs : Of :func:`parallel_pairs`.
    groups : What :func:`cut_shards` returns.
    store : UnitStore
        Holds the units of the pairs.
    pooler : StatePooler
        Of the model.
    """

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
    states = pooler.states(sequences, names)
    states = states.reshape(len(SIDES), len(pairs), *states.shape[1:])
    return np.ascontiguousarray(states.transpose(2, 3, 0, 1, 4))


def open_part(shard: Shard, check: bool = False):
    """Map the states of a shard.

    Arguments
    ---------
    shard : One whose file is there.
    check : Compare all of it with its SHA-256.

    Returns
    -------
    numpy.memmap
        float32 ``[poolings, L + 1, sides, pairs, D]``.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    path, count = shard.path, shard.end - shard.start
    try:
        part = np.load(path, mmap_mode="r")
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); remove it and run again, only what "
            "is missing is computed"
        ) from error
    if part.ndim != 5 or part.shape[2:4] != (len(SIDES), count):
        raise ValueError(
            f"{path} has the shape {part.shape}, expected (poolings, layers, "
            f"{len(SIDES)}, {count}, width); remove it and run again"
        )
    if check:
        with open(path, "rb") as file:
            file.seek(-hashlib.sha256().digest_size, os.SEEK_END)
            expected = file.read()
        if hashlib.sha256(part).digest() != expected:
            raise ValueError(
                f"{path} is damaged: it differs from its SHA-256; remove it "
                "and run again, only what is missing is computed"
            )
    return part
