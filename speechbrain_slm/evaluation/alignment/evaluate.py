"""Hidden-state alignment: do translations have like states, at which layer?

The pairs are cut into shards of a fixed size. The pooled states of a shard are
published as one file, by whichever rank it falls to; then the main process
reads them in order, one pooling and layer at a time, and sums. So the results
do not depend on the number of processes, nothing is computed twice after a
kill, and the memory is that of a shard and of ``max_retrieval`` pairs,
however many there are.
"""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.alignment.hidden_states import (
    POOLINGS,
    StatePooler,
)
from speechbrain_slm.evaluation.alignment.matches import read_spoken
from speechbrain_slm.evaluation.alignment.metrics import (
    PairSums,
    matched_galleries,
    retrieval,
    unit_vectors,
)
from speechbrain_slm.evaluation.alignment.pairs import (
    VOICES,
    parallel_pairs,
)
from speechbrain_slm.evaluation.alignment.report import (
    ALIGNMENT_JSON,
    FORMAT,
    VERSION,
    pairs_line,
    read_alignment,
)
from speechbrain_slm.evaluation.alignment.state_parts import (
    PATTERN,
    cut_shards,
    open_part,
    publish_missing,
)
from speechbrain_slm.evaluation.inputs import check_tokenizer
from speechbrain_slm.models.export import (
    examine_speech_lm,
    load_speech_lm,
)
from speechbrain_slm.utils.atomic import write_json
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.jobs import claim
from speechbrain_slm.utils.tables import write_table

logger = logging.getLogger(__name__)

PAIRS_PARQUET = "pairs.parquet"
PARTS = "parts"


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
    """Measure the alignment of a model's states over the pairs of a store.

    Every rank calls it. ``pairs.parquet`` says what was compared with what,
    ``parts/`` holds the states, ``alignment.json`` the results; each file is
    written whole or not at all. Where ``alignment.json`` is there for the
    same model, pairs and settings, it is returned as it is.

    Arguments
    ---------
    units_folder : A unit store of aligned stories.
    languages : Two or more; each pair of them is compared.
    manifest
        The spoken manifest of which the store was made; its texts say which
        sentences are equal, and who says each where a story has several
        speakers. Without texts there are no pairs of another story, so
        different voices only where the speakers of a story differ.
    level : ``sentence`` or ``story``: what is compared, read by itself.
    voices : ``same``, ``different`` or both; see :func:`parallel_pairs`.
    poolings : Of ``hidden_states.POOLINGS``.
    max_retrieval
        Pairs in the matrix of similarities, which takes 8 bytes an element;
        drawn by the seed where there are more.
    gallery
        Candidates, the right one among them, where those of other voices and
        lengths are kept out.
    pairs_per_shard
        Pairs a file in ``parts/``: what a kill can lose of a rank's work.
    batch_tokens : Positions a batch, padding included; bounds the memory.
    seed : For choosing among equal pairs and for the draw of ``max_retrieval``.

    Returns
    -------
    The content of ``alignment.json``; None on ranks other than 0.

    Raises
    ------
    ValueError
        If the model was trained on units of another tokenizer, or ``parts/``
        holds states of another model, other pairs or poolings; see also
        :func:`parallel_pairs` and :class:`StatePooler`.
    """
    for name, value, least in (
        ("max_retrieval", max_retrieval, 2),
        ("gallery", gallery, 2),
        ("pairs_per_shard", pairs_per_shard, 1),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}; expected >= {least}")
    if not poolings:
        raise ValueError(f"poolings is empty; expected {', '.join(POOLINGS)}")
    store = UnitStore(units_folder)
    texts = speakers = None
    if manifest:
        texts, speakers = read_spoken(manifest)
    units, model_identity = examine_speech_lm(model_folder)
    check_tokenizer(units, store, model_folder)
    pairs, summaries = parallel_pairs(
        store, languages, level, voices, texts, seed, speakers
    )
    for summary in summaries:
        logger.info("%s", pairs_line(summary, level))
    plan = {
        "format": FORMAT,
        "version": VERSION,
        **model_identity,
        "tokenizer": store.identity,
        "units": store.info["identity"],
        "pairs": _identity(pairs),
        "level": level,
        "poolings": list(poolings),
    }
    request = {
        **plan,
        "max_retrieval": max_retrieval,
        "gallery": gallery,
        "seed": seed,
        "languages": summaries,
    }
    folder = Path(output_folder)
    finished = _finished(folder / ALIGNMENT_JSON, request)
    # Main writes it only after all have looked.
    barrier()
    if finished is not None:
        logger.info("%s is complete; nothing to do", folder / ALIGNMENT_JSON)
        return finished if is_main() else None
    model, units = load_speech_lm(model_folder, model_identity)
    pooler = StatePooler(
        model.to(device),
        units["vocabulary_size"],
        units["boundary"],
        units["language_tags"],
        poolings,
        batch_tokens,
    )
    groups = cut_shards(pairs, pairs_per_shard, folder / PARTS)
    with claim(folder / PARTS) as place:
        place.pin({**plan, "pairs_per_shard": pairs_per_shard}, PATTERN)
        if is_main():
            write_table(folder / PAIRS_PARQUET, pairs)
        publish_missing(pairs, groups, store, pooler)
    if not is_main():
        return None
    records = [
        record
        for shards in groups
        for record in _records(
            pairs, shards, poolings, max_retrieval, gallery, seed
        )
    ]
    capped = any(record["n"] > max_retrieval for record in records)
    results = {**request, "retrieval_capped": capped, "records": records}
    write_json(folder / ALIGNMENT_JSON, results)
    return results


