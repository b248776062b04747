"""A recipe's command line, read strictly.

SpeechBrain's own parser accepts abbreviated run options, takes a bare
``--seed`` for null and ``--optimizer_step_limit 5`` for a string. Each of these
trains something other than what was asked for, so all are refused or read as
what they say.
"""

import typing
from dataclasses import fields
from pathlib import Path

import ruamel.yaml
import speechbrain as sb
from speechbrain.utils.run_opts import HELP_TEXTS

from speechbrain_slm.utils.yaml_tree import (
    ConfigurationError,
    read_tree,
    unknown_key,
)

_LISTS = {"jit_module_keys", "compile_module_keys"}
_FIELDS = {
    field.name: field
    for field in fields(sb.RunOptions)
    if field.name in HELP_TEXTS or field.name in _LISTS
}
RUN_OPTIONS = frozenset(_FIELDS)
# What a recipe without a Brain reads (or need not read to obey).
_WITHOUT_BRAIN = frozenset({"device", "distributed_backend", "noprogressbar"})


def parse_arguments(arguments):
    r"""Split a command line into its YAML file, run options and overrides.

    Run options that only a Brain reads are known where the YAML file has
    ``modules``.

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
        given twice, or a value that is not YAML or of a wrong type.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.yaml"
    >>> _ = path.write_text("seed: 1\nlr: 0.1\nmodules: {}\n")
    >>> parse_arguments([str(path), "--seed=3", "--precision", "bf16"])[1:]
    ({'precision': 'bf16'}, {'seed': 3})
    >>> parse_arguments([str(path), "--sed", "3"])
    Traceback (most recent call last):
    ...
    speechbrain_slm.utils.yaml_tree.ConfigurationError: command line: nothing
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
    keys = set(read_tree(yaml_file))
    options = RUN_OPTIONS if "modules" in keys else _WITHOUT_BRAIN
    run_options, overrides = {}, {}
    for name, values in _grouped(arguments[1:]):
        if name not in options | keys:
            raise unknown_key(name, options | keys, "command line")
        if name in run_options or name in overrides:
            raise ConfigurationError(f"--{name} is given twice")
        if name in options:
            run_options[name] = _run_option(name, values)
        else:
            overrides[name] = _parse_value(name, values)
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


def _parse_value(name, values):
    if len(values) != 1:
        found = "no value" if not values else f"{len(values)} values: {values}"
        raise ConfigurationError(
            f"--{name} has {found}; expected one (quote a list or a mapping: "
            f"--{name} '[1, 2]'; write --{name}=--x for a value with dashes)"
        )
    text = values[0]
    try:
        value = ruamel.yaml.YAML().load(text)
    except ruamel.yaml.error.YAMLError as error:
        raise ConfigurationError(
            f"--{name} {text!r} is not valid YAML: {error}"
        ) from None
    if value is None and text.strip().lower() not in ("null", "~"):
        raise ConfigurationError(
            f"--{name} {text!r} is empty; write null or '\"\"' for that"
        )
    return value


def _run_option(name, values):
    if name in _LISTS:
        if not values:
            raise ConfigurationError(f"--{name} has no value; expected some")
        return values
    field = _FIELDS[name]
    if field.default is False and not values:
        return True
    value = _parse_value(name, values)
    choices = typing.get_args(field.type)
    if typing.get_origin(field.type) is typing.Literal:
        if value not in choices:
            raise ConfigurationError(
                f"--{name} {value!r}: expected one of {', '.join(choices)}"
            )
        return value
    # Optional[int] is int: what has no default cannot be set to it either.
    expected = choices[0] if choices else field.type
    if expected is float and type(value) is int:
        value = float(value)
    # A boolean is an int to isinstance.
    if not isinstance(value, expected) or (
        isinstance(value, bool) and expected is not bool
    ):
        raise ConfigurationError(
            f"--{name} {value!r}: expected {expected.__name__}"
        )
    return value
