import errno
import os
import resource
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from speechbrain_slm.utils.atomic import (
    atomic_folder,
    atomic_path,
    write_atomic,
)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def save_tensors(path):
    save_file({"a": torch.zeros(9)}, path)


def test_whoever_writes_a_file_the_umask_says_who_may_read_it(tmp_path, umask):
    with atomic_path(tmp_path / "one.safetensors") as temporary:
        save_tensors(temporary)
        # As the library has it: an older one asks the umask, too.
        assert temporary.stat().st_mode & 0o777 in (0o600, 0o640)
    with atomic_folder(tmp_path / "model") as temporary:
        save_tensors(temporary / "two.safetensors")
    write_atomic(tmp_path / "text", "x")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}
    assert len(files) == 3


WRITERS = {
    "numpy": lambda path: np.save(path, np.zeros(90_000)),
    "torch": lambda path: torch.save(torch.zeros(90_000), path),
    "safetensors": lambda path: save_file({"a": torch.zeros(90_000)}, path),
    "plain": lambda path: path.write_bytes(bytes(400_000)),
}


@pytest.fixture
def small_files():
    """Let no file grow beyond 200 kB, as if the disk were full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def write_through(context, write):
    with context as temporary:
        write(temporary)


@pytest.mark.parametrize("inner", ["", "a.npy"])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_named_whatever_library_writes(
    tmp_path, write, inner, small_files
):
    path, context = tmp_path / "a.npy", atomic_folder if inner else atomic_path
    with pytest.raises(OSError, match="nothing was written") as failure:
        write_through(context(path), lambda new: write(new / inner))
    assert failure.value.errno == errno.EFBIG
    assert failure.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_another_failure_is_not_taken_for_a_full_disk(tmp_path):
    def fail(path):
        path.write_bytes(b"some")
        raise OSError("broken")

    with pytest.raises(OSError, match=r"^broken$"):
        write_through(atomic_path(tmp_path / "a.npy"), fail)
    assert list(tmp_path.iterdir()) == []
