"""What a step Brain makes of run options and optimizer settings."""

import speechbrain as sb

from speechbrain_slm.brains.parallel import PARALLEL
from speechbrain_slm.brains.schedule import SCHEDULES
from speechbrain_slm.utils.numbers import check_number

_STOPS = "a non-finite step stops the run on all ranks"
_PROFILER = "wrap fit() in torch.profiler instead"
# Run options that would be silently without effect.
_UNSUPPORTED = {
    "ckpt_interval_minutes": "use --ckpt_interval_steps (optimizer steps)",
    "skip_nonfinite_grads": _STOPS,
    "nonfinite_patience": _STOPS,
    "data_parallel_backend": "start with torchrun instead",
    "profile_training": _PROFILER,
    "profile_steps": _PROFILER,
    "profile_warmup": _PROFILER,
    "debug_epochs": "there are no epochs; see --debug_batches",
    "jit": "use --compile",
    "jit_module_keys": "use --compile_module_keys",
    "log_config": "the log goes to log.txt in output_folder",
}
_COUNT = {"at_least": 1, "whole": True}
# At 0 only the last step is due.
_INTERVAL = {"at_least": 0, "whole": True}
# What the numbers among run options and values may be, where they are there.
_RANGES = {
    "seed": {"at_least": 0, "whole": True},
    "learning_rate": {"above": 0},
    "warmup": {"at_least": 0, "below": 1},
    "max_grad_norm": {},
    "grad_accumulation_factor": _COUNT,
    "log_interval": _INTERVAL,
    "valid_interval": _INTERVAL,
    "ckpt_interval_steps": _INTERVAL,
    "keep_checkpoints": _COUNT,
    "peak_tflops": {"above": 0},
    "optimizer_step_limit": _COUNT,
    "debug_batches": _COUNT,
}
_OPTIONAL = ("peak_tflops", "optimizer_step_limit")
# How an update is computed, not what it is.
_IMPLEMENTATION = ("lr", "foreach", "fused", "capturable", "differentiable")


def check_options(run_opts, hparams):
    """Refuse what has no effect or makes no sense, before anything is made.

    Arguments
    ---------
    run_opts : dict
        SpeechBrain's run options; gets ``eval_precision`` where neither has
        it, since it would stay fp32 beside ``precision: bf16``.
    hparams : dict
        The YAML file's values, run options among them.

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
    for name, advice in _UNSUPPORTED.items():
        value = run_opts.get(name, hparams.get(name, defaults[name]))
        if value != defaults[name]:
            raise ValueError(f"'{name}' is not supported here: {advice}")
    for name, bounds in _RANGES.items():
        # Run options stand before values of the same name.
        for given in (run_opts, hparams):
            if name in given:
                if given[name] is not None or name not in _OPTIONAL:
                    check_number(name, given[name], **bounds)
                break
    for name, values in (("schedule", SCHEDULES), ("parallel", PARALLEL)):
        if hparams[name] not in values:
            raise ValueError(
                f"{name} is {hparams[name]!r}; expected {' or '.join(values)}"
            )
    if "eval_precision" not in run_opts.keys() | hparams.keys():
        precision = run_opts.get("precision", hparams.get("precision"))
        run_opts["eval_precision"] = precision or "fp32"


def describe_optimizer(optimizer):
    """Name an optimizer and its settings, for comparing runs.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        The learning rate, which is a function of the step, is left out.

    Returns
    -------
    dict
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
