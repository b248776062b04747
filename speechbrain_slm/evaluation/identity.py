"""What is being evaluated: the identities of models and their units."""

from pathlib import Path

from speechbrain_slm.utils.hashing import identity_of, sha256_file


def weights_identity(folder):
    """Return the identity of an exported model's weights.

    Arguments
    ---------
    folder : str or Path
        A Hugging Face folder.

    Returns
    -------
    str
        The SHA-256 of its safetensors file; of the list of their SHA-256
        where there are several.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    hashes = {
        path.name: sha256_file(path)
        for path in sorted(Path(folder).glob("*.safetensors"))
    }
    if not hashes:
        raise FileNotFoundError(
            f"{folder} holds no *.safetensors; expected an exported model "
            "(the folder 'model' that the LM recipe writes)"
        )
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return identity_of(hashes)


def check_tokenizer(units, store, model_folder):
    """Refuse a store whose units are not those that a model has learnt.

    Arguments
    ---------
    units : dict
        What the model says of its units.
    store : UnitStore
        The units to be scored.
    model_folder : str or Path
        Named in the error.

    Raises
    ------
    ValueError
        If the identities or the sizes differ. Equal sizes prove nothing: two
        codebooks of 500 entries have the same units and other meanings.
    """
    for name, expected, found in (
        ("tokenizer", units["tokenizer_identity"], store.identity),
        ("vocabulary size", units["vocabulary_size"], store.vocabulary_size),
    ):
        if expected != found:
            raise ValueError(
                f"{model_folder} was trained on units of {name} {expected}, "
                f"but {store.folder} holds units of {name} {found}. Extract "
                "the units with the model's tokenizer, or choose another model."
            )
