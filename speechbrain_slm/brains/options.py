"""What a step Brain makes of run options and optimizer settings."""

import speechbrain as sb

from speechbrain_slm.brains.parallel import PARALLEL
from speechbrain_slm.brains.schedule import SCHEDULES
from speechbrain_slm.utils.command_line import UNSUPPORTED
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
# How an update is computed, not what it is.
_IMPLEMENTATION = ("lr", "foreach", "fused", "capturable", "differentiable")


def check_options(run_opts: dict, hparams: dict) -> None:
    """Refuse what has no effect or makes no sense, before anything is made.

    Arguments
    ---------
    run_opts
        SpeechBrain's run options; gets ``eval_precision`` where neither has
        it, since it would stay fp32 beside ``precision: bf16``.
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
    defaults = sb.RunOptions()
    for name, advice in UNSUPPORTED.items():
        value = run_opts.get(name, hparams.get(name, defaults[name]))
        if value != defaults[name]:
            raise ValueError(f"'{name}' is not supported here: {advice}")
    for name in _NUMBERS:
        # Run options stand before values of the same name.
        for given in (run_opts, hparams):
            if name in given:
                check_value(name, given[name], RANGES[name])
                break
    for name, values in (("schedule", SCHEDULES), ("parallel", PARALLEL)):
        if hparams[name] not in values:
            raise ValueError(
                f"{name} is {hparams[name]!r}; expected {' or '.join(values)}"
            )
    if "eval_precision" not in run_opts.keys() | hparams.keys():
        precision = run_opts.get("precision", hparams.get("precision"))
        run_opts["eval_precision"] = precision or "fp32"


def describe_optimizer(optimizer) -> dict:
    """Name an optimizer and its settings, for comparing runs.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        The learning rate, which is a function of the step, is left out.

    Returns
    -------
    Strings.

    Example
    -------
    >>> import torch
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
