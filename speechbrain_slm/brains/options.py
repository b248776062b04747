"""What a step Brain makes of run options and optimizer settings."""

from collections.abc import Sequence

import numpy as np
import speechbrain as sb
import torch
from speechbrain.nnet.schedulers import LinearWarmupScheduler

from speechbrain_slm.utils.command_line import UNSUPPORTED
from speechbrain_slm.utils.numbers import check_choice
from speechbrain_slm.utils.ranges import RANGES, check_value

# The numbers among run options and values, checked where they are there.
_NUMBERS = (
    *("seed", "learning_rate", "warmup", "max_grad_norm"),
    *("grad_accumulation_factor", "micro_batch_rows"),
    *("log_interval", "valid_interval"),
    *("ckpt_interval_steps", "keep_checkpoints", "peak_tflops"),
    *("optimizer_step_limit", "debug_batches"),
)
# How an update is computed, not what it is: a run may go on with another. The
# learning rate is a function of the step.
_IMPLEMENTATION = ("lr", "foreach", "fused", "capturable", "differentiable")


def check_options(run_opts: dict, hparams: dict) -> None:
    """Refuse what has no effect or makes no sense, before anything is made.

    Run options may stand among the values of the YAML file, too;
    ``eval_precision`` is added to them, and ``micro_batch_rows`` taken away
    where ``grad_accumulation_factor`` is given.

    Example
    -------
    >>> options = {"precision": "bf16"}
    >>> hparams = {"warmup": 0.05, "schedule": "run", "parallel": "ddp"}
    >>> check_options(options, hparams)
    >>> options["eval_precision"]
    'bf16'
    """
    given, defaults = {**hparams, **run_opts}, sb.RunOptions()
    for name, advice in UNSUPPORTED.items():
        if given.get(name, defaults[name]) != defaults[name]:
            raise ValueError(f"'{name}' is not supported here: {advice}")
    for name in _NUMBERS:
        if name in given:
            check_value(name, given[name], RANGES[name])
    check_choice("schedule", hparams["schedule"], ("run", "stage"))
    check_choice("parallel", hparams["parallel"], ("ddp", "fsdp"))
    if given.get("compile_module_keys") and not given.get("compile"):
        raise ValueError(
            "compile_module_keys is given, and nothing is compiled: add "
            "--compile, or leave it out"
        )
    if "grad_accumulation_factor" in given:
        hparams.pop("micro_batch_rows", None)
    # SpeechBrain would validate in fp32 beside precision: bf16.
    if "eval_precision" not in given:
        run_opts["eval_precision"] = given.get("precision") or "fp32"


def fewest_parts(rows: int, at_most: int) -> int:
    """Return into how many equal parts of at most so many rows they go.

    >>> fewest_parts(75, 15), fewest_parts(300, 15), fewest_parts(38, 15)
    (5, 20, 19)
    """
    least = -(-rows // at_most)
    return next((n for n in range(least, rows) if rows % n == 0), max(1, rows))


def check_division(rows_per_step: int, ranks: int, factor: int) -> None:
    """Refuse a global batch that ranks and micro-batches cannot divide."""
    parts = ranks * factor
    if rows_per_step % parts:
        below = rows_per_step // parts * parts
        fits = " or ".join(str(n) for n in (below, below + parts) if n)
        raise ValueError(
            f"rows_per_step is {rows_per_step}; {ranks} rank(s) x "
            f"grad_accumulation_factor {factor} cannot divide it. Set "
            f"rows_per_step to {fits}, or change the ranks or the factor."
        )


def describe_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """Name an optimizer and its settings, for comparing runs."""
    settings = {k: str(v) for k, v in optimizer.defaults.items()}
    for name in _IMPLEMENTATION:
        settings.pop(name, None)
    return {"class": type(optimizer).__name__, **settings}


class LearningRate:
    """Linear warm-up, then linear decay, over the run or in every stage.

    Arguments
    ---------
    peak : The rate at the end of the warm-up.
    warmup : Share of the run, or of each stage, that warms up.
    first_steps : First step of every stage and, last, the number of steps.
    schedule : ``"run"``: once. ``"stage"``: anew in each stage.

    Example
    -------
    >>> rate = LearningRate(1.0, 0.5, [0, 4, 8], "run")
    >>> [rate.at(step) for step in range(8)]
    [0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2]
    >>> rate = LearningRate(1.0, 0.5, [0, 4, 8], "stage")
    >>> [round(rate.at(step), 2) for step in range(8)]
    [0.5, 1.0, 0.67, 0.33, 0.5, 1.0, 0.67, 0.33]
    """

    def __init__(
        self,
        peak: float,
        warmup: float,
        first_steps: Sequence[int] | np.ndarray,
        schedule: str,
    ) -> None:
        bounds = np.asarray(first_steps)
        self._bounds = bounds if schedule == "stage" else bounds[[0, -1]]
        self._parts = [
            # The last step still trains: zero comes one step later.
            LinearWarmupScheduler(peak, round(warmup * length), length + 1)
            for length in np.diff(self._bounds).tolist()
        ]

    def at(self, step: int) -> float:
        """Return the rate with which a step, from 0, updates the weights."""
        part = int(np.searchsorted(self._bounds, step, side="right")) - 1
        # Counted from 1: a first step at rate 0 would train on its tokens for
        # nothing.
        local = step - int(self._bounds[part]) + 1
        return self._parts[part].calculate_lr(local)
