"""A trained LM as a Hugging Face folder, with what its units are."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel

from speechbrain_slm.models.folder import (
    TOKENIZER,
    VOCODER,
    below_bpe,
    check_vocoder,
    copy_vocoder,
    refuse_pickles,
    tokenizer_of,
    vocoder_of,
)
from speechbrain_slm.utils.atomic import (
    TEMPORARY,
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
    FLAG,
    MAPPING,
    POSITIVE,
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
_SHAPE = {
    "tokenizer_identity": TEXT,
    "vocabulary_size": whole(1),
    "boundary": COUNT,  # the id of the symbol between stories
    "language_tags": {str: COUNT},  # of the symbols that announce languages
    # What models of before lack: nothing that scores hang on.
    "languages?": [TEXT],  # that it was trained on
    "frame_rate?": POSITIVE,  # units a second, before they are merged
    "deduplicated?": FLAG,  # a unit that repeats itself is written once
    "tokenizer?": MAPPING,  # its configuration
    "base_identity?": TEXT,  # of what is below BPE; a vocoder speaks its units
    "encoder?": {"name": TEXT, "weights": TEXT},  # a pretrained one, its hash
    "row_length?": whole(2),  # tokens of the rows that it was trained on
    "attention?": TEXT,  # over rows: open, or blocked between their stories
}
UNITS_FIELDS = tuple(key for key in _SHAPE if not key.endswith("?"))
_AGAIN = "Train to the end with the LM recipe, which writes it."
# AutoTokenizer would make a tokenizer of no words, and say nothing. It shows
# what stands where it expects the number of a token.
_NO_TEXT = (
    "a speech LM has no text tokenizer; turn audio into units with "
    "speechbrain_slm.SpeechLM.from_pretrained(this folder).encode_file(path)"
)
_TOKENIZER_CONFIG = {"added_tokens_decoder": {_NO_TEXT: {"content": ""}}}


def save_speech_lm(
    folder: str | Path,
    model: PreTrainedModel,
    units: dict,
    tokenizer: dict[str, bytes] | None = None,
    card: str | None = None,
    vocoder_folder: str | Path | None = None,
) -> None:
    """Publish a model, all of it or nothing.

    Arguments
    ---------
    folder : A new folder; ``AutoModelForCausalLM.from_pretrained`` loads it.
    units
        What they are: the names of ``UNITS_FIELDS`` (tags may be absent), and
        what else ``_SHAPE`` has.
    tokenizer : What makes units of speech: name -> content of a file.
    card : The text of a ``README.md``, which may be edited later.
    vocoder_folder : What speaks units: one whose tokenizer is the units'.
    """
    units = {"language_tags": {}, **units}
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        config = read_json(temporary / "config.json")
        write_json(temporary / "config.json", {**config, UNITS_KEY: units})
        write_json(temporary / UNITS_JSON, units)
        write_json(temporary / "tokenizer_config.json", _TOKENIZER_CONFIG)
        for name, content in (tokenizer or {}).items():
            write_atomic(temporary / TOKENIZER / name, content)
        if vocoder_folder is not None:
            check_vocoder(vocoder_folder, below_bpe(temporary, units))
            copy_vocoder(vocoder_folder, temporary)
        seal(temporary, _files(temporary))
        # After the seal, which therefore does not hold it to what it is.
        if card:
            write_atomic(temporary / CARD, card)


def add_vocoder(folder: str | Path, vocoder_folder: str | Path) -> None:
    """Put a vocoder into an exported model, in place of the one it may have.

    The errors are those of :func:`examine_speech_lm` and of
    ``folder.check_vocoder``; nothing was changed then.
    """
    folder = Path(folder)
    units, _ = examine_speech_lm(folder)
    check_vocoder(vocoder_folder, below_bpe(folder, units))
    record, place = folder / FILES_JSON, folder / VOCODER
    known = read_json(record) if record.exists() else ()
    kept = [folder / n for n in known if Path(n).parts[0] != VOCODER]
    # In the same folder, hence file system: a rename moves it.
    with TemporaryDirectory(prefix=TEMPORARY, dir=folder) as beside:
        # All of it is there before the old one goes, which it may be.
        copy_vocoder(vocoder_folder, beside)
        # Between any two steps it is a whole model, with a vocoder or without.
        if kept:
            seal(folder, kept)
        if place.exists():
            place.rename(Path(beside, "old"))
        Path(beside, VOCODER).rename(place)
    if kept:
        seal(folder, [*kept, *_files(place)])


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def examine_speech_lm(folder: str | Path) -> tuple[dict, dict[str, str]]:
    """Check an exported model, or a copy that transformers has saved anew.

    FileNotFoundError if the folder is not a complete export; ValueError if a
    file is no regular one, not what was written, or does not fit the others.

    Returns
    -------
    units : dict
        See :func:`save_speech_lm`.
    identity : dict
        ``model``: the SHA-256 of the weights (of the list of their SHA-256
        where there are several files); ``configuration``: of all else that
        decides scores.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"{folder} is not an exported speech LM: config.json is not there. "
            f"{_AGAIN}"
        )
    for path in sorted(folder.iterdir()):
        # transformers would wait for a pipe.
        if not path.is_dir() and path.suffix in (".json", ".safetensors"):
            check_file(path, "a file of an exported model")
    units, config = _read_units(folder)
    weights = sorted(folder.glob("*.safetensors"))
    if (folder / FILES_JSON).exists():
        listed = [p.name for p in (*weights, *folder.glob("*.index.json"))]
        fault = unsealed(folder, ["config.json", UNITS_JSON, *listed])
        if fault:
            raise ValueError(
                f"{folder} is not the model that was exported: {fault}. Copy "
                "or export it again."
            )
    _refuse_elsewhere(folder)
    refuse_pickles(folder)
    tokenizer_of(folder, units)
    vocoder_of(folder, units)
    if not weights:
        raise FileNotFoundError(
            f"{folder} holds no *.safetensors; expected an exported model "
            "(the folder 'model' that the LM recipe writes)"
        )
    hashes = {path.name: sha256_file(path) for path in weights}
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
    """Refuse to export where a file stands that no export wrote."""
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
                f"{name}, which no export wrote. It stays as it is: choose "
                "another output_folder, or move it out of the way."
            )


