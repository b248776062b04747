"""Load a recipe: its command line, its YAML file, its experiment folder.

Whatever nothing reads, or is out of its range, is refused before anything is
made, written, or imported that takes seconds.
"""

import difflib
import inspect
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml

from speechbrain_slm.utils import yaml_tree
from speechbrain_slm.utils.command_line import parse_arguments
from speechbrain_slm.utils.ranges import check_ranges
from speechbrain_slm.utils.recipe_help import recipe_help
from speechbrain_slm.utils.running import begin_process, set_debug
from speechbrain_slm.utils.yaml_tree import ConfigurationError


def load_yaml(yaml_file: str | Path, overrides: dict | None = None) -> dict:
    """Make what a HyperPyYAML file describes, with new values for its keys."""
    return _make(_resolved(yaml_file, overrides)[1])


def _resolved(yaml_file, overrides):
    """Return the resolved tree, and its text."""
    tree = yaml_tree.resolve(yaml_file, overrides)
    check_ranges(tree, yaml_file)
    # HyperPyYAML loads text alone; and this is what hyperparams.yaml holds.
    text = io.StringIO()
    ruamel.yaml.YAML().dump(tree, text)
    return tree, text.getvalue()


def _make(resolved):
    try:
        return load_hyperpyyaml(resolved)
    except (TypeError, ImportError) as error:
        # HyperPyYAML puts the class in front of what Python says.
        text = ": ".join(map(str, error.args))
        raise ConfigurationError(text) from error


def load_recipe(
    arguments: list[str], alone: str | None = None
) -> tuple[dict, dict]:
    """Do what every ``train.py`` starts with.

    The command line is read strictly, the process group is joined when
    ``torchrun`` started the process, the YAML file is loaded, and the
    experiment folder gets its lock and log. From here on an error is one line
    on stderr. ``--help`` prints what there is to set, and ends the process.
    ``alone``: why the recipe does not run with ``torchrun``, if so.

    Returns the YAML file's objects and values, run options included; and a
    Brain's ``run_opts``: those of the command line, the device, the backend.
    FolderInUse for a folder that another run is writing; ConfigurationError
    for anything that nothing reads or that is out of its range: nothing has
    been made or written then.
    """
    begin_process()
    # Before anything is checked: who asks may not know what to give.
    if {"-h", "--help"} & set(arguments):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # | head is no error
        print(recipe_help(arguments))
        sys.exit()
    set_debug("--debug" in arguments)
    if alone and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigurationError(f"run this without torchrun; {alone}")
    yaml_file, run_options, overrides = parse_arguments(arguments)
    set_debug(bool(run_options.get("debug")))
    # One that is a key of the file, too, stands in hyperparams.yaml as it is.
    tree = yaml_tree.read_tree(yaml_file)
    both = {key: run_options[key] for key in run_options if key in tree}
    tree, text = _resolved(yaml_file, {**overrides, **both})
    folder = tree.get("output_folder")
    if not folder or not isinstance(folder, str):
        raise ConfigurationError(
            f"{yaml_file}: output_folder is {folder!r}; expected a folder "
            "(a name that looks like a number needs quotes)"
        )
    # These import torch and SpeechBrain: some seconds.
    from speechbrain.utils.distributed import infer_device

    from speechbrain_slm.utils import distributed
    from speechbrain_slm.utils.experiment import begin_experiment

    device = run_options.get("device") or tree.get("device") or infer_device()
    for name in {str(device), *_devices(tree)}:
        check_device(name)
    backend = run_options.get("distributed_backend")
    limit = tree.get("heartbeat_timeout", distributed.HEARTBEAT_TIMEOUT)
    device = distributed.init_distributed(str(device), backend, limit)
    # Only now: objects may be made on the rank's own GPU.
    hparams = _make(text)
    if distributed.is_main():
        begin_experiment(folder, yaml_file, text)
    distributed.barrier()  # nobody works in a folder that another run has
    backend = backend or ("nccl" if device.startswith("cuda") else "gloo")
    run_options |= {"device": device, "distributed_backend": backend}
    return hparams, run_options


def named(hparams: dict, function: Callable) -> dict:
    """Return the values of a YAML file that a function's signature names."""
    parameters = inspect.signature(function).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        # What it reads would be left out, without a word.
        raise TypeError(f"{function.__qualname__} does not name its arguments")
    return {name: hparams[name] for name in parameters if name in hparams}


def call_with(hparams: dict, function: Callable, /, **given: Any) -> Any:
    """Call a function with the values of a YAML file that its signature names.

    ``given`` is what the file does not say, or says under another name.
    """
    values = named(hparams, function) | given
    signature = inspect.signature(function)
    # In a copy of a YAML file, "packign: best_fit" must not mean the default.
    absent = signature.parameters.keys() - values.keys()
    for key in sorted(hparams.keys() - signature.parameters.keys()):
        if difflib.get_close_matches(key, absent, cutoff=0.8):
            known = absent | values.keys()
            raise yaml_tree.unknown_key(key, known, "the YAML file")
    try:
        bound = signature.bind(**values)
    except TypeError as error:
        raise ConfigurationError(
            f"the YAML file: {error}, which {function.__qualname__} needs"
        ) from None
    return function(*bound.args, **bound.kwargs)


def _devices(tree):
    """Return the devices that the arguments of objects name."""
    found = [value for _, key, value in yaml_tree.walk(tree) if key == "device"]
    return {str(value) for value in found if isinstance(value, str)}


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have."""
    import torch

    # cuda:1 is a CUDA device; cuda:x and gpu are none.
    known = re.fullmatch(r"cpu(:0)?|mps(:0)?|cuda(:(\d+))?", device)
    if known is None:
        raise ValueError(
            f"device is {device!r}; expected cpu or cuda (also cuda:<number>)"
        )
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.startswith("cuda") and int(known[4] or 0) >= there:
        gpus = f"{there or 'no'} GPU{'' if there == 1 else 's'}"
        raise ValueError(
            f"device is {device!r}; this machine has {gpus} that torch can "
            "use. Take another device, or --device cpu"
        )
