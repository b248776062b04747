"""Whatever befalls a stage, it ends as one that was left alone.

The stages stand in ``stages.py``: a toy, and each real one.
"""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from processes import ROOT
from stages import STAGES, toy

from speechbrain_slm.utils.jobs import PARTS, Share

SCRIPT = Path(__file__).with_name("stages.py")


@pytest.mark.parametrize("stage", STAGES)
def test_killed_full_and_twice_at_once(tmp_path, stage):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), stage, str(tmp_path)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    whole = told["whole"]
    assert whole
    assert len(told["killed"]) >= 2
    for torn, error, found in told["killed"]:
        assert (torn, error) == ([], None)
        assert found == whole
    errors, found = told["full"]
    assert errors
    for error in errors:
        # Of what cannot be written there, or of what is sorted elsewhere.
        here = "too large" in error and str(tmp_path) in error
        assert here or "set TMPDIR" in error
    assert found == whole
    errors, last, found = told["two"]
    for error in filter(None, errors):
        assert error.startswith("FolderInUse"), error
    assert last is None
    assert found == whole


def squares(folder, factor=1):
    toy(None, folder, factor=factor)
    return pq.read_table(folder / "a.parquet")["square"].to_pylist()


def test_changed_input_is_made_again_and_nothing_else(tmp_path):
    assert squares(tmp_path) == [0, 1, 4, 9, 16]
    paths = sorted((tmp_path / PARTS).glob("*.parquet"))
    times = [path.stat().st_mtime_ns for path in paths]
    paths[1].write_bytes(b"damaged")
    paths[2].unlink()
    assert squares(tmp_path) == [0, 1, 4, 9, 16]
    again = [path.stat().st_mtime_ns for path in paths]
    assert [a == b for a, b in zip(times, again, strict=True)] == [
        *(True, False, False, True, True)
    ]
    # The same numbers of the same shards, of something else.
    assert squares(tmp_path, 2) == [0, 2, 8, 18, 32]


def test_array_jobs_leave_the_rest_to_the_last_run(tmp_path):
    for job in (3, 0):
        toy(None, tmp_path, Share(job, 4))
    assert not (tmp_path / "a.parquet").exists()
    assert len(list((tmp_path / PARTS).glob("*.parquet"))) == 3
    assert squares(tmp_path) == [0, 1, 4, 9, 16]
