"""One graph for all layers, no wait for the device, and clear errors."""

import contextlib
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from lm_example import make_brain, make_plan, train
from torch.utils._python_dispatch import TorchDispatchMode

from speechbrain_slm.brains import compilation, update
from speechbrain_slm.brains.compilation import compile_layers, explained
from speechbrain_slm.brains.lm import LMBrain
from speechbrain_slm.models import attention


def in_one_call(query, key, value, bounds, scaling, dropout):
    """Attend within documents as a GPU's kernel: bounds are not read."""
    batch, _, length, _ = query.shape
    places = torch.arange(batch * length, device=bounds.device)
    document = torch.searchsorted(bounds, places, right=True)
    document = document.view(batch, 1, length)
    within = document[..., None] == document[..., None, :]
    mask = within.tril()
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, scale=scaling
    )
    return out.transpose(1, 2)


@pytest.fixture
def kernel(monkeypatch):
    """Let blocked attention be one call, as it is on a GPU."""
    monkeypatch.setattr(attention, "each_document", in_one_call)


@pytest.fixture
def counter(monkeypatch):
    """Count what is compiled, without the minutes that C++ would take."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    fast = partial(compile_layers, backend=counter)
    monkeypatch.setattr(update, "compile_layers", fast)
    yield counter
    torch._dynamo.reset()


SETTINGS = {"num_hidden_layers": 4, "grad_accumulation_factor": 2}


def losses(brain):
    """Return all losses of a run, in training and in validation."""
    found = []
    for entry in brain.log.entries():
        found += [entry["loss"]] if "loss" in entry else entry["valid"].values()
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "recomputed"),
    [("open", False), ("blocked", False), ("blocked", True)],
)
def test_one_graph_serves_all_layers_and_batches(
    units, tmp_path, kernel, counter, kind, recomputed
):
    """Micro-batches, validation and its last rows, which are fewer."""
    options = SETTINGS | {"attention": kind}
    options["model_activation_checkpointing"] = recomputed
    eager = train(units, tmp_path / "eager", **options)
    assert counter.frame_count == 0
    options |= {"compile": True, "compile_using_fullgraph": True}
    brain = train(units, tmp_path / "compiled", **options)
    # One with gradients and one without; validation goes through rows by
    # four, and there are five in a set. Where layers are recomputed,
    # transformers lets the first one have an input with gradients: one more.
    assert counter.frame_count in (2, 2 + recomputed)
    assert losses(brain) == pytest.approx(losses(eager), abs=1e-4)


@pytest.mark.long
def test_fewer_rows_would_be_compiled_anew(
    units, tmp_path, kernel, counter, monkeypatch
):
    """What the test above must find."""
    monkeypatch.setattr(LMBrain, "filled", lambda self, rows, number: rows)
    train(units, tmp_path, compile=True, **SETTINGS)
    assert counter.frame_count == 3


class NoWaiting(TorchDispatchMode):
    """Refuse what makes the host wait for a device."""

    WAITS = ("_local_scalar_dense", "nonzero", "equal", "masked_select")
    WAITS += ("is_nonzero", "unique", "bincount", "repeat_interleave")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name.removesuffix("_") not in self.WAITS, name
        if name.startswith("index"):  # by a mask, it counts what is true
            flat = torch.utils._pytree.tree_leaves(args[1])
            assert not any(
                torch.is_tensor(one) and one.dtype == torch.bool for one in flat
            )
        return function(*args, **(kwargs or {}))


class WatchedBrain(LMBrain):
    """Refuses to wait in what a micro-batch does, forward and backward."""

    def fit_step(self, parts):
        with contextlib.ExitStack() as self.watch:
            self.watch.enter_context(NoWaiting())
            # These read a CPU's memory past the dispatcher.
            for name in ("tolist", "numpy", "cpu"):
                fault = AssertionError(name)
                self.watch.enter_context(
                    mock.patch.object(torch.Tensor, name, side_effect=fault)
                )
            super().fit_step(parts)

    def optimizers_step(self, loss):
        self.watch.close()
        super().optimizers_step(loss)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["open", "blocked"])
def test_a_micro_batch_does_not_wait(units, tmp_path, kernel, kind, precision):
    options = SETTINGS | {"attention": kind, "precision": precision}
    options |= {"brain_class": WatchedBrain, "steps": 2, "valid_interval": 0}
    brain = train(units, tmp_path, **options)
    assert brain.optimizer_step == 2


def test_the_watch_finds_a_wait(units, tmp_path):
    """On the CPU the documents' bounds are read: a list of numbers."""
    options = {"brain_class": WatchedBrain, "steps": 1}
    with pytest.raises(AssertionError, match="tolist"):
        train(units, tmp_path, **options)


