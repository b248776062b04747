"""Load a recipe: its command line, its YAML file, its experiment folder.

Whatever nothing reads is refused before anything is made or written; see
``command_line`` and ``yaml_tree``.
"""

import logging
import os
import shutil
import sys
from pathlib import Path

import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.utils.logger import get_environment_description

from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.command_line import parse_arguments
from speechbrain_slm.utils.distributed import (
    barrier,
    init_distributed,
    is_main,
)
from speechbrain_slm.utils.locking import FolderInUse, lock_folder
from speechbrain_slm.utils.yaml_tree import (
    ConfigurationError,
    check_tree,
    read_tree,
)

logger = logging.getLogger(__name__)
# Locks of this process's experiment folders; its end frees them.
_locks = []


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
        See :func:`speechbrain_slm.utils.yaml_tree.check_tree`.
    """
    overrides = overrides or {}
    check_tree(yaml_file, read_tree(yaml_file), overrides)
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
    SystemExit
        With the reason, for anything on the command line or in a YAML file
        that nothing reads, and for a folder that another run is writing.
        Nothing has been made or written then.
    """
    try:
        yaml_file, run_options, overrides = parse_arguments(arguments)
        tree = read_tree(yaml_file)
        both = {key: run_options[key] for key in run_options if key in tree}
        check_tree(yaml_file, tree, {**overrides, **both})
        if not tree.get("output_folder"):
            raise ConfigurationError(f"{yaml_file} sets no output_folder")
    except ConfigurationError as error:
        sys.exit(f"error: {error}")
    overrides = {**overrides, **both}
    device = run_options.get("device") or tree.get("device")
    device = device or sb.utils.distributed.infer_device()
    backend = run_options.get("distributed_backend")
    device = init_distributed(device, backend)
    hparams = load_yaml(yaml_file, overrides)
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
    try:
        _locks.append(lock_folder(folder))
    except FolderInUse as error:
        sys.exit(f"error: {error}")
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
