"""Time two ranks of one thread against one; prints one line of JSON.

    python tools/benchmark/distributed.py

Both groups train the Qwen2 of train_throughput.py with the LM Brain on the
same global batches (gloo, DDP, `no_sync` while gradients are accumulated, the
same micro-batches). Each is started once; then they take turns of a few
steps, so that whatever else the machine does slows both down. It needs two
cores for itself.

Keys:

- speedup: wall seconds of one rank by those of two, the best turn of each.
- median_speedup: the same of the turns' medians.
- seconds, cpu_seconds: of the best turn, for 1 and 2 ranks; CPU seconds of
  all ranks together.
- cpu_ratio: CPU seconds of two ranks by those of one, of the medians. What
  two ranks cost more is what can be lost on cores of their own.
- load: of the machine (1 minute), before and after.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from synthetic import MODEL, SOURCES, UNITS, brain_settings, write_stories

from speechbrain_slm.brains.lm import LMBrain
from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.models.decoder import decoder_lm
from speechbrain_slm.utils.distributed import (
    barrier,
    init_distributed,
    is_main,
    rank,
    world_size,
)

RANKS = (1, 2)


class TurnBrain(LMBrain):
    """An LM Brain that waits for its turn, and says how long it took."""

    def _after_step(self, valid_sets):
        super()._after_step(valid_sets)
        turn, rest = divmod(self.optimizer_step, self.turn_steps)
        if rest:
            return
        cpu = time.process_time()
        barrier()
        if turn > 1:  # The first one warms up.
            seconds = time.perf_counter() - self.began
            write(
                self.folder / f"done-{turn}-{rank()}",
                {"seconds": seconds, "cpu": cpu - self.began_cpu},
            )
        if self.optimizer_step == self.num_steps:
            return
        if is_main():
            wait(self.folder / f"go-{turn + 1}")
        barrier()
        self.began, self.began_cpu = time.perf_counter(), time.process_time()


def wait(path):
    """Wait for a file."""
    while not path.exists():
        time.sleep(0.01)


def write(path, content):
    """Write a file that is whole as soon as it is there."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.rename(path)


def worker(folder, arguments):
    """Train as one rank of a group."""
    torch.set_num_threads(1)
    init_distributed("cpu")
    rows, length = arguments.rows_per_step, arguments.row_length
    steps = arguments.steps * (1 + arguments.turns)
    plan = TokenPlan(
        {"en": UnitStore(folder / "store")},
        SOURCES,
        [{"tokens": steps * rows * length, "mixture": {"en": 1}}],
        row_length=length,
        rows_per_step=rows,
        seed=0,
    )
    torch.manual_seed(0)
    model = decoder_lm("qwen2", UNITS, **MODEL)
    group = folder / str(world_size())
    micro = rows // world_size() // arguments.micro_rows
    run_opts = {
        "distributed_backend": "gloo",
        "grad_accumulation_factor": micro,
    }
    brain = TurnBrain(**brain_settings(model, group / "output", run_opts))
    brain.folder, brain.turn_steps = group, arguments.steps
    brain.fit(plan)


def measure(folder, arguments):
    """Return what the benchmark prints."""
    load = os.getloadavg()[0]
    write_stories(folder / "store", 500, 401, 1000)
    groups = {}
    for ranks in RANKS:
        (folder / str(ranks)).mkdir()
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        start += [f"--nproc_per_node={ranks}", __file__, *sys.argv[1:]]
        groups[ranks] = subprocess.Popen(
            [*start, "--folder", str(folder)],
            stdout=sys.stderr,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    found = {ranks: [] for ranks in RANKS}
    try:
        for turn in range(2, arguments.turns + 2):
            for ranks in RANKS:
                group = folder / str(ranks)
                (group / f"go-{turn}").touch()
                files = [group / f"done-{turn}-{n}" for n in range(ranks)]
                while not all(path.exists() for path in files):
                    if any(g.poll() for g in groups.values()):
                        raise RuntimeError("a group of ranks has failed")
                    time.sleep(0.01)
                parts = [
                    json.loads(path.read_text(encoding="utf-8"))
                    for path in files
                ]
                found[ranks].append(
                    {
                        "seconds": max(part["seconds"] for part in parts),
                        "cpu": sum(part["cpu"] for part in parts),
                    }
                )
    finally:
        for group in groups.values():
            if sys.exc_info()[0] is not None:
                group.terminate()
            group.wait()
    return summary(found, arguments) | {
        "load": [round(load, 2), round(os.getloadavg()[0], 2)]
    }


def summary(found, arguments):
    """Compare the turns of one rank with those of two."""
    one, two = (
        {name: [turn[name] for turn in found[ranks]] for name in found[1][0]}
        for ranks in RANKS
    )
    seconds = [min(one["seconds"]), min(two["seconds"])]
    medians = [statistics.median(g["seconds"]) for g in (one, two)]
    cpu = [statistics.median(g["cpu"]) for g in (one, two)]
    return {
        "speedup": round(seconds[0] / seconds[1], 3),
        "median_speedup": round(medians[0] / medians[1], 3),
        "seconds": [round(value, 3) for value in seconds],
        "cpu_seconds": [round(min(g["cpu"]), 3) for g in (one, two)],
        "cpu_ratio": round(cpu[1] / cpu[0], 4),
        "turns": arguments.turns,
        "steps_per_turn": arguments.steps,
        "rows_per_step": arguments.rows_per_step,
        "row_length": arguments.row_length,
        "rows_per_micro_batch": arguments.micro_rows,
    }


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--row_length", type=int, default=512)
    parser.add_argument("--rows_per_step", type=int, default=16)
    parser.add_argument("--micro_rows", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1, help="a turn")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if arguments.folder:
        worker(arguments.folder, arguments)
        return
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(measure(Path(temporary), arguments)))


if __name__ == "__main__":
    main()
