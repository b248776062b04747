"""From the units of audio files to a unit store of stories."""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from speechbrain_slm.units.manifest import content_identity
from speechbrain_slm.units.rejects import Kept
from speechbrain_slm.units.rows import Rows, StoryOrder
from speechbrain_slm.units.tokenizers.base import Tokenizer, describe
from speechbrain_slm.units.tokenizers.bpe import UnitBPE
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.jobs import claim, deal, run
from speechbrain_slm.utils.scratch import changes, fill, positions
from speechbrain_slm.utils.store import StoreWriter
from speechbrain_slm.utils.store_format import SEVERAL
from speechbrain_slm.utils.tables import MANIFEST

logger = logging.getLogger(__name__)

# Stories in a language whose sentences stand in memory at once. Fewer would
# look into every file of utterances more often.
_AT_ONCE = 2000


def assemble_stores(
    kept: dict[str, Kept],
    tokenizer: Tokenizer,
    folder: str | Path,
    bpe: UnitBPE | None = None,
    stories_per_shard: int = 5000,
) -> None:
    """Make a unit store of each split, named after it.

    ValueError if it was begun with another configuration, or is damaged.

    Arguments
    ---------
    bpe : Turns the tokenizer's units into those of the store.
    stories_per_shard : In a file of a store, each in all of its languages.
    """
    described = describe(bpe or tokenizer)
    for split, one in kept.items():
        place = Path(folder) / split
        _write_store(one, bpe, place, described, stories_per_shard)


def _write_store(
    kept: Kept,
    bpe: UnitBPE | None,
    folder: Path,
    tokenizer: dict[str, Any],
    stories_per_shard: int,
) -> None:
    # Without the paths: audio may move. What was dropped is not in it.
    names = [name for name in MANIFEST.names if name != "audio"]
    source = content_identity(kept.table, names, kept.rows)
    sentences = StoryOrder(kept.table, kept.rows)
    bounds, count = sentences.bounds, len(sentences.bounds) - 1
    # Which of the stories in a language is the first of its story.
    story = fill(count, np.uint32, lambda part: sentences.story[bounds[part]])
    starts = positions(changes(story))
    num_shards = -(-len(starts) // stories_per_shard)
    plan = (tokenizer, source, num_shards, stories_per_shard)
    with claim(folder):
        if is_main():
            # The ranks that come later find the plan.
            StoreWriter(folder, *plan)
        barrier()
        writer = StoreWriter(folder, *plan)
        rows = Rows(kept.table.select(["story_id", "language", "speaker"]))

        def write(index):
            # A story stands in one shard in all of its languages.
            end = (index + 1) * stories_per_shard
            first = int(starts[index * stories_per_shard])
            last = int(starts[end]) if end < len(starts) else count
            told = (
                bounds[here : min(here + _AT_ONCE, last) + 1]
                for here in range(first, last, _AT_ONCE)
            )
            here = (kept, rows, bpe, sentences.order)
            stories = (_stories(*here, one) for one in told)
            writer.write(index, itertools.chain.from_iterable(stories))

        run(deal(writer.missing()), write, "shards of the store")
        if is_main():
            info = writer.finish(num_rows=count)
            logger.info("%s: %s", folder, info["counts"])
        barrier()


def _stories(
    kept: Kept,
    rows: Rows,
    bpe: UnitBPE | None,
    order: np.ndarray,
    bounds: np.ndarray,
) -> Iterator[tuple]:
    """Yield some rows of a store's shard."""
    # Bounds 10, 12, 15 are stories of 2 and 3 sentences, at 10 of the order.
    order = order[bounds[0] : bounds[-1]]
    bounds = bounds.astype(np.int64) - bounds[0]
    # Stories share utterances; BPE would be made of each again.
    distinct, place = np.unique(kept.utterances[order], return_inverse=True)
    units = kept.speech.units(distinct)
    if bpe is not None:
        units = bpe.encode(units)
    sentences = [units[number] for number in place]
    told = rows.take(kept.rows[order])
    # A story that several tell has no one's name.
    names = told["speaker"].dictionary_encode()
    codes = names.indices.to_numpy()
    one = np.minimum.reduceat(codes, bounds[:-1])
    several = one != np.maximum.reduceat(codes, bounds[:-1])
    first = told.take(pa.array(bounds[:-1]))
    spans = itertools.pairwise(bounds)
    columns = (first.to_pylist(), several, spans)
    for row, many, (begin, end) in zip(*columns, strict=True):
        speaker = SEVERAL if many else row["speaker"]
        yield (row["story_id"], row["language"], speaker, sentences[begin:end])
