"""Clipping, accumulation and refusals of the step Brain."""

import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from lm_example import HPARAMS
from torch.utils.tensorboard import SummaryWriter

from speechbrain_slm.brains import base
from speechbrain_slm.brains.base import StepBrain


class Plan:
    """Twelve steps of four rows of numbers."""

    num_steps = 12
    first_steps = (0, 4, 12)
    row_length = 3
    rows_per_step = 4

    @property
    def identity(self):
        return {"plan": "numbers"}

    def rows(self, step, rank, world_size):
        generator = np.random.default_rng(step)
        return generator.integers(0, 9, (4, 3))

    def count(self, step):
        return {"number": step * 12}


class LineBrain(StepBrain):
    """Fits a line; ``scale`` makes gradients as large as wanted."""

    def compute_forward(self, batch, stage):
        return self.modules.line(batch.float())

    def compute_objectives(self, predictions, batch, stage):
        return self.hparams.scale * ((predictions - 1) ** 2).mean()


def make(
    tmp_path, scale=1.0, groups=False, kind=LineBrain, hparams=(), **run_opts
):
    run_opts = {**run_opts, **run_opts.pop("run_opts", {})}
    torch.manual_seed(0)
    line = torch.nn.Linear(3, 2)

    def optimizer(parameters):
        parameters = list(parameters)
        if groups:
            parameters = [{"params": [p], "lr": 0.1} for p in parameters]
        return torch.optim.SGD(parameters, lr=0.1)

    own = {"output_folder": str(tmp_path), "learning_rate": 0.01, "warmup": 0.0}
    own |= {"log_interval": 4, "valid_interval": 0, "scale": scale}
    return kind(
        modules={"line": line},
        opt_class=optimizer,
        hparams={**HPARAMS, **own, **dict(hparams)},
        run_opts={"device": "cpu", "noprogressbar": True, **run_opts},
    )


class RecordingBrain(LineBrain):
    """Keeps the gradients before clipping, and those that are used."""

    def optimizers_step(self, loss):
        self.before = [p.grad.clone() for p in self.modules.parameters()]
        self.optimizer.register_step_pre_hook(self.record)
        super().optimizers_step(loss)

    def record(self, *_):
        self.used = [p.grad.clone() for p in self.modules.parameters()]


def recorded(tmp_path, max_grad_norm, groups):
    options = {"max_grad_norm": max_grad_norm, "debug": True}
    brain = make(tmp_path, 100.0, groups, RecordingBrain, **options)
    brain.fit(Plan())
    return brain


@pytest.mark.parametrize("disabled", [0.0, -1.0])
def test_clipping_disabled_leaves_gradients_unchanged(tmp_path, disabled):
    brain = recorded(tmp_path, disabled, groups=True)
    for before, used in zip(brain.before, brain.used, strict=True):
        assert torch.equal(before, used)


@pytest.mark.parametrize("groups", [False, True])
def test_all_groups_are_clipped_together(tmp_path, groups):
    brain = recorded(tmp_path, 1.0, groups)
    norm = torch.stack([g.norm() for g in brain.before]).norm()
    assert norm > 10
    for before, used in zip(brain.before, brain.used, strict=True):
        torch.testing.assert_close(used, before / norm, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("ranks", "factor", "message"),
    [
        (1, 3, r"1 rank\(s\) x .* 3 .* rows_per_step to 3 or 6"),
        (2, 3, r"2 rank\(s\) x .* 3 .* rows_per_step to 6,"),
        (3, 1, r"3 rank\(s\) x .* 1 .* rows_per_step to 3 or 6"),
    ],
)
def test_what_does_not_divide_the_batch_is_refused(
    tmp_path, monkeypatch, ranks, factor, message
):
    monkeypatch.setattr(base, "world_size", lambda: ranks)
    brain = make(tmp_path, grad_accumulation_factor=factor)
    with pytest.raises(ValueError, match=message):
        brain.fit(Plan())


@pytest.mark.parametrize(
    ("rows", "options", "factor"),
    [
        (2, {}, 2),
        (3, {}, 2),
        (9, {}, 1),
        (2, {"grad_accumulation_factor": 4}, 4),
    ],
)
def test_micro_batches_have_so_many_rows_at_most(
    tmp_path, rows, options, factor
):
    brain = make(tmp_path, hparams={"micro_batch_rows": rows}, **options)
    brain.fit(Plan())
    assert len(brain.prepare(0)) == factor


def test_non_finite_loss_leaves_weights_untouched(tmp_path):
    brain = make(tmp_path, scale=float("inf"))
    before = brain.modules.line.weight.detach().clone()
    with pytest.raises(FloatingPointError, match=r"Step 0: loss (inf|nan)"):
        brain.fit(Plan())
    assert torch.equal(before, brain.modules.line.weight)


def test_weights_that_were_not_finite_before(tmp_path):
    """The learning rate is not to blame for them."""
    brain = make(tmp_path)
    brain.modules.line.bias.data[1] = torch.nan
    with pytest.raises(
        FloatingPointError, match=r"line\.bias was not"
    ) as caught:
        brain.fit(Plan())
    assert "learning rate" not in str(caught.value)


