"""What a continuation is drawn behind, and how long it is to be."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from speechbrain_slm.evaluation.inputs import tag_of
from speechbrain_slm.inference.encoding import Encoded, Encoder
from speechbrain_slm.models.generation import (
    SAMPLING,
    check_seeds,
    generate_units,
)
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.store import check_units

logger = logging.getLogger(__name__)


class Prompt(NamedTuple):
    """What a model reads, and what it is to say."""

    row: np.ndarray  # units and tags, int64
    num_units: int  # of units that follow, at most
    rate: float | None  # units a second, about, where it is known


def read_prompts(
    encoder: Encoder,
    facts: dict[str, Any],
    prompts: Sequence[Any],
    language: str | None,
    prompt_language: str | None,
    seconds: float,
    max_units: int | None,
    duration: Callable[[np.ndarray], float] | None,
) -> list[Prompt]:
    """Read prompts: audio files, or arrays of units.

    Arguments
    ---------
    facts : What the model says of its units.
    duration : Of the speech of units, in seconds; None where nothing speaks.
    """
    tags = facts["language_tags"]
    if language is not None and not tags:
        logger.warning(
            "This model has no language tags: it goes on as its prompt "
            "suggests. Let the last sentence of the prompt be in '%s'.",
            language,
        )
    spoken = (not isinstance(one, np.ndarray) or len(one) for one in prompts)
    if tags and prompt_language is None and any(spoken):
        logger.warning(
            "This model has language tags, and prompt_language is None: it "
            "reads its prompt without one, as it never has in training. Give "
            "one of %s.",
            ", ".join(tags),
        )
    files = [one for one in prompts if not isinstance(one, np.ndarray)]
    encoded = iter(encoder.files([(one, prompt_language) for one in files]))
    found = []
    for number, one in enumerate(prompts):
        array = isinstance(one, np.ndarray)
        units, length = Encoded(one, 0.0) if array else next(encoded)
        if len(units):
            check_units(units, facts["vocabulary_size"], f"prompts[{number}]")
        rate = encoder.units_per_second()
        if rate is None and len(units):  # merged: as in the prompt
            if not length and max_units is None and duration:
                length = duration(units)
            rate = len(units) / length if length else None
        row = with_tags(units, tags, language, prompt_language)
        count = count_units(rate, seconds, max_units)
        count += -count % encoder.codebooks  # whole frames
        found.append(Prompt(row, count, rate))
    return found


def with_tags(
    units: np.ndarray,
    tags: dict[str, int],
    language: str | None,
    prompt_language: str | None,
) -> np.ndarray:
    """Put tags where training has them: where a language begins."""
    before, after = [], []
    if tags and prompt_language is not None and len(units):
        before = [tag_of(tags, prompt_language, "prompt_language")]
    if (
        tags
        and language is not None
        and not (before and language == prompt_language)
    ):
        after = [tag_of(tags, language, "language")]
    return np.concatenate([before, units, after]).astype(np.int64)


def count_units(
    rate: float | None, seconds: float, max_units: int | None
) -> int:
    """Return how many units a continuation has at most."""
    if max_units is not None:
        check_number("max_units", max_units, at_least=1, whole=True)
        return max_units
    check_number("seconds", seconds, above=0)
    if rate is None:
        raise ValueError(
            "seconds: this model's units are merged, and there is no speech "
            "in the prompt that would tell how many a second has; give "
            "max_units"
        )
    return max(1, math.ceil(seconds * rate))


def drawing(encoder: Encoder, boundary: int, how: dict) -> dict[str, Any]:
    """Return how units are drawn, where ``how`` is what was asked for."""
    banned = [*encoder.unused, *how.get("banned", ())]
    told = {"banned": banned, "boundary": boundary}
    return {**SAMPLING, **how, **told, "codebooks": encoder.codebooks}


def draw_units(
    model: Any,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    **how: Any,
) -> list[np.ndarray]:
    """Continue each prompt by its own number of units, int64 ``[U]`` each.

    What a long prompt loses follows from its own number, whatever the others
    ask for: those that come near the model's context go alone.
    """
    check_seeds(seeds, len(prompts))
    context = getattr(model.config, "max_position_embeddings", None) or math.inf
    most = max((one.num_units for one in prompts), default=0)
    near = [len(one.row) + most >= context for one in prompts]
    groups = [[n] for n, alone in enumerate(near) if alone]
    groups.append([n for n, alone in enumerate(near) if not alone])
    found: dict[int, np.ndarray] = {}
    for group in filter(None, groups):
        drawn = generate_units(
            model,
            [prompts[n].row for n in group],
            seeds=[seeds[n] for n in group],
            max_units=max(prompts[n].num_units for n in group),
            **how,
        )
        found |= zip(group, drawn, strict=True)
    return [found[n][: one.num_units] for n, one in enumerate(prompts)]
