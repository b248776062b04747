"""Ranks that stop, end, or lose the process that started them."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch
from processes import start
from torch.distributed import HashStore

from speechbrain_slm.utils import distributed, heartbeat, jobs, running
from speechbrain_slm.utils.heartbeat import Heart

# Starts a rank as torchrun does, and waits for it.
PARENT = (
    "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
)
CHILD = """
import ctypes, os, sys, time
from speechbrain_slm.utils import heartbeat
if sys.argv[1] == "thread":  # As where the kernel cannot do it.
    heartbeat.ctypes = None
heartbeat.end_with_parent()
print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("way", ["kernel", "thread"])
def test_a_rank_ends_with_its_parent(way):
    arguments = [sys.executable, "-c", PARENT, "-c", CHILD, way]
    parent = start(arguments, TORCHELASTIC_RUN_ID="one")
    child = int(parent.stdout.readline())
    parent.kill()
    try:
        # The end of the output is the end of the child, which shares it.
        text, _ = parent.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.kill(child, signal.SIGKILL)
        raise
    assert ("torchrun, which started" in text) == (way == "thread")


def test_a_rank_that_was_started_by_hand_outlives_its_shell(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(heartbeat, "ctypes", None)
    heartbeat.end_with_parent()  # Asks for nothing.


def test_a_store_that_is_gone_is_not_waited_for(monkeypatch):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(listening.getsockname()[1]))
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
        heartbeat.check_store()
    with pytest.raises(ConnectionError, match=r"torchrun, .*, has ended"):
        heartbeat.check_store()
    # Where rank 0 has the store, it may still be on its way.
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    heartbeat.check_store()


@pytest.fixture
def hearts():
    store = HashStore()
    return store, [Heart(store, rank, 4, 1.0) for rank in range(4)]


def rounds(hearts, number, *ranks):
    """Let some ranks beat; return what the last round says by rank."""
    for _ in range(number):
        said = {rank: hearts[rank].beat() for rank in ranks}
    return {rank: text for rank, text in said.items() if text}


def test_the_one_before_a_stopped_rank_says_so(hearts):
    _, ranks = hearts
    assert not rounds(ranks, 50, 0, 1, 2, 3)
    assert not rounds(ranks, 10, 0, 1, 3)
    ((rank, text),) = rounds(ranks, 1, 0, 1, 3).items()
    assert rank == 1
    assert text.startswith("Rank 2 has shown no sign of life for 1 s")


def test_one_that_goes_on_in_time_is_alive(hearts):
    _, ranks = hearts
    for _ in range(3):
        assert not rounds(ranks, 9, 0, 1, 3)
        assert not rounds(ranks, 1, 2, 0, 1, 3)
    # All are stopped for as long as you like, and go on one by one.
    assert not rounds(ranks, 1, 3, 2, 1, 0)


def test_a_rank_that_has_not_begun_is_waited_for(hearts):
    """The import of a node may take minutes longer than another's."""
    _, ranks = hearts
    assert not rounds(ranks, 50, 1)
    assert not rounds(ranks, 1, 1, 2)
    assert list(rounds(ranks, 11, 1)) == [1]


def test_a_rank_that_has_ended_is_not_missed(hearts):
    store, ranks = hearts
    rounds(ranks, 5, 0, 1, 2, 3)
    store.add("ended/1", 1)
    assert not rounds(ranks, 50, 0, 2, 3)
    # Whom it watched is watched by the one before it.
    assert list(rounds(ranks, 20, 0, 3)) == [0]
    for rank in (2, 3):
        store.add(f"ended/{rank}", 1)
    assert not rounds(ranks, 50, 0)


def test_one_of_many_speaks(monkeypatch, capsys):
    """All write what it said to their log, had they one."""

    def fail(rank, text):
        monkeypatch.setenv("RANK", str(rank))
        running.report_error(ValueError, ValueError(text), None)
        return capsys.readouterr().err

    assert fail(0, "a") == fail(0, "a") == "error: a\n"
    monkeypatch.setattr(heartbeat, "_store", HashStore())
    assert fail(1, "row 7 is no audio") == "error: row 7 is no audio\n"
    assert fail(0, "row 7 is no audio") == ""
    assert fail(2, "Connection closed by peer") == ""
    # Another node has a log of its own.
    monkeypatch.setenv("GROUP_RANK", "1")
    after = "(after rank 1: row 7 is no audio)"
    assert fail(3, "Closed by peer") == f"error: Closed by peer {after}\n"
    assert fail(4, "Closed by peer") == ""
    # Its heart ends a rank that has not failed itself.
    monkeypatch.setenv("GROUP_RANK", "2")
    first = "rank 1: row 7 is no audio"
    assert fail(5, first) == f"error: {first}\n"


def test_a_store_that_does_not_answer_keeps_nobody_from_speaking(monkeypatch):
    class Gone:
        def compare_set(self, key, expected, value):
            time.sleep(30)

    monkeypatch.setattr(heartbeat, "_store", Gone())
    monkeypatch.setattr(heartbeat, "_PATIENCE", 0.01)
    assert heartbeat.first_failure("no route to host") == (None, True)


def test_who_hears_of_a_failure_ends_soon(hearts):
    """On GPUs a rank may not notice that another one has ended."""
    store, ranks = hearts
    store.set("failure", "rank 3: row 7 is no audio")
    said = "rank 3: row 7 is no audio"
    assert not rounds(ranks, 9, 0, 1, 2)
    assert rounds(ranks, 1, 0, 1, 2) == dict.fromkeys(range(3), said)


def test_it_is_known_what_is_waited_for(monkeypatch):
    """At a barrier of a data stage: which, and how far the work is."""
    seen = []

    def barrier(group):
        def look():
            seen.append((heartbeat._so_far(), heartbeat._place()))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    monkeypatch.setattr(torch.distributed, "barrier", barrier)
    monkeypatch.setattr(distributed, "_patient", "a group")
    jobs.run([1, 2, 3], str, "parts")
    so_far, place = seen[-1]
    assert so_far == "after 3 of 3 parts"
    assert re.fullmatch(
        r"in run > together > barrier \(jobs.py, line \d+: barrier\(\)\)", place
    )


BEATING = """
from torch.distributed import TCPStore
from speechbrain_slm.utils import heartbeat
store = TCPStore("localhost", 0, is_master=True)
def connect():
    return TCPStore("localhost", store.port, is_master=False)
heartbeat.Heart.guard = str  # It takes no store for gone.
heartbeat.start(connect, 0, 1, limit=0.0)
"""


def test_a_process_ends_between_two_beats():
    """A thread that Python ends inside the store takes the process along."""
    done = subprocess.run([sys.executable, "-c", BEATING], timeout=60)
    assert done.returncode == 0
