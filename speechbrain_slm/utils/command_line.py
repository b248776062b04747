"""A recipe's command line, read strictly.

SpeechBrain's own parser accepts abbreviated run options, takes a bare
``--seed`` for null and ``--optimizer_step_limit 5`` for a string.
"""

import importlib.util
import os
import runpy
import sys
import typing
from collections.abc import Set
from dataclasses import fields
from pathlib import Path
from typing import Any

from speechbrain_slm.utils.ranges import RANGES, check_value
from speechbrain_slm.utils.typed_values import Place, typed_value
from speechbrain_slm.utils.yaml_tree import (
    ConfigurationError,
    read_tree,
    unknown_key,
)

# From their file: importing the package imports torch, which takes seconds; a
# typo and --help are answered without.
_PACKAGE = importlib.util.find_spec("speechbrain")
assert _PACKAGE is not None  # setup.py requires it
_FILE = Path(str(_PACKAGE.origin)).parent / "utils" / "run_opts.py"
_RUN_OPTS = runpy.run_path(str(_FILE))
_NOW_FULL = ("chat.yaml", "ecapa.yaml", "mimi.yaml")
_LISTS = {"jit_module_keys", "compile_module_keys"}
HELP = _RUN_OPTS["HELP_TEXTS"] | dict.fromkeys(
    _LISTS, "Those of modules to compile, in place of all"
)
_FIELDS = {f.name: f for f in fields(_RUN_OPTS["RunOptions"]) if f.name in HELP}
RUN_OPTIONS = frozenset(_FIELDS)
# What a recipe without a Brain reads (or need not read to obey).
_WITHOUT_BRAIN = {"device", "distributed_backend", "noprogressbar", "debug"}
_STOPS = "a non-finite step stops the run on all ranks"
_PROFILER = "wrap fit() in torch.profiler instead"
# Run options that would be silently without effect.
UNSUPPORTED = {
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


def options_of(tree: dict) -> Set[str]:
    """Return a recipe's run options; a Brain, which has modules, reads all."""
    return RUN_OPTIONS if "modules" in tree else _WITHOUT_BRAIN


def parse_arguments(arguments: list[str]) -> tuple[str, dict, dict]:
    r"""Split a command line into its YAML file, run options and overrides.

    Values are typed by what the YAML file has in their place.
    ConfigurationError for an unknown or abbreviated key, a missing or a second
    value, a key given twice, or a value of a wrong type.
    """
    yaml_file, arguments = find_yaml(arguments)
    tree = read_tree(yaml_file)
    options = options_of(tree)
    # HyperPyYAML's own keys, such as __set_seed, are not for users.
    keys = {key for key in map(str, tree) if not key.startswith("__")}
    known = (options - UNSUPPORTED.keys()) | keys
    run_options: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for name, values in _grouped(arguments):
        if name in options & UNSUPPORTED.keys():
            text = f"'{name}' is not supported here: {UNSUPPORTED[name]}"
            raise ConfigurationError(text)
        if name not in known:
            raise unknown_key(name, known, "command line")
        if name in run_options or name in overrides:
            raise ConfigurationError(f"--{name} is given twice")
        if name in options:
            run_options[name] = _run_option(name, values)
            continue
        text = _only(name, values)
        try:
            place = Place(name, tree[name], tree, yaml_file)
            overrides[name] = typed_value(text, place)
        except ConfigurationError as error:
            raise ConfigurationError(f"--{name} {text!r}: {error}") from None
    return yaml_file, run_options, overrides


def find_yaml(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the YAML file, and what else is on the command line."""
    if not arguments or arguments[0].startswith("-"):
        raise ConfigurationError(
            "The first argument must be a YAML file: "
            "python train.py hparams/mini.yaml [--key value ...], or --help"
        )
    path, rest = Path(arguments[0]).expanduser(), arguments[1:]
    if path.is_file():
        return str(path), rest
    # Version 0.1 named the full size by its source or model.
    full = path.with_name("full.yaml")
    if path.name in _NOW_FULL and full.is_file():
        return _now(path, full), rest
    # And it had a file a run: mini_en_fr.yaml is mini.yaml --run en_fr.
    parts = path.stem.split("_")
    for number in range(1, len(parts)):
        size = path.with_name(f"{'_'.join(parts[:number])}.yaml")
        run = "_".join(parts[number:])
        if size.is_file() and run in (read_tree(size).get("runs") or ()):
            return _now(path, size, f" --run {run}"), ["--run", run, *rest]
    raise ConfigurationError(
        f"{path}: there is no such YAML file (seen from {Path.cwd()})"
    )


def _now(path: Path, new: Path, how: str = "") -> str:
    if os.environ.get("RANK", "0") == "0":
        print(f"{path} is called {new}{how} now", file=sys.stderr)
    return str(new)


def _grouped(tokens):
    groups = []
    for token in tokens:
        # One dash begins a value: --max_grad_norm -1.
        if token.startswith("--"):
            # At the first =, so that --output_folder=a=b is the folder a=b.
            name, equals, value = token[2:].partition("=")
            groups.append((name, [value] if equals else []))
        elif groups:
            groups[-1][1].append(token)
        else:
            fault = f"'{token}' follows no --key; expected --key value"
            raise ConfigurationError(fault)
    return groups


def _only(name, values):
    fault = ""
    if len(values) != 1:
        found = f"{len(values)} values: {values}" if values else "no value"
        fault = (
            f"has {found}; expected one (quote a list or a mapping: --{name} "
            f"'[1, 2]'; write --{name}=--x for a value with dashes)"
        )
    elif not values[0].strip():
        fault = f"{values[0]!r} is empty; write null or '\"\"' for that"
    if fault:
        raise ConfigurationError(f"--{name} {fault}")
    return values[0]


def _run_option(name, values):
    field = _FIELDS[name]
    if name in _LISTS and values:
        return values
    if field.default is False and not values:
        return True  # a switch: --debug
    choices, value = typing.get_args(field.type), _only(name, values)
    if typing.get_origin(field.type) is typing.Literal:
        fits, expected = value in choices, f"one of {', '.join(choices)}"
    else:
        # Optional[int] is int: what has no default cannot be set to it either.
        kind = choices[0] if choices else field.type
        if kind is not str:
            value = typed_value(value, Place())
        if kind is float and type(value) is int:
            value = float(value)
        # Not isinstance: True is an int to it.
        fits, expected = type(value) is kind, kind.__name__
    if not fits:
        raise ConfigurationError(f"--{name} {value!r}: expected {expected}")
    if name in RANGES:
        check_value(name, value, RANGES[name])
    return value
