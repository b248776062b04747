"""Likelihoods of audio files, as the cloze recipe has them of its items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from speechbrain_slm.evaluation.cloze.conventions import (
    LIKELIHOODS,
    OF_ENDINGS_ALONE,
)
from speechbrain_slm.evaluation.cloze.items import tagged
from speechbrain_slm.evaluation.cloze.likelihood import LikelihoodScorer
from speechbrain_slm.inference.encoding import Encoder
from speechbrain_slm.utils.numbers import check_choice


def score_files(
    model: Any,
    facts: dict[str, Any],
    encoder: Encoder,
    files: Sequence[Any],
    convention: str,
    languages: Sequence[Any] | None,
    **how: Any,
) -> np.ndarray:
    """Score files and (prompt, ending) pairs; see ``SpeechLM.score_files``.

    Arguments
    ---------
    facts : What the model says of its units.
    **how : For :class:`LikelihoodScorer`.
    """
    check_choice("convention", convention, LIKELIHOODS)
    told = [None] * len(files) if languages is None else languages
    if len(told) != len(files):
        raise ValueError(
            f"languages has {len(told)} entries for {len(files)} files; "
            "expected one each, or None"
        )
    pairs = [one if isinstance(one, tuple) else ([], one) for one in files]
    spoken = [one if isinstance(one, tuple) else (one, one) for one in told]
    sides = [
        side
        for pair, both in zip(pairs, spoken, strict=True)
        for side in zip(pair, both, strict=True)
    ]
    units = [one.units for one in encoder.files(sides)]
    names = [f"files[{number}]" for number in range(len(pairs))]
    tags = facts["language_tags"]
    split = zip(units[::2], units[1::2], spoken, names, strict=True)
    scored = [
        tagged(prompt, ending, both, tags, name)
        for prompt, ending, both, name in split
    ]
    symbols = facts["vocabulary_size"], facts["boundary"]
    how["endings_alone"] = convention in OF_ENDINGS_ALONE
    scorer = LikelihoodScorer(model, *symbols, language_tags=tags, **how)
    return scorer.score(scored, names)[convention]