def test_the_room_for_documents_only_grows(units, tmp_path):
    brain = make_brain(tmp_path)
    brain.plan, _ = make_plan(units)
    sizes = []
    for stories in (1, 70, 3, 110, 150):
        rows = np.ones((8, 48), dtype=np.int64)
        rows.ravel()[1 : 2 * stories : 2] = 30
        sizes.append(len(brain.collate(rows)["cu_seq_lens_q"]))
    assert sizes == [65, 129, 129, 129, 257]


class Full(LMBrain):
    """Its device is full at the first step."""

    def compute_forward(self, batch, stage):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")


def test_a_device_too_small_says_what_to_lower(units, tmp_path):
    message = r"micro-batch of 4 rows of 48 tokens .*_factor 4 \(2 rows at once"
    with pytest.raises(RuntimeError, match=message) as caught:
        train(units, tmp_path, brain_class=Full, grad_accumulation_factor=2)
    assert "activation_checkpointing: True" in str(caught.value)
    assert "fsdp" in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "factor", "advice"),
    [
        (75, 1, "factor 3 (25 rows"),
        (75, 5, "factor 15 (5 rows"),
        (75, 25, "factor 75 (1 row at"),
        (300, 5, "factor 10 (30 rows"),
        (7, 7, "a single row: shorten row_length"),
    ],
)
def test_the_next_factor_divides_the_rows(rows, factor, advice):
    with (
        pytest.raises(RuntimeError) as caught,
        explained(rows, 2048, factor),
    ):
        raise torch.OutOfMemoryError("full")
    assert advice in str(caught.value)


def test_a_card_and_its_memory_are_named(monkeypatch):
    class Card:
        total_memory = 24 * 2**30

    for name, value in {
        "is_available": True,
        "get_device_properties": Card,
        "max_memory_allocated": 23 * 2**30,
        "get_device_name": "A small card",
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    expected = "(A small card: 23.0 of 24.0 GiB were in use)"
    assert expected in compilation._memory()


def test_a_compiler_that_fails(units, tmp_path, counter, monkeypatch):
    def broken(graph, inputs):
        raise OSError("no C compiler\nand forty lines more")

    fails = partial(compile_layers, backend=broken)
    monkeypatch.setattr(update, "compile_layers", fails)
    message = (
        r"does not compile .*no C compiler.*--compile false trains without"
    )
    with pytest.raises(RuntimeError, match=message) as caught:
        train(units, tmp_path, compile=True)
    assert "forty lines" not in str(caught.value)


class Doubled(torch.nn.Module):
    """Torch 2.7 does not compile a module of torch.nn that stands alone."""

    def forward(self, tensor):
        return 2 * tensor


def test_shapes_without_end_do_not_go_on_uncompiled(counter):
    layer = Doubled()
    compile_layers(layer, backend=counter, dynamic=False)

    def call_with_every_shape():
        for rows in range(2, 20):
            layer(torch.ones(rows, 2))

    message = r"does not compile .*--compile false"
    with pytest.raises(RuntimeError, match=message), explained(1, 1, 1):
        call_with_every_shape()
    assert counter.frame_count == 8


def test_other_errors_stay_as_they_are():
    with (
        pytest.raises(ValueError, match=r"^row 3 is damaged$"),
        explained(1, 1, 1),
    ):
        raise ValueError("row 3 is damaged")


def test_modules_to_compile_are_those_that_exist(units, tmp_path):
    with pytest.raises(ValueError, match=r"names 'modle'; expected .* model"):
        train(units, tmp_path, compile=True, compile_module_keys=["modle"])
    with pytest.raises(ValueError, match="nothing is compiled"):
        train(units, tmp_path, compile_module_keys=["model"])
