"""Checks 8, 9, 10: checkpoints through kills, damage and full disks."""

import contextlib
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
from cloze_example import export
from processes import ROOT, run
from safetensors.torch import load_file

from speechbrain_slm.brains.checkpoints import AtomicCheckpointer
from speechbrain_slm.models.export import load_speech_lm


def save(checkpointer, step):
    meta, name = {"step": step}, f"step-{step:08d}"
    checkpointer.save_and_keep_only(meta, name=name, num_to_keep=2)


def saved(folder, steps=(1, 2, 3)):
    layer = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(layer.parameters())
    recoverables = {"layer": layer, "optimizer": optimizer}
    checkpointer = AtomicCheckpointer(folder, recoverables)
    for step in steps:
        torch.nn.init.constant_(layer.weight, step)
        save(checkpointer, step)
    return checkpointer, layer


def steps_in(folder):
    names = sorted(path.name for path in folder.iterdir())
    return [int(name.removeprefix("CKPT+step-")) for name in names]


def resumed(checkpointer):
    found = checkpointer.recover_if_possible()
    return found and found.meta["step"]


@pytest.mark.parametrize(
    "kills", [15, pytest.param(60, marks=pytest.mark.slow)]
)
def test_kill_during_save(tmp_path, kills):
    script = ROOT / "tests" / "reliability" / "checkpoint_writer.py"
    arguments = script, tmp_path, kills, 5
    code, text = run([sys.executable, *map(str, arguments)])
    assert code == 0, text
    assert f"{kills} kills" in text


def test_only_the_newest_are_kept(tmp_path):
    empty = AtomicCheckpointer(tmp_path, {"a": torch.nn.Linear(1, 1)})
    assert resumed(empty) is None
    saved(tmp_path)
    assert steps_in(tmp_path) == [2, 3]


@pytest.mark.parametrize("kind", ["truncate", "flip", "remove", "empty"])
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
        assert resumed(checkpointer) == 2
    assert torch.all(layer.weight == 2)
    assert "passed over" in caplog.text
    # The run comes to step 3 again; the torn one is replaced.
    save(checkpointer, 3)
    assert resumed(checkpointer) == 3


def test_torn_later_one_does_not_push_out_good_ones(tmp_path):
    checkpointer, _ = saved(tmp_path, steps=(1, 2, 5))
    (tmp_path / "CKPT+step-00000005" / "layer.ckpt").write_bytes(b"")
    assert resumed(checkpointer) == 2
    save(checkpointer, 3)
    assert steps_in(tmp_path) == [2, 3]


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
            save(checkpointer, 4)
        tensor.copy_(kept)
        assert steps_in(tmp_path) == [2, 3]
    save(checkpointer, 4)
    assert resumed(checkpointer) == 4


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
        assert resumed(checkpointer) == 2
    assert torch.all(layer.weight == 2)
    for text in (f"passed over: {newest}", name, kind):
        assert text in caplog.text


@contextlib.contextmanager
def disk_of(size):
    """Let no file grow beyond a size, as if the disk were full then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_full(tmp_path):
    """Check 10: the previous one loads."""
    checkpointer, _ = saved(tmp_path)
    recoverables = dict(checkpointer.recoverables)
    checkpointer.add_recoverable("big", torch.nn.Linear(300, 300))
    with disk_of(50_000), pytest.raises(RuntimeError, match="disk full"):
        save(checkpointer, 4)
    assert steps_in(tmp_path) == [2, 3]
    assert resumed(AtomicCheckpointer(tmp_path, recoverables)) == 3


def test_no_model_without_room(tmp_path):
    path = tmp_path / "model"
    with disk_of(10_000), pytest.raises(OSError, match=f"from here: '{path}'"):
        export(path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="not an exported speech LM"):
        load_speech_lm(path)


def test_stale_temporary_folders_go(tmp_path):
    checkpointer, _ = saved(tmp_path)
    stale = tmp_path / ".tmp-12345678"
    shutil.copytree(tmp_path / "CKPT+step-00000003", stale / "CKPT+x")
    save(checkpointer, 4)
    assert not stale.exists()
