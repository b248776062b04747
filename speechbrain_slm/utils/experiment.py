"""The folder of an experiment: its lock, its log, and what says how it ran.

A run that finds the description of another one there keeps its own until
training begins (:func:`work_begins`), or the process ends well.
"""

import atexit
import importlib.metadata
import logging
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch

from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.jobs import lock_folder
from speechbrain_slm.utils.running import has_failed

logger = logging.getLogger(__name__)
HYPERPARAMS = "hyperparams.yaml"
# They tell of each font that is looked at, and of each packet.
_TALKATIVE = ("matplotlib", "httpcore2", "asyncio")
# Locks of this process's experiment folders; its end frees them.
_locks: list[Any] = []
_pending: list[tuple[Path, str]] = []


def begin_experiment(
    folder: str | Path, yaml_file: str | Path, resolved: str
) -> None:
    """Lock a folder, log to its ``log.txt``, and describe the run in it.

    FolderInUse if another run has the folder; nothing was written then.
    """
    folder = Path(folder)
    _locks.append(lock_folder(folder))
    # What is no text (a name, a server's reply) is logged, too.
    file = {"filename": str(folder / "log.txt"), "errors": "backslashreplace"}
    sb.utils.logger.setup_logging(
        sb.core.DEFAULT_LOG_CONFIG, {"handlers": {"file_handler": file}}
    )
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.INFO)
    logger.info("Experiment folder: %s", folder)
    origin = f"# Resolved from {os.path.abspath(yaml_file)}\n"
    # A recipe that trains nothing is allowed when it has ended well.
    if not _pending:
        atexit.register(_end_experiment)
    _pending.append((folder, origin + resolved))
    if not (folder / HYPERPARAMS).exists():
        work_begins()


def work_begins() -> None:
    """Describe the run in its folder: from now on results are its own."""
    while _pending:
        folder, resolved = _pending.pop()
        write_atomic(folder / HYPERPARAMS, resolved)
        write_atomic(folder / "env.log", environment())
        script = Path(sys.argv[0])
        if script.suffix == ".py" and script.is_file():
            shutil.copy(script, folder)


def _end_experiment():
    if not has_failed():
        work_begins()


def environment() -> str:
    """Describe the Python that runs, its packages, and what it runs."""
    # A folder on the path may name a package a second time; the first counts.
    packages: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        name = found.metadata["Name"]
        packages.setdefault(name, f"{name}=={found.version}")
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10)
        revision = done.stdout.decode("utf-8", "replace").strip()
    except (OSError, subprocess.TimeoutExpired):
        revision = ""
    cuda = torch.version.cuda if torch.cuda.is_available() else "none"
    listed = "\n".join(sorted(packages.values(), key=str.lower))
    return (
        f"Python {sys.version}\n{sys.executable}\n\n{listed}\n\n"
        f"Git revision: {revision or 'not known'}\nCUDA: {cuda}\n"
        f"Command: {shlex.join(['python', *sys.argv])}\n"
    )
