"""What is being evaluated: nothing may change while it is read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.hashing import sha256_file


@contextlib.contextmanager
def unchanged(path: str | Path) -> Iterator[str]:
    """Read a file and say what it is: what is read is what is named.

    Arguments
    ---------
    path : A regular file; the block reads it.

    Yields
    ------
    Its SHA-256.

    Raises
    ------
    ValueError
        If it was replaced or written to meanwhile.
    """
    path = as_stored(path)
    # Whoever reads it says what is wrong with one that is no file.
    before = sha256_file(path) if path.is_file() else None
    yield before
    if sha256_file(path) != before:
        raise ValueError(
            f"{path} was changed while it was read; run the same command again"
        )


def check_tokenizer(units: dict, store, model_folder: str | Path) -> None:
    """Refuse a store whose units are not those that a model has learnt.

    Arguments
    ---------
    units : What the model says of its units.
    store : UnitStore
        The units to be scored.

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
