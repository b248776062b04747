"""A trained LM as a Hugging Face folder, with what its units are."""

from pathlib import Path

from transformers import AutoModelForCausalLM

from speechbrain_slm.utils.atomic import (
    atomic_folder,
    read_json,
    write_json,
)

UNITS_JSON = "units.json"
UNITS_FIELDS = (
    "tokenizer_identity",
    "vocabulary_size",
    "boundary",
    "language_tags",
)


def save_speech_lm(folder, model, units):
    """Publish a model, all of it or nothing.

    Arguments
    ---------
    folder : str or Path
        A new folder; ``AutoModelForCausalLM.from_pretrained`` loads it.
    model : transformers.PreTrainedModel
        The language model.
    units : dict
        ``tokenizer_identity`` (str), ``vocabulary_size`` (int) of the units
        that the model was trained on, ``boundary`` (int), the id of the
        symbol between stories, and ``language_tags``, language -> id of the
        symbol that announces it; empty (or absent) where it has none.
    """
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        units = {"language_tags": {}, **units}
        write_json(
            temporary / UNITS_JSON, {key: units[key] for key in UNITS_FIELDS}
        )


def load_speech_lm(folder):
    """Load what :func:`save_speech_lm` wrote.

    Arguments
    ---------
    folder : str or Path
        The exported folder.

    Returns
    -------
    transformers.PreTrainedModel
        The model, in evaluation mode.
    dict
        ``tokenizer_identity``, ``vocabulary_size``, ``boundary`` and
        ``language_tags`` (empty in exports that were written before there
        were any).

    Raises
    ------
    FileNotFoundError
        If the folder is not a complete export.
    ValueError
        If its ``units.json`` is damaged.
    """
    path = Path(folder) / UNITS_JSON
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not an exported speech LM: it has no {UNITS_JSON}. "
            "Train to the end with the LM recipe, which writes it."
        )
    units = {"language_tags": {}, **read_json(path)}
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    return model.eval(), units
