"""A process that saves checkpoints until it is killed (check 8).

The parent imports torch once and forks before torch has worked; each child
resumes, says from where, and saves step after step, saying so after each.
"""

import os
import random
import signal
import sys
import time

import torch

from speechbrain_slm.brains.checkpoints import AtomicCheckpointer


def save_forever(folder, pipe):
    """Resume, report, then save and report without end."""
    torch.set_num_threads(1)
    layer = torch.nn.Linear(300, 300)
    checkpointer = AtomicCheckpointer(folder, {"layer": layer})
    found = checkpointer.recover_if_possible()
    step = found.meta["step"] if found else 0
    if found:
        assert torch.all(layer.weight == step), "weights of another step"
    os.write(pipe, b"r%08d" % step)
    while True:
        step += 1
        torch.nn.init.constant_(layer.weight, step)
        checkpointer.save_and_keep_only(
            {"step": step}, name=f"step-{step:08d}", num_to_keep=2
        )
        os.write(pipe, b"s%08d" % step)


def main(folder, kills, seed):
    """Kill the saving child at random times; every recovery must work."""
    generator = random.Random(seed)
    published = 0
    for number in range(kills + 1):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            try:
                save_forever(folder, write)
            finally:
                os._exit(1)
        os.close(write)
        first = os.read(read, 9)
        assert first[:1] == b"r", f"recovery {number} failed"
        recovered = int(first[1:])
        assert recovered >= published, (recovered, published)
        published = recovered
        time.sleep(generator.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(read, "rb") as rest:
            content = rest.read()
        for position in range(0, len(content) - 8, 9):
            published = int(content[position + 1 : position + 9])
    print(f"{kills} kills, {published} checkpoints")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
