"""Start recipes as a user would: in processes of their own."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LM = ROOT / "recipes" / "TinyStories" / "LM"
# A model of 2 layers and d = 32, and 40 steps of 8 rows of 32 tokens.
TINY_LM = {
    "vocabulary_size": 30,
    "stages": "[{tokens: 10240, "
    "mixture: {en: 0.237, fr: 0.263, interleaved: 0.5}}]",
    "row_length": 32,
    "rows_per_step": 8,
    "valid_rows": 4,
    "log_interval": 5,
    "valid_interval": 20,
    "ckpt_interval_steps": 10,
    "lm": "{hidden_size: 32, intermediate_size: 64, num_layers: 2, "
    "num_heads: 2, num_key_value_heads: 2, dropout: 0.1}",
}


def command(script, yaml_file, ranks=1, restarts=0, **overrides):
    """Return the command line of a recipe."""
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone"]
        start += [f"--nproc_per_node={ranks}", f"--max-restarts={restarts}"]
    values = [f"--{key}={value}" for key, value in overrides.items()]
    return [*start, str(script), str(yaml_file), *values, "--noprogressbar"]


def lm_command(units, output, ranks=1, script=LM / "train.py", **overrides):
    """Return the command line that trains the tiny model."""
    settings = {**TINY_LM, "units_folder": units, "output_folder": output}
    yaml_file = LM / "hparams" / "mini.yaml"
    return command(script, yaml_file, ranks, **settings | overrides)


def start(arguments, cwd=None, **environment):
    """Start a command; its output can be read when it has ended."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        arguments,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, **own},
    )


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def by_hand(rank, port):
    """Return the environment of one of two ranks that no torchrun starts."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in environment.items()}


def run(arguments, timeout=120, cwd=None, **environment):
    """Run a command to its end; return its exit code and its output."""
    process = start(arguments, cwd, **environment)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        # torchrun ends its ranks, which have sessions of their own, when it
        # is asked to end, and only then.
        process.terminate()
        output, _ = process.communicate(timeout=60)
        raise AssertionError(f"timed out:\n{output}") from None
    return process.returncode, output


def kill(process):
    """Kill a process and all its children at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def die_at_call(target, *names):
    """Let this process kill itself at the n-th call of functions of ``os``."""
    count = 0

    def counted(original):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == target:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return call

    for name in names:
        setattr(os, name, counted(getattr(os, name)))


def wait_until(condition, process, timeout=120):
    """Wait for a condition that a running process brings about."""
    limit = time.time() + timeout
    while not condition():
        if process.poll() is not None:
            output, _ = process.communicate()
            raise AssertionError(f"the process ended first:\n{output}")
        if time.time() > limit:
            kill(process)
            raise AssertionError("timed out")
        time.sleep(0.02)


def log_entries(folder):
    """Read a training log, without what depends on the clock."""
    path = Path(folder) / "train_log.jsonl"
    text = path.read_text() if path.exists() else ""
    # What stands behind the last line's end is half a line.
    entries = map(json.loads, text.split("\n")[:-1])
    clock = ("tokens_per_second", "mfu", "memory_GB", "eta")
    return [{k: e[k] for k in e if k not in clock} for e in entries]


def load_script(path):
    """Import a script that lies in no package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
