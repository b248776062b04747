"""Ranks: started by ``torchrun``, or one process without it.

Unlike in SpeechBrain's ``ddp_init_group`` the backend follows from the device.
"""

import datetime
import functools
import os
import time
import uuid
from typing import Any

import torch

from speechbrain_slm.utils import heartbeat

# A rank that shows no sign of life for so many seconds is lost; the
# heartbeat_timeout of a YAML file.
HEARTBEAT_TIMEOUT = 300.0
# One that is alive, and does not take part in a collective operation within
# this time, is taken for stuck. At a barrier it is waited for, however long its
# work takes.
TIMEOUT = datetime.timedelta(minutes=30)
_PATIENCE = datetime.timedelta(days=365)
# The process group of barriers: new_group says nothing better of its type.
_patient: Any = None


def launched_by_torchrun() -> bool:
    """Tell whether ``torchrun`` started this process."""
    return "RANK" in os.environ and "LOCAL_RANK" in os.environ


def rank() -> int:
    """Return this process's number among all, 0 without ``torchrun``."""
    return int(os.environ["RANK"]) if launched_by_torchrun() else 0


def world_size() -> int:
    """Return the number of processes, 1 without ``torchrun``."""
    return int(os.environ["WORLD_SIZE"]) if launched_by_torchrun() else 1


def is_main() -> bool:
    """Tell whether this process is the one that writes shared files."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes; does nothing where there is only one."""
    # For as long as it takes: a fit on the main rank may take hours. Where a
    # rank ends, its connections close, and the others raise at once; of one
    # that is stopped see heartbeat.py.
    if _patient is not None:
        torch.distributed.barrier(_patient)


def init_distributed(
    device: str,
    backend: str | None = None,
    heartbeat_timeout: float = HEARTBEAT_TIMEOUT,
) -> str:
    """Join the process group of ``torchrun``; return the device of this rank.

    Arguments
    ---------
    backend : None is ``nccl`` on GPUs and ``gloo`` on CPUs.
    heartbeat_timeout
        Seconds without a sign of life from a rank, or from the node on which
        the ranks meet, after which this process ends.
    """
    if not launched_by_torchrun():
        return device
    heartbeat.end_with_parent()
    on_gpu = device.startswith("cuda")
    local_rank = int(os.environ["LOCAL_RANK"])
    if on_gpu:
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"Local rank {local_rank} has no GPU: this node has "
                f"{torch.cuda.device_count()}. Lower --nproc_per_node, or add "
                "--device cpu."
            )
        device = f"cuda:{local_rank}"
        torch.cuda.set_device(local_rank)
    if not torch.distributed.is_initialized():
        heartbeat.check_store()
        found = torch.distributed.rendezvous("env://", timeout=TIMEOUT)
        store, number, ranks = next(found)
        name = _fresh_name(store, number, ranks)
        connect = functools.partial(_new_connection, name)
        heartbeat.start(connect, number, ranks, heartbeat_timeout)
        torch.distributed.init_process_group(
            backend or ("nccl" if on_gpu else "gloo"),
            timeout=max(TIMEOUT, datetime.timedelta(seconds=heartbeat_timeout)),
            store=torch.distributed.PrefixStore(name, store),
            rank=number,
            world_size=ranks,
        )
    global _patient
    # On GPUs, too: NCCL keeps one busy while it waits.
    _patient = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return device


def _new_connection(name):  # One serves one thread.
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = torch.distributed.TCPStore(
        *address, is_master=False, timeout=TIMEOUT
    )
    return torch.distributed.PrefixStore(f"heartbeat/{name}", store)


def _fresh_name(store, number, ranks):
    """Agree on a prefix under which dead processes have written nothing."""
    # When torchrun starts the ranks again, it gives them the store of those
    # that died (https://github.com/pytorch/pytorch/issues/135712), and they
    # would look for them at their old addresses. So rank 0 makes up a name for
    # this attempt and tells it to each process that asks for it with a name of
    # its own: what dead ones asked or were told is never taken for it.
    name = uuid.uuid4().hex
    if number:
        store.set(f"asks/{number}", name)
        name = store.get(f"answer/{name}").decode()
        store.add(f"{name}/joined", 1)
        return name
    limit = time.monotonic() + TIMEOUT.total_seconds()
    while store.add(f"{name}/joined", 0) < ranks - 1:
        for other in range(1, ranks):
            if store.check([f"asks/{other}"]):
                asked = store.get(f"asks/{other}").decode()
                store.set(f"answer/{asked}", name)
        if time.monotonic() > limit:
            raise TimeoutError(
                f"Of {ranks} ranks, not all have started within {TIMEOUT}; "
                "look at the logs of the others"
            )
        time.sleep(0.02)
    return name
