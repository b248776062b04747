"""Training sessions that ranks share, one after the other.

    torchrun --nproc_per_node=N runs.py UNITS OUTPUT SESSIONS

SESSIONS is a JSON mapping of names to settings; a session goes on from a copy
of the folder of the one that ``from`` among them names. One that names a number
of ``graphs`` is compiled, as far as that takes no C++, into so many; ``pairs``
are preferred.
"""

import contextlib
import functools
import json
import shutil
import sys
from pathlib import Path
from unittest import mock

import preference_example
import torch
from lm_example import train

from speechbrain_slm.brains import update
from speechbrain_slm.brains.compilation import compile_layers
from speechbrain_slm.utils.distributed import barrier, init_distributed, is_main


def run_sessions(units, output, sessions):
    """Train each session in its folder under ``output``."""
    for name, session in sessions.items():
        settings, folder = dict(session), Path(output) / name
        begun = settings.pop("from", None)
        if is_main():
            if begun:
                shutil.copytree(Path(output) / begun, folder)
            folder.mkdir(parents=True, exist_ok=True)
        barrier()
        with count_graphs(settings.pop("graphs", None)):
            if settings.pop("pairs", False):
                preference_example.train(folder, **settings)
            else:
                train(units, folder, **settings)


@contextlib.contextmanager
def count_graphs(expected):
    """Compile without inductor, and compare the number of graphs."""
    if expected is None:
        yield
        return
    import torch._dynamo.testing

    kind = torch._dynamo.testing.CompileCounterWithBackend
    counter = kind("aot_eager")
    fast = functools.partial(compile_layers, backend=counter)
    torch._dynamo.reset()
    with mock.patch.object(update, "compile_layers", fast):
        yield
    assert counter.frame_count == expected, counter.frame_count


if __name__ == "__main__":
    torch.set_num_threads(1)
    init_distributed("cpu")
    run_sessions(*sys.argv[1:3], json.loads(sys.argv[3]))
    torch.distributed.destroy_process_group()
