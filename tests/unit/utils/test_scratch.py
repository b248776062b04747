import os
import subprocess
import sys
import tempfile

import numpy as np
import pyarrow as pa
import pytest

from speechbrain_slm.utils import scratch as module
from speechbrain_slm.utils.scratch import (
    blocks,
    changes,
    digests,
    positions,
    scratch,
    select,
)


def test_array_is_writable_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = scratch(1000, [("a", ">u4"), ("b", "S4")])
    array["a"] = np.arange(1000)[::-1]
    array.sort()
    assert array["a"].tolist() == list(range(1000))
    assert not any(array["b"])
    assert not list(tmp_path.iterdir())
    assert len(scratch(0, np.int8)) == 0


def test_array_is_not_memory_of_the_process():
    # Address space would be taken by both; what is written is not the
    # process's own. In a process of its own, so that no one else's counts.
    code = """
import numpy as np
from speechbrain_slm.utils.scratch import scratch

def own():
    with open("/proc/self/status") as file:
        return next(int(x.split()[1]) for x in file if x.startswith("RssAnon"))

for make in scratch, np.empty:
    before = own()
    array = make(1 << 25, np.int8)
    array[:] = 1
    print(own() - before)
"""
    shown = subprocess.check_output([sys.executable, "-c", code], text=True)
    ours, numpys = map(int, shown.split())
    assert ours < 4096 < 32000 < numpys


def test_tmpdir_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    with pytest.raises(OSError, match=r"absent', which is no folder"):
        scratch(5, np.int8)


def test_size_limit_is_told(tmp_path):
    code = """
import resource, signal
import numpy as np
from speechbrain_slm.utils.scratch import scratch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
scratch(1 << 20, np.int8)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 1
    assert f"{tmp_path} has no room" in done.stderr


@pytest.mark.parametrize("length", [0, 1, 6, 7, 8, 20])
def test_blocks_change_nothing(monkeypatch, length):
    monkeypatch.setattr(module, "BLOCK", 7)
    values = np.sort(np.random.default_rng(length).integers(0, 9, length))
    flags = values % 2 == 0
    assert positions(flags).tolist() == np.flatnonzero(flags).tolist()
    assert select(values, flags).tolist() == values[flags].tolist()
    first = np.unique(values, return_index=True)[1]
    assert np.flatnonzero(changes(values)).tolist() == first.tolist()
    assert sum(one.stop - one.start for one in blocks(length)) == length


def test_digests_are_equal_where_strings_are():
    names = [f"story-{number % 500}" for number in range(2000)]
    found = digests(pa.array(names))
    assert len(set(found.tolist())) == 500
    assert (found[:500] == found[500:1000]).all()
    # Whatever stands beside it.
    assert digests(pa.array(["story-7"]))[0] == found[7]
