"""From the units of audio files to a unit store of stories."""

import itertools
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.units.manifest import content_identity
from speechbrain_slm.units.rows import Rows, StoryOrder
from speechbrain_slm.units.tokenizers.base import describe
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.jobs import claim, deal, run
from speechbrain_slm.utils.scratch import blocks, scratch
from speechbrain_slm.utils.store import StoreWriter
from speechbrain_slm.utils.store_format import SEVERAL
from speechbrain_slm.utils.tables import MANIFEST

logger = logging.getLogger(__name__)

# Stories in a language whose sentences stand in memory at once. Fewer would
# look into every file of utterances more often.
_AT_ONCE = 2000


def assemble_stores(
    kept: dict,
    tokenizer,
    folder: str | Path,
    bpe=None,
    stories_per_shard: int = 5000,
) -> None:
    """Make the unit stores of all splits.

    Arguments
    ---------
    kept : What ``rejects.leave_out_rejects`` returns.
    tokenizer : Tokenizer
        Made its units.
    folder : Gets a store named after each split.
    bpe : UnitBPE, optional
        Turns the tokenizer's units into those of the store.
    stories_per_shard
        Stories in a file of a store, each in all of its languages.

    Raises
    ------
    ValueError
        If a store was begun with another configuration, or one that is there
        already is damaged.
    """
    for split, one in kept.items():
        _write_store(
            one,
            _Speech(one.speech, bpe),
            Path(folder) / split,
            describe(bpe or tokenizer),
            stories_per_shard,
        )


class _Speech:
    """The units of sentences, by the rows of their utterances."""

    def __init__(self, utterances, bpe) -> None:
        self.utterances = utterances
        self.bpe = bpe

    def sentences(self, rows):
        # Stories share utterances; BPE would be made of each again.
        distinct, place = np.unique(rows, return_inverse=True)
        units = self.utterances.units(distinct)
        if self.bpe is not None:
            units = self.bpe.encode(units)
        return [units[number] for number in place]


def _write_store(kept, speech, folder, tokenizer, stories_per_shard):
    # Without the paths: audio may move. What was dropped is not in it.
    names = [name for name in MANIFEST.names if name != "audio"]
    source = content_identity(kept.table, names, kept.rows)
    sentences = StoryOrder(kept.table, kept.rows)
    story = _story_numbers(sentences)
    num_shards = -(-(int(story[-1]) + 1) // stories_per_shard)
    plan = (tokenizer, source, num_shards, stories_per_shard)
    with claim(folder):
        if is_main():
            # The ranks that come later find the plan.
            StoreWriter(folder, *plan)
        barrier()
        writer = StoreWriter(folder, *plan)
        rows = Rows(kept.table.select(["story_id", "language", "speaker"]))

        def write(index):
            first, last = np.searchsorted(
                story,
                # Of another type, all of them would be copied.
                np.array([index, index + 1], story.dtype)
                * story.dtype.type(stories_per_shard),
            )
            told = (
                sentences.bounds[here : min(here + _AT_ONCE, last) + 1]
                for here in range(first, last, _AT_ONCE)
            )
            stories = (
                _stories(kept, rows, speech, sentences.order, bounds)
                for bounds in told
            )
            writer.write(index, itertools.chain.from_iterable(stories))

        run(deal(writer.missing()), write, "shards of the store")
        if is_main():
            info = writer.finish(num_rows=len(story))
            logger.info("%s: %s", folder, info["counts"])
        barrier()


def _story_numbers(sentences):
    """Number the story of each story in a language: 0, 0, 1, 1, ..."""
    bounds = sentences.bounds
    found = scratch(len(bounds) - 1, np.uint32)
    number, before = -1, -1
    for part in blocks(len(found)):
        story = sentences.story[bounds[part]].astype(np.int64)
        change = np.diff(story, prepend=before) != 0
        found[part] = number + np.cumsum(change)
        number, before = int(found[part.stop - 1]), story[-1]
    return found


def _stories(kept, rows, speech, order, bounds):
    """Yield some rows of a store's shard."""
    order = order[bounds[0] : bounds[-1]]
    bounds = bounds.astype(np.int64) - bounds[0]
    sentences = speech.sentences(kept.utterances[order])
    told = rows.take(kept.rows[order])
    # A story that several tell has no one's name.
    names = told["speaker"].dictionary_encode()
    codes = names.indices.to_numpy()
    one = np.minimum.reduceat(codes, bounds[:-1])
    several = one != np.maximum.reduceat(codes, bounds[:-1])
    first = told.take(pa.array(bounds[:-1]))
    spans = itertools.pairwise(bounds)
    for row, many, (begin, end) in zip(
        first.to_pylist(), several, spans, strict=True
    ):
        speaker = SEVERAL if many else row["speaker"]
        yield (row["story_id"], row["language"], speaker, sentences[begin:end])
