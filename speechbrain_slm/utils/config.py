"""Strict loading of a recipe's YAML file and command line.

SpeechBrain's own parser accepts abbreviated run options, lets unknown keys
inside an included fragment pass, and takes a bare ``--seed`` for null. Each
of these trains something other than what was asked for, so all are refused
here, with the nearest known name.
"""

import difflib
import logging
import os
import shutil
import sys
from dataclasses import fields
from pathlib import Path

import ruamel.yaml
import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml, resolve_references
from hyperpyyaml.core import recursive_update
from speechbrain.utils.logger import get_environment_description
from speechbrain.utils.run_opts import HELP_TEXTS

from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.distributed import (
    barrier,
    init_distributed,
    is_main,
)

logger = logging.getLogger(__name__)
INCLUDE = "!include:"
_LISTS = {"jit_module_keys", "compile_module_keys"}
RUN_OPTIONS = frozenset(
    {field.name for field in fields(sb.RunOptions)} & (set(HELP_TEXTS) | _LISTS)
)
_FLAGS = {
    field.name
    for field in fields(sb.RunOptions)
    if field.name in RUN_OPTIONS and field.default is False
}
_CHOICES = {
    "precision": ("fp32", "fp16", "bf16"),
    "eval_precision": ("fp32", "fp16", "bf16"),
    "distributed_backend": ("nccl", "gloo", "mpi"),
}


class ConfigurationError(ValueError):
    """A command line or a YAML file that does not say what to run."""


def _unknown(name, known, where):
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return ConfigurationError(
        f"{where}: nothing reads '{name}'.{hint} Known: "
        f"{', '.join(sorted(known))}"
    )


def _read_tree(path):
    try:
        tree = ruamel.yaml.YAML().load(Path(path).read_text(encoding="utf-8"))
    except ruamel.yaml.error.YAMLError as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path}: expected a mapping at the root")
    return tree


def parse_arguments(arguments):
    r"""Split a command line into its YAML file, run options and overrides.

    Arguments
    ---------
    arguments : list of str
        ``[yaml_file, --key, value, --key=value, ...]``. Values are YAML.

    Returns
    -------
    str
        The YAML file.
    dict
        SpeechBrain run options (``device``, ``precision``, ...).
    dict
        Overrides of the YAML file's root keys.

    Raises
    ------
    ConfigurationError
        For an unknown or abbreviated key, a missing or a second value, a key
        given twice, or a value that is not YAML.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.yaml"
    >>> _ = path.write_text("seed: 1\nlr: 0.1\n")
    >>> parse_arguments([str(path), "--seed=3", "--precision", "bf16"])[1:]
    ({'precision': 'bf16'}, {'seed': 3})
    >>> parse_arguments([str(path), "--sed", "3"])
    Traceback (most recent call last):
    ...
    speechbrain_slm.utils.config.ConfigurationError: command line: nothing
    reads 'sed'. Did you mean 'seed'? Known: ...
    """
    if not arguments or arguments[0].startswith("--"):
        raise ConfigurationError(
            "The first argument must be a YAML file: "
            "python train.py hparams/mini.yaml [--key value ...]"
        )
    yaml_file = arguments[0]
    if not Path(yaml_file).is_file():
        raise ConfigurationError(f"{yaml_file}: there is no such YAML file")
    known = RUN_OPTIONS | set(_read_tree(yaml_file))
    run_options, overrides = {}, {}
    for name, values in _grouped(arguments[1:]):
        if name not in known:
            raise _unknown(name, known, "command line")
        if name in run_options or name in overrides:
            raise ConfigurationError(f"--{name} is given twice")
        if name in RUN_OPTIONS:
            run_options[name] = _run_option(name, values)
        else:
            overrides[name] = _parse_value(name, _single(name, values))
    return yaml_file, run_options, overrides


def _grouped(tokens):
    groups = []
    for token in tokens:
        if token.startswith("--"):
            name, equals, value = token[2:].partition("=")
            groups.append((name, [value] if equals else []))
        elif groups:
            groups[-1][1].append(token)
        else:
            raise ConfigurationError(
                f"'{token}' follows no --key; expected --key value"
            )
    return groups


def _single(name, values):
    if len(values) != 1:
        found = "no value" if not values else f"{len(values)} values: {values}"
        raise ConfigurationError(
            f"--{name} has {found}; expected one (quote a list or a mapping: "
            f"--{name} '[1, 2]')"
        )
    return values[0]


def _parse_value(name, text):
    try:
        value = ruamel.yaml.YAML().load(text)
    except ruamel.yaml.error.YAMLError as error:
        raise ConfigurationError(
            f"--{name} {text!r} is not valid YAML: {error}"
        ) from None
    # An empty text would be null without anyone having written null.
    return "" if value is None and text.strip() in ("", '""') else value


def _run_option(name, values):
    if name in _LISTS:
        return values
    if name in _FLAGS:
        if not values:
            return True
        value = _parse_value(name, _single(name, values))
        if not isinstance(value, bool):
            raise ConfigurationError(f"--{name} {value!r}: expected a boolean")
        return value
    value = _parse_value(name, _single(name, values))
    default = getattr(sb.RunOptions(), name)
    expected = int if name == "optimizer_step_limit" else type(default)
    if expected is float and isinstance(value, int):
        value = float(value)
    if default is not None and not isinstance(value, expected):
        raise ConfigurationError(
            f"--{name} {value!r}: expected {expected.__name__}"
        )
    if value not in _CHOICES.get(name, (value,)):
        raise ConfigurationError(
            f"--{name} {value!r}: expected one of {', '.join(_CHOICES[name])}"
        )
    return value