def load_speech_lm(
    folder: str | Path, identity: dict | None = None
) -> tuple[PreTrainedModel, dict]:
    """Load what :func:`save_speech_lm` wrote, in evaluation mode.

    Returns the model, and what its units are. The errors are those of
    :func:`examine_speech_lm` and of ``utils.pretrained.load_whole``. If
    ``identity``, which the former found, is given, it must still be that model.
    """
    if identity is None:
        identity = examine_speech_lm(folder)[1]
    if not (Path(folder) / FILES_JSON).exists():
        where = f"{folder} has no {FILES_JSON}"
        logger.warning("%s, by which damage or changes would be found", where)
    options: Any = {"local_files_only": True, "use_safetensors": True}
    model = load_whole(AutoModelForCausalLM, folder, **options)
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
        path, units = folder / "config.json", kept
        check_shape(units, _SHAPE, f"{path}: {UNITS_KEY}")
    else:
        raise FileNotFoundError(
            f"{folder} is not an exported speech LM: it has no {UNITS_JSON}, "
            f"and its config.json no '{UNITS_KEY}'. {_AGAIN}"
        )
    names = [key.removesuffix("?") for key in _SHAPE]
    units = {name: units[name] for name in names if name in units}
    _check_symbols(path, units, config)
    # Which release has saved it changes nothing.
    config.pop("transformers_version", None)
    return units, config


def _check_symbols(path: Path, units: dict, config: dict) -> None:
    """Refuse symbols that are not: units, the boundary, then the tags."""
    size, tags = units["vocabulary_size"], units["language_tags"]
    end = size + 1 + len(tags)
    ids, after = sorted(tags.values()), [*range(size + 1, end)]
    for name, found, expected in (
        ("boundary", units["boundary"], size),
        ("language_tags", ids, after),
        ("vocab_size in config.json", config["vocab_size"], end),
    ):
        if found != expected:
            raise ValueError(
                f"{path}: of {size} units, {name} is {found}; expected "
                f"{expected}: the units come first, then the boundary, then "
                f"{len(tags)} language tag(s). Copy or export the model again."
            )
