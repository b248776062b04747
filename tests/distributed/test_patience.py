"""A rank may need longer than the others by more than a barrier's time limit.

    torchrun --nproc_per_node=2 test_patience.py FOLDER

translates with a rank that is slow.
"""

import datetime
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from processes import ROOT, command, run

from speechbrain_slm.corpus.translation.tables import translate_table
from speechbrain_slm.utils import distributed

LIMIT = 8  # seconds


class Slow:
    """Rank 1 takes longer than the limit for its one shard."""

    @property
    def identity(self):
        return {"type": "slow"}

    def usage(self):
        return {}

    def translate(self, shards, check):
        for shard in shards:
            if not distributed.is_main():
                time.sleep(LIMIT + 3)
            yield [[text.upper() for text in s.sentences] for s in shard]


def test_a_slow_rank_is_waited_for(tmp_path):
    table = {"story_id": ["a", "b"], "en": ["One by one.", "Two of them."]}
    table["sentence"] = pa.array([0, 0], pa.int32())
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    code, output = run(
        command(__file__, tmp_path, ranks=2)[:-1],
        PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}",
    )
    assert code == 0, output
    found = pq.read_table(tmp_path / "out.parquet")["fr"].to_pylist()
    assert found == ["ONE BY ONE.", "TWO OF THEM."]


if __name__ == "__main__":
    distributed.TIMEOUT = datetime.timedelta(seconds=LIMIT)
    distributed.init_distributed("cpu")
    folder = Path(sys.argv[1])
    translate_table(
        folder / "in.parquet",
        folder / "out.parquet",
        "en",
        "fr",
        Slow(),
        folder / "parts",
        stories_per_shard=1,
    )
