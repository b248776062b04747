"""A trained LM as a Hugging Face folder, with what its units are."""

import logging
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel

from speechbrain_slm.utils.atomic import (
    atomic_folder,
    read_json,
    write_atomic,
    write_json,
)
from speechbrain_slm.utils.files import check_file
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.pretrained import load_whole
from speechbrain_slm.utils.schema import (
    COUNT,
    TEXT,
    check_shape,
    read_shaped,
    whole,
)
from speechbrain_slm.utils.sealing import FILES_JSON, seal, unsealed

logger = logging.getLogger(__name__)

UNITS_JSON = "units.json"
# The same in config.json, which transformers keeps when it saves a model anew.
UNITS_KEY = "speech_units"
CARD = "README.md"
TOKENIZER = "tokenizer"
_SHAPE = {
    "tokenizer_identity": TEXT,
    "vocabulary_size": whole(1),
    "boundary": COUNT,
    # Exports that were written before there were any have none.
    "language_tags?": {str: COUNT},
}
UNITS_FIELDS = tuple(name.rstrip("?") for name in _SHAPE)


def save_speech_lm(
    folder: str | Path,
    model: PreTrainedModel,
    units: dict,
    tokenizer: dict[str, bytes] | None = None,
    card: str | None = None,
) -> None:
    """Publish a model, all of it or nothing.

    Arguments
    ---------
    folder : A new folder; ``AutoModelForCausalLM.from_pretrained`` loads it.
    units
        ``tokenizer_identity`` (str), ``vocabulary_size`` (int) of the units
        that the model was trained on, ``boundary`` (int), the id of the
        symbol between stories, and ``language_tags``, language -> id of the
        symbol that announces it; empty (or absent) where it has none.
    tokenizer : What makes units of speech: name -> content of a file.
    card : The text of a ``README.md``, which may be edited later.
    """
    units = {"language_tags": {}, **units}
    units = {key: units[key] for key in UNITS_FIELDS}
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        config = read_json(temporary / "config.json")
        write_json(temporary / "config.json", {**config, UNITS_KEY: units})
        write_json(temporary / UNITS_JSON, units)
        for name, content in (tokenizer or {}).items():
            write_atomic(temporary / TOKENIZER / name, content)
        seal(temporary, [p for p in temporary.rglob("*") if p.is_file()])
        # After the seal, which therefore does not hold it to what it is.
        if card:
            write_atomic(temporary / CARD, card)


