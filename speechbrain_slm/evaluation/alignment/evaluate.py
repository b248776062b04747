"""Hidden-state alignment: do translations have like states, at which layer?

The pairs are cut into shards of a fixed size. The pooled states of a shard are
published as one file, by whichever rank it falls to; then the main process
reads them in order, one pooling and layer at a time, and sums. So the results
do not depend on the number of processes, nothing is computed twice after a
kill, and the memory is that of a shard and of ``max_retrieval`` pairs.
"""

import hashlib
import io
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.alignment import metrics, report
from speechbrain_slm.evaluation.alignment.hidden_states import (
    POOLINGS,
    StatePooler,
)
from speechbrain_slm.evaluation.alignment.pairs import (
    GROUP,
    SIDES,
    VOICES,
    parallel_pairs,
    read_spoken,
    units_of,
)
from speechbrain_slm.evaluation.alignment.report import ALIGNMENT_JSON
from speechbrain_slm.evaluation.inputs import examine
from speechbrain_slm.models.export import load_speech_lm
from speechbrain_slm.utils.atomic import write_atomic, write_json
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.jobs import PARTS, claim, missing, run
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.tables import write_table

logger = logging.getLogger(__name__)

PAIRS_PARQUET = "pairs.parquet"
SUM = hashlib.sha256().digest_size  # bytes at the end of a file of states


class Shard(NamedTuple):
    """Some consecutive pairs of one group, and the file of their states.

    The file is float32 ``[poolings, L + 1, sides, pairs, D]``, of which each
    pooling and layer is read alone, and behind it the SHA-256 of it all.
    """

    start: int  # the first row of the table of pairs
    end: int  # the row after the last
    path: Path


def evaluate_alignment(
    model_folder: str | Path,
    units_folder: str | Path,
    output_folder: str | Path,
    languages: Sequence[str],
    manifest: str | Path | None = None,
    level: str = "sentence",
    voices: Sequence[str] = VOICES,
    poolings: Sequence[str] = POOLINGS,
    max_retrieval: int = 1000,
    gallery: int = 10,
    pairs_per_shard: int = 256,
    batch_tokens: int = 4096,
    seed: int = 0,
    device: str = "cpu",
) -> dict | None:
    """Measure the alignment of a model's states; the main rank gets results.

    Arguments
    ---------
    languages, level, voices : See :func:`parallel_pairs`.
    manifest : Of which the store was made; None: no text is known.
    poolings, batch_tokens : See :class:`StatePooler`.
    max_retrieval : Pairs in the matrix of similarities, 8 bytes an element.
    gallery : Candidates of one voice and like length, the right one too.
    pairs_per_shard : Pairs whose states a kill can lose.
    """
    how = {"max_retrieval": max_retrieval, "gallery": gallery, "seed": seed}
    check_number("max_retrieval", max_retrieval, at_least=2)
    check_number("gallery", gallery, at_least=2)
    check_number("pairs_per_shard", pairs_per_shard, at_least=1)
    store, poolings = UnitStore(units_folder), list(poolings)
    texts, speakers = read_spoken(manifest) if manifest else (None, None)
    model_identity, identities = examine(model_folder, store)
    told = texts, seed, speakers
    pairs, summaries = parallel_pairs(store, languages, level, voices, *told)
    states = {"format": report.FORMAT, "version": report.VERSION, **identities}
    states |= {"pairs": _identity(pairs), "level": level, "poolings": poolings}
    request = {**states, **how, "languages": summaries}
    folder = Path(output_folder)
    finished = _finished(folder, request)
    barrier()  # main writes it only after all have looked
    if finished is not None:
        return finished if is_main() else None
    model, units = load_speech_lm(model_folder, model_identity)
    pooler = StatePooler(
        # transformers' wrapper of it hides that it is bound.
        model.to(device),  # type: ignore[arg-type]
        *(units["vocabulary_size"], units["boundary"], units["language_tags"]),
        *(poolings, batch_tokens),
    )
    groups = _cut(pairs, pairs_per_shard, folder / PARTS)
    with claim(folder / PARTS) as place:
        place.pin({**states, "pairs_per_shard": pairs_per_shard}, "states-*")
        if is_main():
            write_table(folder / PAIRS_PARQUET, pairs)
        left = missing(itertools.chain(*groups), lambda one: one.path.is_file())
        run(left, lambda shard: _publish(shard, pairs, store, pooler))
    return _write(folder, request, pairs, groups) if is_main() else None


def _write(folder, request, pairs, groups):
    records = [r for shards in groups for r in _records(pairs, shards, request)]
    capped = any(record["n"] > request["max_retrieval"] for record in records)
    results = {**request, "retrieval_capped": capped, "records": records}
    write_json(folder / ALIGNMENT_JSON, results)
    return results


