"""What a step Brain makes of run options and optimizer settings."""

import speechbrain as sb
import torch

from speechbrain_slm.brains.parallel import PARALLEL
from speechbrain_slm.brains.schedule import SCHEDULES
from speechbrain_slm.utils.command_line import UNSUPPORTED
from speechbrain_slm.utils.numbers import check_choice
from speechbrain_slm.utils.ranges import RANGES, check_value

# The numbers among run options and values, checked where they are there.
_NUMBERS = (
    "seed",
    "learning_rate",
    "warmup",
    "max_grad_norm",
    "grad_accumulation_factor",
    "log_interval",
    "valid_interval",
    "ckpt_interval_steps",
    "keep_checkpoints",
    "peak_tflops",
    "optimizer_step_limit",
    "debug_batches",
)
# How an update is computed, not what it is: a run may go on with another. The
# learning rate is a function of the step.
_IMPLEMENTATION = ("lr", "foreach", "fused", "capturable", "differentiable")


def check_options(run_opts: dict, hparams: dict) -> None:
    """Refuse what has no effect or makes no sense, before anything is made.

    Arguments
    ---------
    run_opts : SpeechBrain's run options; gets ``eval_precision``.
    hparams : The YAML file's values, run options among them.

    Raises
    ------
    ValueError
        Names the option, and what to use instead or what it may be.

    Example
    -------
    >>> options = {"precision": "bf16"}
    >>> hparams = {"warmup": 0.05, "schedule": "run", "parallel": "ddp"}
    >>> check_options(options, hparams)
    >>> options["eval_precision"]
    'bf16'
    """
    # Run options stand before values of the same name.
    given = {**hparams, **run_opts}
    defaults = sb.RunOptions()
    for name, advice in UNSUPPORTED.items():
        if given.get(name, defaults[name]) != defaults[name]:
            raise ValueError(f"'{name}' is not supported here: {advice}")
    for name in _NUMBERS:
        if name in given:
            check_value(name, given[name], RANGES[name])
    check_choice("schedule", hparams["schedule"], SCHEDULES)
    check_choice("parallel", hparams["parallel"], PARALLEL)
    # SpeechBrain would validate in fp32 beside precision: bf16.
    if "eval_precision" not in given:
        run_opts["eval_precision"] = given.get("precision") or "fp32"


def describe_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """Name an optimizer and its settings, for comparing runs.

    Example
    -------
    >>> weights = [torch.nn.Parameter(torch.zeros(1))]
    >>> describe_optimizer(torch.optim.SGD(weights, momentum=0.9))["momentum"]
    '0.9'
    """
    return {
        "class": type(optimizer).__name__,
        **{
            name: str(value)
            for name, value in optimizer.defaults.items()
            if name not in _IMPLEMENTATION
        },
    }