def check_tree(path, tree, overrides):
    """Refuse keys that no part of a YAML file or of its fragments reads.

    Arguments
    ---------
    path : str or Path
        The YAML file; ``!include`` paths are relative to it.
    tree : dict
        Its content, tags kept (ruamel's round-trip tree).
    overrides : dict
        What the command line, or the including file, sets in it.

    Raises
    ------
    ConfigurationError
        If an override names a key that is not there, or a mapping given to an
        ``!include`` names a key that the fragment does not have.
    """
    for name, value in overrides.items():
        if name not in tree:
            raise _unknown(name, set(tree), str(path))
        if isinstance(value, dict) and isinstance(tree[name], dict):
            tag = tree[name].tag.value or ""
            # The arguments of an object are checked by its constructor, and
            # those of a fragment below, where the fragment is known.
            if not tag and tree[name]:
                check_tree(f"{path}: {name}", tree[name], value)
    recursive_update(tree, overrides)
    _check_includes(Path(path), tree)


def _check_includes(path, node):
    children = []
    if isinstance(node, dict):
        children = list(node.values())
    elif isinstance(node, list):
        children = list(node)
    tag = getattr(node, "tag", None)
    tag = (tag.value or "") if tag is not None else ""
    if tag.startswith(INCLUDE):
        fragment = path.parent / tag[len(INCLUDE) :]
        if not fragment.is_file():
            raise ConfigurationError(
                f"{path} includes {fragment}, which does not exist"
            )
        if not isinstance(node, dict):
            raise ConfigurationError(
                f"{path}: give {tag} a mapping ({{}} where nothing is set), so "
                "that the command line can override its keys"
            )
        check_tree(fragment, _read_tree(fragment), dict(node))
    for child in children:
        _check_includes(path, child)


def load_yaml(yaml_file, overrides=None):
    """Load a HyperPyYAML file; whatever nothing reads is refused.

    Arguments
    ---------
    yaml_file : str or Path
        The file.
    overrides : dict, optional
        New values for its keys.

    Returns
    -------
    dict
        The objects and values that the file describes.

    Raises
    ------
    ConfigurationError
        See :func:`check_tree`.
    """
    overrides = overrides or {}
    check_tree(yaml_file, _read_tree(yaml_file), overrides)
    with open(yaml_file, encoding="utf-8") as file:
        return load_hyperpyyaml(file, overrides)


def load_recipe(arguments):
    """Do what every ``train.py`` starts with.

    The command line is read strictly, the process group is joined when
    ``torchrun`` started the process, the YAML file is loaded, and the
    experiment folder (``output_folder``) gets ``hyperparams.yaml``, ``log.txt``
    and ``env.log``.

    Arguments
    ---------
    arguments : list of str
        ``sys.argv[1:]``.

    Returns
    -------
    dict
        The YAML file's objects and values, run options included.
    dict
        Run options for a Brain's ``run_opts``: those of the command line, the
        device and the backend.

    Raises
    ------
    ConfigurationError
        For anything on the command line or in a YAML file that nothing reads.
    """
    try:
        yaml_file, run_options, overrides = parse_arguments(arguments)
        tree = _read_tree(yaml_file)
        both = {key: run_options[key] for key in run_options if key in tree}
        check_tree(yaml_file, tree, {**overrides, **both})
    except ConfigurationError as error:
        sys.exit(f"error: {error}")
    overrides = {**overrides, **both}
    device = run_options.get("device") or tree.get("device")
    device = device or sb.utils.distributed.infer_device()
    backend = run_options.get("distributed_backend")
    device = init_distributed(device, backend)
    with open(yaml_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    if "output_folder" not in hparams:
        sys.exit(f"error: {yaml_file} sets no output_folder")
    if is_main():
        _begin_experiment(hparams["output_folder"], yaml_file, overrides)
    barrier()
    run_options["device"] = device
    run_options["distributed_backend"] = backend or (
        "nccl" if device.startswith("cuda") else "gloo"
    )
    return hparams, run_options


def _begin_experiment(folder, yaml_file, overrides):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(yaml_file, encoding="utf-8") as file:
        resolved = resolve_references(file, overrides).getvalue()
    write_atomic(
        folder / "hyperparams.yaml",
        f"# Resolved from {os.path.abspath(yaml_file)}\n{resolved}",
    )
    script = Path(sys.argv[0])
    if script.suffix == ".py" and script.is_file():
        shutil.copy(script, folder)
    sb.utils.logger.setup_logging(
        sb.core.DEFAULT_LOG_CONFIG,
        {"handlers": {"file_handler": {"filename": str(folder / "log.txt")}}},
    )
    sys.excepthook = _log_exception
    write_atomic(folder / "env.log", get_environment_description())
    logger.info("Experiment folder: %s", folder)


def _log_exception(kind, error, traceback):
    logger.error("%s", error, exc_info=(kind, error, traceback))