def _identity(pairs):
    # In parts: as text, a large table would need much more memory.
    batches = pairs.combine_chunks().to_batches(max_chunksize=4096)
    return identity_of([identity_of(batch.to_pydict()) for batch in batches])


def _finished(path, request):
    if not path.is_file():
        return None
    try:
        results = read_alignment(path.parent)
    except ValueError:
        # Not written by us (ours are whole): as good as none.
        return None
    same = all(results.get(key) == request[key] for key in request)
    return results if same else None


def _records(pairs, shards, poolings, max_retrieval, gallery, seed):
    """Yield the results of a group, for each pooling and layer."""
    begin, end = shards[0].start, shards[-1].end
    group = pairs.slice(begin, end - begin)
    generator = np.random.default_rng(seed)
    count = min(len(group), max_retrieval)
    drawn = np.sort(generator.permutation(len(group))[:count])
    chosen = group.take(pa.array(drawn))
    # Row i of each: whom source i, and whom target i, is compared with.
    galleries = [
        matched_galleries(
            chosen[f"{side}_units"].to_numpy(),
            chosen[f"{side}_speaker"].to_pylist(),
            gallery,
            seed,
        )
        for side in ("target", "source")
    ]
    head = group.select(["source_language", "target_language"])
    head = head.slice(0, 1).to_pylist()[0]
    head["voice"] = VOICES[not group["same_voice"][0].as_py()]
    for shard in shards:
        layers = open_part(shard, check=True).shape[1]
    for p, layer in itertools.product(range(len(poolings)), range(layers)):
        sums, kept = PairSums(), []
        for shard in shards:
            # Copied, and the file closed: what is mapped stays in memory.
            states = np.array(open_part(shard)[p, layer])
            sums.add(*states)
            here = drawn - (shard.start - begin)
            here = here[(here >= 0) & (here < states.shape[1])]
            kept.append(states[:2, here])
        sources, targets = map(unit_vectors, np.concatenate(kept, axis=1))
        similarity = sources @ targets.T
        yield {
            **head,
            "pooling": poolings[p],
            "layer": layer,
            **sums.summary(),
            "n_retrieval": count,
            "retrieval": retrieval(similarity),
            "retrieval_matched": retrieval(similarity, *galleries),
        }
