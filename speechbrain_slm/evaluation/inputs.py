"""What every evaluation asks of its model, its units and its files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.schema import MAPPING, check_shape, read_shaped

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from speechbrain_slm.dataio.reader import UnitStore


@contextlib.contextmanager
def unchanged(path: str | Path) -> Iterator[str | None]:
    """Yield a file's SHA-256 and refuse it if it changes while it is read."""
    path = as_stored(path)
    # Hashed before and after: what was parsed lies between two looks at it.
    # Whoever reads it says what is wrong with one that is no file.
    before = sha256_file(path) if path.is_file() else None
    yield before
    if sha256_file(path) != before:
        raise ValueError(
            f"{path} was changed while it was read; run the same command again"
        )


def examine(
    model_folder: str | Path, store: UnitStore
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the identities of a model, and those with its units'.

    Units that the model has not learnt are refused.
    """
    # Not above: transformers takes seconds, and tables need nothing of it.
    from speechbrain_slm.models.export import examine_speech_lm

    units, model = examine_speech_lm(model_folder)
    for name, expected, found in (
        ("tokenizer", units["tokenizer_identity"], store.identity),
        # Equal sizes prove nothing: two codebooks of 500 entries have the
        # same units and other meanings. A size that differs is a damage.
        ("vocabulary size", units["vocabulary_size"], store.vocabulary_size),
    ):
        if expected != found:
            raise ValueError(
                f"{model_folder} was trained on units of {name} {expected}, "
                f"but {store.folder} holds units of {name} {found}. Extract "
                "them with the model's tokenizer, or choose another model."
            )
    stored = {"tokenizer": store.identity, "units": store.info["identity"]}
    return model, {**model, **stored}


def read_report(
    path: Path, form: str, version: int, shape: dict, recipe: str
) -> dict:
    """Read what an evaluation says of itself, in the shape that it writes."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; run the {recipe} recipe to its end first"
        )
    content: dict = read_shaped(path, MAPPING)
    if content.get("format") != form:
        raise ValueError(
            f"{path} is not what the {recipe} recipe writes; give its folder"
        )
    if content.get("version") != version:
        raise ValueError(
            f"{path} is of version {content.get('version')}; expected version "
            f"{version}: evaluate again with this version of the recipe"
        )
    check_shape(content, shape, path)
    return content


def check_evaluating(model: PreTrainedModel, batch_tokens: int) -> None:
    """Refuse a model in training mode, and batches of nothing."""
    if model.training:
        raise ValueError(
            "the model is in training mode, where dropout makes what it "
            "computes random; call model.eval() first"
        )
    check_number("batch_tokens", batch_tokens, at_least=1)


def by_length(
    sequences: Sequence[np.ndarray],
    batch_tokens: int,
    indexes: Sequence[int] | None = None,
    unread: int = 0,
) -> Iterator[list[int]]:
    """Batch sequences by length, so that little is padded.

    Arguments
    ---------
    sequences : int64.
    batch_tokens
        Positions a batch, padding included; a longer sequence goes alone.
    indexes : Which of them; by default all.
    unread : Symbols at the end of each that the model does not read.

    Example
    -------
    >>> ids = [np.arange(length) for length in (3, 1, 2, 9)]
    >>> list(by_length(ids, batch_tokens=6))
    [[1, 2], [0], [3]]
    """
    batch: list[int] = []
    # Equal lengths are ordered by content: the same set of sequences makes
    # the same batches, so the same roundings, in whatever order it comes.
    for index in sorted(
        range(len(sequences)) if indexes is None else indexes,
        key=lambda i: (len(sequences[i]), sequences[i].tobytes()),
    ):
        # The last of a batch is its longest.
        width = len(sequences[index]) - unread
        if batch and (len(batch) + 1) * width > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
