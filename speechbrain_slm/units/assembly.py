"""From the units of audio files to a unit store of stories."""

import itertools
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.units.manifest import content_identity
from speechbrain_slm.units.rejects import Kept
from speechbrain_slm.units.rows import Rows, StoryOrder
from speechbrain_slm.units.tokenizers.base import (
    DESCRIPTION,
    Tokenizer,
    describe,
)
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
    """Make a unit store of each split, named after it; the tokenizer beside.

    ValueError if it was begun with another configuration, or is damaged.

    Arguments
    ---------
    bpe : Turns the tokenizer's units into those of the store.
    stories_per_shard : In a file of a store, each in all of its languages.
    """
    told = describe(bpe or tokenizer), stories_per_shard
    for split, one in kept.items():
        _write_store(one, bpe, Path(folder) / split, *told)
    # One that was finished stands elsewhere, and an LM is exported with it.
    place = Path(folder) / "tokenizer"
    if is_main() and not (place / DESCRIPTION).is_file():
        if bpe is not None:
            bpe.save(place / "bpe")
        tokenizer.save(place)
    barrier()


def _write_store(kept, bpe, folder, tokenizer, stories_per_shard):
    # Without the paths: audio may move. What was dropped is not in it.
    names = [name for name in MANIFEST.names if name != "audio"]
    source = content_identity(kept.table, names, kept.rows)
    sentences = StoryOrder(kept.table, kept.rows)
    bounds, count = sentences.bounds, len(sentences.bounds) - 1
    # Which of the stories in a language is the first of its story.
    story = fill(count, np.uint32, lambda part: sentences.story[bounds[part]])
    # A story stands in one shard in all of its languages.
    starts = [*positions(changes(story))[::stories_per_shard].tolist(), count]
    plan = (tokenizer, source, len(starts) - 1, stories_per_shard)
    with claim(folder):
        if is_main():
            # The ranks that come later find the plan.
            StoreWriter(folder, *plan)
        barrier()
        writer = StoreWriter(folder, *plan)
        rows = Rows(kept.table.select(["story_id", "language", "speaker"]))

        def write(index):
            first, last = starts[index : index + 2]
            here = (kept, rows, bpe, sentences.order)
            stories = (
                _stories(*here, bounds[at : min(at + _AT_ONCE, last) + 1])
                for at in range(first, last, _AT_ONCE)
            )
            writer.write(index, itertools.chain.from_iterable(stories))

        run(deal(writer.missing()), write, "shards of the store")
        if is_main():
            info = writer.finish(num_rows=count)
            logger.info("%s: %s", folder, info["counts"])
        barrier()


def _stories(kept, rows, bpe, order, bounds):
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
    first = told.take(pa.array(bounds[:-1])).to_pylist()
    columns = (first, several, itertools.pairwise(bounds))
    for row, many, (begin, end) in zip(*columns, strict=True):
        speaker = SEVERAL if many else row["speaker"]
        yield (row["story_id"], row["language"], speaker, sentences[begin:end])
