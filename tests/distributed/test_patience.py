"""A barrier waits for a rank that is slow, and not for one that is gone.

    torchrun --nproc_per_node=2 test_patience.py FOLDER

translates with a rank that is slow; with the word "stopped", rank 1 is before
a barrier; with neither, it ends there.
"""

import datetime
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from processes import ROOT, by_hand, command, free_port, run, start

from speechbrain_slm.stories.translation.tables import translate_table
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


def test_a_rank_that_ends_ends_those_of_other_nodes(tmp_path):
    port = free_port()
    agents = [
        start(
            [
                *(sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes=2", "--nproc_per_node=1", f"--node_rank={number}"),
                *("--rdzv_backend=c10d", "--rdzv_id=patience"),
                f"--rdzv_endpoint=127.0.0.1:{port}",
                __file__,
            ],
            PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}",
        )
        for number in range(2)
    ]
    try:
        outputs = [agent.communicate(timeout=90)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert all(agent.returncode for agent in agents)
    assert "through" not in "".join(outputs)
    assert "BEGUN 0" in "".join(outputs)


def start_by_hand(rank, port):
    """Start a rank without an agent, which would end it itself."""
    return start(
        [sys.executable, __file__, "stopped"],
        **by_hand(rank, port),
        PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}",
    )


def test_a_stopped_rank_is_not_waited_for():
    port = free_port()
    ranks = [start_by_hand(rank, port) for rank in range(2)]
    try:
        text, _ = ranks[0].communicate(timeout=90)
        assert ranks[1].poll() is None
    finally:
        for rank in ranks:
            rank.kill()
    assert ranks[0].returncode == 1
    assert "Rank 1 has shown no sign of life for 8 s" in text
    assert "Rank 0 has stood for" in text
    assert "through" not in text


def test_no_rank_outlives_its_agent():
    """Not even one that is stopped, or waits for one that is."""
    agent = start(
        command(__file__, "stopped", ranks=2)[:-1],
        PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}",
    )
    begun = [agent.stdout.readline().split() for _ in range(2)]
    agent.kill()
    try:
        # Ends when the last process does that has this output.
        text, _ = agent.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        for _, _, process in begun:
            os.kill(int(process), signal.SIGKILL)
        raise
    assert "through" not in text


if __name__ == "__main__":
    distributed.TIMEOUT = datetime.timedelta(seconds=LIMIT)
    distributed.init_distributed("cpu", heartbeat_timeout=LIMIT)
    if sys.argv[1:] == ["stopped"]:
        distributed.barrier()
        print("BEGUN", distributed.rank(), os.getpid(), flush=True)
        if not distributed.is_main():
            os.kill(os.getpid(), signal.SIGSTOP)
        distributed.barrier()
        sys.exit("through")
    if len(sys.argv) < 2:
        print("BEGUN", distributed.rank(), flush=True)
        distributed.barrier()
        if not distributed.is_main():
            sys.exit("gone")
        distributed.barrier()
        sys.exit("through")
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
