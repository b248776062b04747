"""What every evaluation asks of its model, its units and its files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from speechbrain_slm.utils.files import as_stored
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.schema import MAPPING, check_shape, read_shaped

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from speechbrain_slm.dataio.reader import UnitStore

T = TypeVar("T")


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
    """Return a model's identities, alone and with its units', which fit."""
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
    advice = f"run the {recipe} recipe to its end first"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {advice}")
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


def tag_of(tags: dict[str, int], language: str, name: str) -> int:
    """Return the symbol of a language; ``name`` is what it stands in."""
    if language not in tags:
        raise ValueError(
            f"{name}: the model has no tag for '{language}', only for "
            f"{', '.join(tags)}"
        )
    return tags[language]


def context_of(model: Any) -> int | None:
    """Return how many symbols a model can read, None without a limit."""
    return getattr(model.config, "max_position_embeddings", None)


def check_units(
    name: str,
    units: np.ndarray,
    size: int,
    context: int | None,
    around: int,
    tags: Sequence[int] | np.ndarray = (),
) -> None:
    """Refuse units of another model, and more than it reads with those around.

    ``context``: see :func:`context_of`. ``tags`` may stand among the units.
    """
    outside = units[((units < 0) | (units >= size)) & ~np.isin(units, tags)]
    if len(outside):
        raise ValueError(
            f"{name}: unit {outside[0]} is outside [0, {size}), the model's "
            "vocabulary; it is of another tokenizer"
        )
    if context is not None and (count := len(units) + around) > context:
        raise ValueError(
            f"{name}: {count} symbols exceed the model's context of "
            f"{context}; compare or score shorter parts (sentences, or a "
            "shorter prompt), or take another model"
        )


def by_length(
    sequences: Sequence[np.ndarray],
    batch_tokens: int,
    indexes: Sequence[int] | None = None,
    unread: int = 0,
) -> Iterator[list[int]]:
    """Batch sequences (some ``indexes`` of them) so that little is padded.

    A batch has at most ``batch_tokens`` positions, padding included; a longer
    sequence goes alone. The last ``unread`` symbols of each do not count.

    Example
    -------
    >>> ids = [np.arange(length) for length in (3, 1, 2, 9)]
    >>> list(by_length(ids, batch_tokens=6))
    [[1, 2], [0], [3]]
    """
    # Equal lengths are ordered by content: the same set of sequences makes
    # the same batches, so the same roundings, in whatever order it comes.
    ordered = sorted(
        range(len(sequences)) if indexes is None else indexes,
        key=lambda i: (len(sequences[i]), sequences[i].tobytes()),
    )
    # The last of a batch is its longest.
    return batches(
        ordered,
        lambda batch: len(batch) * (len(sequences[batch[-1]]) - unread),
        batch_tokens,
    )


def batches(
    things: Iterable[T], size_of: Callable[[list[T]], int], most: int
) -> Iterator[list[T]]:
    """Cut things into lists of at most a size; one alone may be larger."""
    batch: list[T] = []
    for thing in things:
        if batch and size_of([*batch, thing]) > most:
            yield batch
            batch = []
        batch.append(thing)
    if batch:
        yield batch
