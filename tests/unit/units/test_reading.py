"""Processes that read audio for a GPU."""

import itertools
import json
import multiprocessing
import os
import signal
import sys

import numpy as np
import pytest
import soundfile
import torch
from processes import start
from units_example import LoudnessTokenizer, clip, entry, extract, write_corpus

from speechbrain_slm.units import extraction
from speechbrain_slm.units.audio import read_batches
from speechbrain_slm.units.reading import read_by_processes

HOW = (16000, 2, 60.0)


@pytest.fixture
def batches(tmp_path):
    """Files of several kinds, good and bad, in batches."""
    listed = []
    for number in range(40):
        rate = (16000, 24000, 11025)[number % 3]
        samples = clip(number, 0.2 + 0.03 * number, rate)
        if number % 5 == 0:
            samples = np.stack([samples, samples / 2], axis=1)
        path = tmp_path / f"{number:02}.flac"
        soundfile.write(path, samples, rate)
        listed.append(entry(path))
    (tmp_path / "07.flac").unlink()
    (tmp_path / "13.flac").write_bytes(b"no sound")
    listed[39]["num_samples"] += 1
    soundfile.write(tmp_path / "38.flac", np.zeros(9000), 16000)
    listed[38] = entry(tmp_path / "38.flac")
    ends = (0, 1, 20, 20, 37, 39, 40)
    return [listed[a:b] for a, b in itertools.pairwise(ends)]


def test_processes_read_what_threads_read(batches):
    by_threads = list(read_batches(batches, *HOW, finish=extraction._collate))
    by_processes = list(read_by_processes(batches, *HOW, pinned=False))
    assert len(by_threads) == len(by_processes) == len(batches)
    reasons = 0
    for one, other in zip(by_processes, by_threads, strict=True):
        (batch, (clips, *tensors)), (same, (expected, *wanted)) = one, other
        assert batch is same
        told = [(c.wav is None, c.reason, c.note) for c in clips]
        assert told == [(c.wav is None, c.reason, c.note) for c in expected]
        reasons += sum(bool(reason) for _, reason, _ in told)
        assert all(map(torch.equal, tensors, wanted))
        assert tensors[0].shape == wanted[0].shape
    assert reasons == 4


def test_a_process_that_dies_is_an_error(batches):
    reading = read_by_processes(batches[1:2] * 40, *HOW, pinned=False)
    next(reading)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"01\.flac or one of"):
        list(reading)


def test_who_stops_half_way_leaves_no_process(batches):
    reading = read_by_processes(batches * 9, *HOW, pinned=False)
    next(reading)
    assert multiprocessing.active_children()
    reading.close()
    assert not multiprocessing.active_children()


def test_no_processes_are_refused():
    with pytest.raises(ValueError, match="num_workers is 0"):
        next(read_by_processes([], 16000, 0, 60.0, pinned=False))


KILLED = """
import json
import sys
from speechbrain_slm.units.reading import read_by_processes
if __name__ == "__main__":
    batches = [[json.loads(sys.argv[1])]] * 10000
    for _ in read_by_processes(batches, 16000, 2, 60.0, pinned=False):
        print("read", flush=True)
"""


@pytest.mark.long
def test_processes_end_with_the_one_that_was_killed(tmp_path):
    path, script = tmp_path / "a.flac", tmp_path / "killed.py"
    soundfile.write(path, clip(0), 16000)
    script.write_text(KILLED)
    process = start([sys.executable, script, json.dumps(entry(path))])
    assert process.stdout.readline() == "read\n"
    process.kill()
    # Whoever still lives has the pipe open.
    process.communicate(timeout=30)


@pytest.fixture
def pretend_gpu(monkeypatch):
    """Return what says that this tokenizer encodes on a GPU from now on."""
    used = []

    def read(*arguments, pinned):
        used.append(pinned)
        return read_by_processes(*arguments, pinned=False)

    def pretend():
        monkeypatch.setattr(extraction, "read_by_processes", read)
        monkeypatch.setattr(
            LoudnessTokenizer, "device", torch.device("cuda"), raising=False
        )
        return used

    return pretend


def test_an_error_that_is_kept_keeps_no_process(
    tmp_path, monkeypatch, pretend_gpu
):
    def fail(*batch):
        assert multiprocessing.active_children()
        raise RuntimeError("out of memory")

    monkeypatch.setattr(LoudnessTokenizer, "encode", fail)
    corpus = write_corpus(tmp_path / "corpus")
    pretend_gpu()
    with pytest.raises(RuntimeError, match="out of memory") as kept:
        extract(corpus, tmp_path / "units", LoudnessTokenizer())
    assert not multiprocessing.active_children()
    assert kept.tb


def test_what_a_gpu_encodes_is_the_same(tmp_path, pretend_gpu):
    corpus = write_corpus(tmp_path / "corpus")
    extract(corpus, tmp_path / "threads", LoudnessTokenizer())
    used = pretend_gpu()
    extract(corpus, tmp_path / "processes", LoudnessTokenizer())
    assert used == [True]
    one, other = (
        {p.name: p.read_bytes() for p in (tmp_path / name).rglob("*.arrow")}
        for name in ("threads", "processes")
    )
    assert one
    assert one == other
