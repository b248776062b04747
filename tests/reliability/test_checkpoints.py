"""Checks 8, 9, 10: checkpoints through kills, damage and full disks."""

import hashlib
import io
import json
import logging
import resource
import shutil
import sys

import pytest
import safetensors.torch
import torch
from processes import ROOT, run
from safetensors.torch import load_file

from speechbrain_slm.brains.checkpoints import AtomicCheckpointer


def saved(folder, steps=(1, 2, 3)):
    layer = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(layer.parameters())
    checkpointer = AtomicCheckpointer(
        folder, {"layer": layer, "optimizer": optimizer}
    )
    for step in steps:
        torch.nn.init.constant_(layer.weight, step)
        checkpointer.save_and_keep_only(
            {"step": step}, name=f"step-{step:08d}", num_to_keep=2
        )
    return checkpointer, layer


@pytest.mark.parametrize(
    "kills", [15, pytest.param(60, marks=pytest.mark.slow)]
)
def test_kill_during_save(tmp_path, kills):
    script = ROOT / "tests" / "reliability" / "checkpoint_writer.py"
    code, text = run(
        [sys.executable, str(script), str(tmp_path), str(kills), "5"]
    )
    assert code == 0, text
    assert f"{kills} kills" in text


def test_only_the_newest_are_kept(tmp_path):
    saved(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["CKPT+step-00000002", "CKPT+step-00000003"]


DAMAGE = ("truncate", "flip", "remove", "empty")


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize(
    "name", ["layer.ckpt", "optimizer.ckpt", "CKPT.yaml", "files.json"]
)
def test_torn_newest_falls_back(tmp_path, caplog, kind, name):
    checkpointer, layer = saved(tmp_path)
    path = tmp_path / "CKPT+step-00000003" / name
    content = path.read_bytes()
    if kind == "remove":
        path.unlink()
    elif kind == "flip":
        middle = len(content) // 2
        flipped = bytes([content[middle] ^ 1])
        path.write_bytes(content[:middle] + flipped + content[middle + 1 :])
    else:
        path.write_bytes(content[: len(content) // 2 if kind[0] == "t" else 0])
    with caplog.at_level(logging.WARNING):
        found = checkpointer.recover_if_possible()
    assert found.meta["step"] == 2
    assert torch.all(layer.weight == 2)
    assert "passed over" in caplog.text
    # The run comes to step 3 again; the torn one is replaced.
    checkpointer.save_and_keep_only({"step": 3}, name="step-00000003")
    assert checkpointer.recover_if_possible().meta["step"] == 3


def test_torn_later_one_does_not_push_out_good_ones(tmp_path):
    checkpointer, _ = saved(tmp_path, steps=(1, 2, 5))
    (tmp_path / "CKPT+step-00000005" / "layer.ckpt").write_bytes(b"")
    assert checkpointer.recover_if_possible().meta["step"] == 2
    checkpointer.save_and_keep_only({"step": 3}, name="step-00000003")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["CKPT+step-00000002", "CKPT+step-00000003"]


def test_what_was_passed_over_does_not_come_back(tmp_path):
    """The log of a run that resumes would have a gap."""
    checkpointer, _ = saved(tmp_path, steps=(1, 2, 5))
    newest = tmp_path / "CKPT+step-00000005" / "layer.ckpt"
    content = newest.read_bytes()
    newest.write_bytes(b"")
    found = checkpointer.find_checkpoint()
    newest.write_bytes(content)
    checkpointer.give_up_after(found)
    assert checkpointer.find_checkpoint().meta["step"] == 2


def test_all_torn_is_an_error(tmp_path):
    checkpointer, _ = saved(tmp_path)
    for path in tmp_path.glob("CKPT+*"):
        (path / "layer.ckpt").write_bytes(b"")
    with pytest.raises(RuntimeError, match="No checkpoint is whole"):
        checkpointer.recover_if_possible()


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_checkpoint_that_is_not_finite_is_not_published(tmp_path, value):
    checkpointer, layer = saved(tmp_path)
    optimizer = checkpointer.recoverables["optimizer"]
    layer(torch.ones(4)).sum().backward()
    optimizer.step()
    for tensor, name in (
        (layer.bias.data, "layer: bias"),
        (optimizer.state[layer.bias]["exp_avg_sq"], "optimizer: state.1.exp_"),
    ):
        kept = tensor.clone()
        tensor[1] = float(value)
        with pytest.raises(FloatingPointError, match=name):
            checkpointer.save_and_keep_only({"step": 4}, name="step-00000004")
        tensor.copy_(kept)
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["CKPT+step-00000002", "CKPT+step-00000003"]
    checkpointer.save_and_keep_only({"step": 4}, name="step-00000004")
    assert checkpointer.recover_if_possible().meta["step"] == 4


def reseal(folder, name, content):
    """Put another file into a checkpoint, with a sum that is true."""
    (folder / name).write_bytes(content)
    path = folder / "files.json"
    files = json.loads(path.read_text())
    digest = hashlib.sha256(content).hexdigest()
    files[name] = {"bytes": len(content), "sha256": digest}
    path.write_text(json.dumps(files))


def not_finite(folder, name):
    """Return a file of a checkpoint with a NaN in it."""
    if name == "layer.ckpt":
        tensors = load_file(folder / name)
        tensors["weight"][2, 2] = torch.nan
        return safetensors.torch.save(tensors)
    content = {"state": {0: {"exp_avg": torch.tensor([torch.nan])}}}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["layer.ckpt", "optimizer.ckpt"])
@pytest.mark.parametrize("kind", ["not finite", "is damaged"])
def test_nobody_goes_on_from_a_useless_checkpoint(tmp_path, caplog, name, kind):
    """Its sums are true: it was so when they were taken."""
    checkpointer, layer = saved(tmp_path)
    newest = tmp_path / "CKPT+step-00000003"
    content = (newest / name).read_bytes()[:-20]
    if kind == "not finite":
        content = not_finite(newest, name)
    reseal(newest, name, content)
    with caplog.at_level(logging.WARNING):
        found = checkpointer.recover_if_possible()
    assert found.meta["step"] == 2
    assert torch.all(layer.weight == 2)
    assert f"passed over: {newest}" in caplog.text
    assert name in caplog.text
    assert kind in caplog.text


def test_none_yet(tmp_path):
    checkpointer = AtomicCheckpointer(tmp_path, {"a": torch.nn.Linear(1, 1)})
    assert checkpointer.recover_if_possible() is None


def test_disk_full(tmp_path):
    """Check 10, by a limit on the size of files: the previous one loads."""
    checkpointer, layer = saved(tmp_path)
    big = torch.nn.Linear(300, 300)
    checkpointer.add_recoverable("big", big)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(RuntimeError, match="Is the disk full"):
            checkpointer.save_and_keep_only({"step": 4}, name="step-00000004")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["CKPT+step-00000002", "CKPT+step-00000003"]
    again = AtomicCheckpointer(
        tmp_path,
        {"layer": layer, "optimizer": checkpointer.recoverables["optimizer"]},
    )
    assert again.recover_if_possible().meta["step"] == 3


def test_stale_temporary_folders_go(tmp_path):
    checkpointer, _ = saved(tmp_path)
    stale = tmp_path / ".tmp-12345678"
    shutil.copytree(tmp_path / "CKPT+step-00000003", stale / "CKPT+x")
    checkpointer.save_and_keep_only({"step": 4}, name="step-00000004")
    assert not stale.exists()