class ResultBrain(LineBrain):
    """Its result is a file."""

    def on_fit_end(self):
        Path(self.hparams.output_folder, "result").touch()


@pytest.mark.parametrize("faulty", ["draw_curves", "add_scalar", "close"])
def test_what_shows_a_run_never_keeps_it_from_its_result(
    tmp_path, monkeypatch, caplog, faulty
):
    def fail(*args, **kwargs):
        raise RuntimeError("no picture today")

    where = base if faulty == "draw_curves" else SummaryWriter
    monkeypatch.setattr(where, faulty, fail)
    brain = make(tmp_path, kind=ResultBrain, hparams={"tensorboard": True})
    brain.fit(Plan())
    assert (tmp_path / "result").exists()
    assert brain.optimizer_step == 12
    assert [entry["step"] for entry in brain.log.entries()] == [4, 8, 12]
    assert caplog.text.count("no picture today") == 1


def test_step_limit_and_log(tmp_path):
    brain = make(tmp_path, optimizer_step_limit=6)
    brain.fit(Plan())
    assert brain.optimizer_step == 6
    assert [entry["step"] for entry in brain.log.entries()] == [4, 6]


def test_eval_precision_follows_precision(tmp_path):
    assert make(tmp_path, precision="bf16").eval_precision == "bf16"
    brain = make(tmp_path, precision="bf16", eval_precision="fp32")
    assert brain.eval_precision == "fp32"


def test_options_without_effect_are_refused(tmp_path):
    options = {"ckpt_interval_minutes": 5, "debug_epochs": 1, "jit": True}
    options |= {"profile_steps": 3, "log_config": "x.yaml"}
    for option, value in options.items():
        with pytest.raises(ValueError, match=f"'{option}' is not"):
            make(tmp_path, **{option: value})


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("learning_rate", (-0.003, 0, NAN, "0.1", None)),
        ("warmup", (2, 1, -0.1, NAN)),
        ("seed", (-1, 1.5)),
        ("max_grad_norm", (NAN, "1")),
        ("grad_accumulation_factor", (0, -1, 1.5)),
        ("micro_batch_rows", (0, -1, 1.5)),
        ("log_interval", (-1, 2.5)),
        ("valid_interval", (-1, None)),
        ("ckpt_interval_steps", (-1, 0.5)),
        ("keep_checkpoints", (0, -2)),
        ("peak_tflops", (0, -1, NAN)),
        ("optimizer_step_limit", (0, -3)),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, name, values):
    """In the YAML file and among the run options; nothing is made."""
    for value in values:
        for place in ("hparams", "run_opts"):
            with pytest.raises(ValueError, match=f"^{name} is {value!r}; exp"):
                make(tmp_path / "run", **{place: {name: value}})
    assert not (tmp_path / "run").exists()


def threads():
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith("prepare-batches")]


class WatchedBrain(LineBrain):
    """Notes what is prepared and trained; either fails at step 2, if told."""

    notes = ()

    def prepare(self, step):
        self.notes += (f"prepare {step}",)
        if self.hparams.fails == "prepare" and step == 2:
            raise ValueError("row 2 is damaged")
        return super().prepare(step)

    def fit_step(self, parts):
        step = self.optimizer_step
        if self.hparams.fails == "train" and step == 2:
            assert len(threads()) == 1
            raise ValueError("training fails")
        super().fit_step(parts)
        self.notes += (f"train {step}",)


@pytest.mark.parametrize("fails", ["prepare", "train", None])
def test_batches_are_prepared_one_step_ahead(tmp_path, fails):
    """An error comes where its step would train, and ends the thread."""
    brain = make(tmp_path, kind=WatchedBrain, hparams={"fails": fails})
    with (
        pytest.raises(ValueError, match=r"damaged|fails")
        if fails
        else nullcontext()
    ):
        brain.fit(Plan())
    assert threads() == []
    assert brain.optimizer_step == (2 if fails else 12)
    last = {None: 11, "prepare": 2, "train": 3}[fails]
    prepared = [note for note in brain.notes if note.startswith("prepare")]
    assert prepared == [f"prepare {step}" for step in range(last + 1)]
    for step in range(10 if not fails else 0):
        trained = brain.notes.index(f"train {step}")
        assert trained < brain.notes.index(f"prepare {step + 2}")


def test_a_brain_that_does_not_know_its_operations(tmp_path, caplog):
    brain = make(tmp_path, hparams={"peak_tflops": 0.1})
    brain.fit(Plan())
    assert "mfu" not in brain.log.entries()[0]
    assert "are not known: the log gets no MFU" in caplog.text


def test_a_rank_that_would_train_another_run(tmp_path, monkeypatch):
    """As where a store is replaced after the main rank has opened it."""
    brain = make(tmp_path)
    monkeypatch.setattr(
        base, "ddp_broadcast", lambda identity: {**identity, "plan": "words"}
    )
    with pytest.raises(ValueError, match="plan: expected 'words', found 'numb"):
        brain.fit(Plan())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["schedule", "parallel"])
def test_unknown_values_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} is 'other'; expected"):
        make(tmp_path, hparams={name: "other"})
