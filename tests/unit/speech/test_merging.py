"""What is left of the items when stories are not there."""

import pyarrow as pa
import pyarrow.parquet as pq

from speechbrain_slm.speech.merging import merge_parts
from speechbrain_slm.speech.shard_speech import SCHEMA, part_path
from speechbrain_slm.speech.story_shards import Shard
from speechbrain_slm.utils.pieces import write_piece
from speechbrain_slm.utils.tables import ITEMS, write_table


def merge(folder, stories):
    """Merge a split of stories of one sentence; return the items' names."""
    shard = Shard("cloze", 0, folder / "cloze.parquet", 0, len(stories))
    row = dict.fromkeys(SCHEMA.names, "x")
    row |= dict.fromkeys(("sentence", "num_samples", "sample_rate", "size"), 0)
    table = pa.Table.from_pylist(
        [{**row, "story_id": name} for name in stories], SCHEMA
    )
    facts = {"identity": "", "utterances": 1, "failed": 0, "ledger": []}
    write_piece(part_path(folder, shard), table, facts)
    merge_parts({shard: ""}, folder, 0.0)
    return pq.read_table(folder / "items.parquet")["item_id"].to_pylist()


def test_an_item_goes_whose_story_is_not_there(tmp_path):
    """A translation may have left out a part of an item."""
    names = ("prompt", "right", "wrong")
    rows = [
        {
            **dict.fromkeys(ITEMS.names, "en"),
            **{name: f"{item}.{name}" for name in names},
            "item_id": item,
        }
        for item in "abc"
    ]
    rows[2]["prompt"] = ""
    write_table(
        tmp_path / "items.parquet", pa.Table.from_pylist(rows, schema=ITEMS)
    )
    # None of the items' stories: they are those of another run.
    assert merge(tmp_path, ["train-1"]) == ["a", "b", "c"]
    there = ["a.prompt", "a.right", "b.prompt", "b.right", "b.wrong"]
    there += ["c.right", "c.wrong"]
    assert merge(tmp_path, there) == ["b", "c"]