def _identity(pairs):
    # In parts: as text, a large table would need much more memory.
    batches = pairs.combine_chunks().to_batches(max_chunksize=4096)
    return identity_of([identity_of(batch.to_pydict()) for batch in batches])


def _finished(folder, request):
    for summary in request["languages"]:
        logger.info("%s", report.pairs_line(summary, request["level"]))
    if not (folder / ALIGNMENT_JSON).is_file():
        return None
    try:
        results = report.read_alignment(folder)
    except ValueError:
        # Not written by us (ours are whole): as good as none.
        return None
    if any(results.get(key) != request[key] for key in request):
        return None
    logger.info("%s is complete; nothing to do", folder / ALIGNMENT_JSON)
    return results


def _cut(pairs, size, folder):
    """Cut each group of pairs into shards of a fixed size."""
    # A shard never holds pairs of two groups, so a group's files are its own
    # and its results do not depend on which others were asked for.
    keys = zip(*(pairs[name].to_pylist() for name in GROUP), strict=True)
    groups, count, end = [], itertools.count(), 0
    for _, rows in itertools.groupby(keys):
        begin, end = end, end + len(list(rows))
        starts = range(begin, end, size)
        paths = (folder / f"states-{next(count):05d}.npy" for _ in starts)
        shards = zip(starts, [*starts[1:], end], paths, strict=True)
        groups.append([Shard(*shard) for shard in shards])
    return groups


def _publish(shard, pairs, store, pooler):
    content = io.BytesIO()
    rows = pairs.slice(shard.start, shard.end - shard.start)
    np.save(content, _states(rows, store, pooler))
    # Taken before anything is written: what a disk makes of it is found.
    content.write(hashlib.sha256(content.getbuffer()).digest())
    write_atomic(shard.path, content.getvalue())


def _states(pairs, store, pooler):
    sequences, names = [], []
    for side, row in itertools.product(SIDES, pairs.to_pylist()):
        story, number = row[f"{side}_story"], row[f"{side}_sentence"]
        language = row[f"{'source' if side == 'source' else 'target'}_language"]
        sequences.append((units_of(store, story, number, language), language))
        part = "" if number < 0 else f", sentence {number}"
        names.append(f"{store.folder}: story '{story}'{part} in '{language}'")
    # All at once: a sentence that is the source of one pair and the mismatch
    # of another goes through the model once.
    states = pooler.states(sequences, names)
    states = states.reshape(len(SIDES), len(pairs), *states.shape[1:])
    return np.ascontiguousarray(states.transpose(2, 3, 0, 1, 4))


def _check_part(path):
    content = memoryview(path.read_bytes())
    if hashlib.sha256(content[:-SUM]).digest() != content[-SUM:]:
        raise ValueError(
            f"{path} is damaged: it differs from its SHA-256; remove it and "
            "run again, only what is missing is computed"
        )


def _records(pairs, shards, request):
    """Yield the results of a group, for each pooling and layer."""
    begin, end = shards[0].start, shards[-1].end
    group = pairs.slice(begin, end - begin)
    seed, poolings = request["seed"], request["poolings"]
    generator = np.random.default_rng(seed)
    count = min(len(group), request["max_retrieval"])
    # Sorted, because states come in the order of the shards.
    drawn = np.sort(generator.permutation(len(group))[:count])
    chosen = group.take(pa.array(drawn))
    # Row i of each: whom source i, and whom target i, is compared with.
    galleries = [
        metrics.matched_galleries(
            chosen[f"{side}_units"].to_numpy(),
            chosen[f"{side}_speaker"].to_pylist(),
            *(request["gallery"], seed),
        )
        for side in ("target", "source")
    ]
    head = {name: group[name][0].as_py() for name in GROUP}
    head["voice"] = VOICES[not head.pop("same_voice")]
    # Once for all: below, each file is opened poolings x layers times.
    for shard in shards:
        _check_part(shard.path)
    layers = np.load(shards[0].path, mmap_mode="r").shape[1]
    for p, layer in itertools.product(range(len(poolings)), range(layers)):
        sums, kept = metrics.PairSums(), []
        for shard in shards:
            # Copied, and the file closed: what is mapped stays in memory.
            states = np.array(np.load(shard.path, mmap_mode="r")[p, layer])
            sums.add(*states)
            # Which of this shard's pairs were drawn: with 256 a shard, pair
            # 300 of its group is number 44 of the second.
            here = drawn - (shard.start - begin)
            here = here[(here >= 0) & (here < states.shape[1])]
            kept.append(states[:2, here])
        drawn_states = np.concatenate(kept, axis=1)
        sources, targets = map(metrics.unit_vectors, drawn_states)
        similarity = sources @ targets.T
        yield {
            **head,
            "pooling": poolings[p],
            "layer": layer,
            **sums.summary(),
            "n_retrieval": count,
            "retrieval": metrics.retrieval(similarity),
            "retrieval_matched": metrics.retrieval(similarity, *galleries),
        }