def examine_speech_lm(folder: str | Path) -> tuple[dict, dict[str, str]]:
    """Check an exported model, or a copy that transformers has saved anew.

    Returns
    -------
    units : dict
        See :func:`save_speech_lm`.
    identity : dict
        ``model``: the SHA-256 of the weights (of the list of their SHA-256
        where there are several files); ``configuration``: of all else that
        decides scores.

    Raises
    ------
    FileNotFoundError
        If the folder is not a complete export.
    ValueError
        If a file is no regular one, is not what was written, or does not fit
        the others.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not an exported speech LM: there is no such folder. "
            "Train to the end with the LM recipe, which writes it."
        )
    for path in sorted(folder.iterdir()):
        # transformers would wait for a pipe.
        if not path.is_dir() and path.suffix in (".json", ".safetensors"):
            check_file(path, "a file of an exported model")
    units, config = _read_units(folder)
    if (folder / FILES_JSON).exists():
        weights = sorted(
            [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]
        )
        fault = unsealed(
            folder, ["config.json", UNITS_JSON, *(p.name for p in weights)]
        )
        if fault:
            raise ValueError(
                f"{folder} is not the model that was exported: {fault}. Copy "
                "or export it again."
            )
    _refuse_elsewhere(folder)
    hashes = {
        path.name: sha256_file(path)
        for path in sorted(folder.glob("*.safetensors"))
    }
    if not hashes:
        raise FileNotFoundError(
            f"{folder} holds no *.safetensors; expected an exported model "
            "(the folder 'model' that the LM recipe writes)"
        )
    one = len(hashes) == 1
    return units, {
        "model": next(iter(hashes.values())) if one else identity_of(hashes),
        "configuration": identity_of([config, units]),
    }


def _refuse_elsewhere(folder: Path) -> None:
    """Refuse weights of another folder, of which no hash here knows."""
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{folder} holds adapter_config.json, an adapter of weights that "
            "stand elsewhere; merge them, and export the model"
        )
    for path in folder.glob("*.safetensors.index.json"):
        index: Any = read_shaped(path, {"weight_map": {str: TEXT}})
        for name in index["weight_map"].values():
            if Path(name).name != name:
                raise ValueError(
                    f"{path} names '{name}'; expected files beside it"
                )


def refuse_foreign_model(folder: str | Path) -> None:
    """Refuse to export where something else than an export of ours stands.

    Raises
    ------
    FileExistsError
        If it holds a file that :func:`save_speech_lm` did not write.
    """
    folder = Path(folder)
    try:
        ours = {FILES_JSON, CARD, *read_json(folder / FILES_JSON)}
    except (OSError, ValueError, TypeError):
        ours = set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in ours and (path.is_symlink() or not path.is_dir()):
            raise FileExistsError(
                f"{folder} stands where the trained model is to be, and holds "
                f"{name}, which no export wrote (those of older versions have "
                f"no {FILES_JSON}). It stays as it is: choose another "
                "output_folder, or move it out of the way."
            )


def load_speech_lm(
    folder: str | Path, identity: dict | None = None
) -> tuple[PreTrainedModel, dict]:
    """Load what :func:`save_speech_lm` wrote, in evaluation mode.

    Arguments
    ---------
    identity
        What :func:`examine_speech_lm` has found, where the caller has asked
        before: the folder must still be that model.

    Returns
    -------
    The model, and what its units are.

    Raises
    ------
    FileNotFoundError, ValueError
        See :func:`examine_speech_lm` and
        :func:`speechbrain_slm.utils.pretrained.load_whole`.
    """
    if identity is None:
        identity = examine_speech_lm(folder)[1]
    if not (Path(folder) / FILES_JSON).exists():
        logger.warning(
            "%s has no %s, by which a damaged or changed file would be found",
            folder,
            FILES_JSON,
        )
    model = load_whole(
        AutoModelForCausalLM,
        folder,
        local_files_only=True,
        use_safetensors=True,
    )
    # Read anew: what was loaded lies between two looks at the same files.
    units, found = examine_speech_lm(folder)
    if found != identity:
        raise ValueError(
            f"{folder} was replaced while it was loaded; run the same command "
            "again"
        )
    return model.eval(), units


def _read_units(folder: Path) -> tuple[dict, dict]:
    """Return what the units are, and the configuration without it."""
    path = folder / UNITS_JSON
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} is not an exported speech LM: it has no config.json. "
            "Train to the end with the LM recipe, which writes it."
        )
    config: Any = read_shaped(folder / "config.json", {"vocab_size": COUNT})
    kept = config.pop(UNITS_KEY, None)
    if path.is_file():
        units: Any = read_shaped(path, _SHAPE)
        if kept not in (None, units):
            raise ValueError(
                f"{path} says {units}, and config.json beside it {kept}; "
                "expected the same. Copy or export the model again."
            )
    elif kept is not None:
        path = folder / "config.json"
        check_shape(kept, _SHAPE, f"{path}: {UNITS_KEY}")
        units = kept
    else:
        raise FileNotFoundError(
            f"{folder} is not an exported speech LM: it has no {UNITS_JSON}, "
            f"and its config.json no '{UNITS_KEY}'. Train to the end with the "
            "LM recipe, which writes both."
        )
    units = {"language_tags": {}, **units}
    units = {key: units[key] for key in UNITS_FIELDS}
    _check_symbols(path, units, config)
    # Which release has saved it changes nothing.
    config.pop("transformers_version", None)
    return units, config


def _check_symbols(path: Path, units: dict, config: dict) -> None:
    """Refuse symbols that are not: units, the boundary, then the tags."""
    size, tags = units["vocabulary_size"], units["language_tags"]
    after = list(range(size + 1, size + 1 + len(tags)))
    for name, found, expected in (
        ("boundary", units["boundary"], size),
        ("language_tags", sorted(tags.values()), after),
        (
            "vocab_size in config.json",
            config["vocab_size"],
            size + 1 + len(tags),
        ),
    ):
        if found != expected:
            raise ValueError(
                f"{path}: of {size} units, {name} is {found}; expected "
                f"{expected}: the units come first, then the boundary, then "
                f"{len(tags)} language tag(s). Copy or export the model again."
            )
