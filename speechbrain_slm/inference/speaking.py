"""Speech of a model's units, whole or bit by bit."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from speechbrain_slm.inference.encoding import Encoder
from speechbrain_slm.models.folder import (
    VOCODER_JSON,
    below_bpe,
    check_vocoder,
    vocoder_of,
)
from speechbrain_slm.models.vocoders.base import Vocoder, load_vocoder
from speechbrain_slm.utils.atomic import read_json

logger = logging.getLogger(__name__)
T = TypeVar("T")

CONTEXT = 25  # units before a chunk that are spoken with it
FADE = 0.01  # seconds in which one chunk goes over into the next


def load_speaker(
    folder: str | Path,
    units: dict[str, Any],
    vocoder: str | Path | Vocoder | None,
    encoder: Encoder,
) -> Vocoder | Exception | None:
    """Load what speaks a model's units; ValueError if it speaks others.

    An error is returned where it lacks the tokenizer that a codec's decoder
    is in.

    Arguments
    ---------
    units : What the model says of them.
    vocoder
        A folder, or one that is loaded; None: the model folder's own, or else
        the decoder of a codec.
    """
    given = vocoder or vocoder_of(folder, units)
    expected = below_bpe(folder, units)
    if isinstance(given, str | Path):
        check_vocoder(given, expected)
        # The decoder of a codec is in its tokenizer.
        told = read_json(Path(given) / VOCODER_JSON)
        if told.get("type") == "codec" and encoder.missing is not None:
            return encoder.missing
        return load_vocoder(given, encoder.available)
    if given is not None and given.tokenizer_identity != expected:
        raise ValueError(
            "the vocoder speaks units of the tokenizer "
            f"{given.tokenizer_identity}, the model's are of {expected}; give "
            "one that was trained on these"
        )
    if given is None and hasattr(encoder.available, "waveform"):
        from speechbrain_slm.models.vocoders.codec import decoder_of

        return decoder_of(encoder.available)
    return given


def each_within(context: Any, things: Iterator[T]) -> Iterator[T]:
    """Yield what comes; a context is entered while it is made, and left."""
    while True:
        with context:
            found = next(things, None)
        if found is None:
            return
        yield found


def speak_as(
    vocoder: Vocoder,
    units: Sequence[np.ndarray],
    speaker: str | None,
    language: str | None,
) -> list[Tensor]:
    """Speak units with one voice, and in a language if the vocoder knows it.

    Of a language that it does not know it is said once that it is not told.
    """
    count, known = len(units), language in vocoder.languages
    if language and vocoder.languages and not known:
        _warn_of(language, ", ".join(vocoder.languages))
    speakers = None if speaker is None else [speaker] * count
    languages = [language] * count if known and language else None
    return vocoder.speak(units, speakers, languages)


@functools.cache
def _warn_of(language, known):
    logger.warning(
        "The vocoder knows %s, and not '%s': the units alone say how it speaks",
        *(known, language),
    )


def speak_stream(
    vocoder: Vocoder,
    chunks: Iterable[np.ndarray],
    before: np.ndarray | None = None,
    speaker: str | None = None,
    language: str | None = None,
    context: int = CONTEXT,
) -> Iterator[Tensor]:
    """Yield the speech of each chunk of units, float32 ``[T]``.

    A chunk is spoken behind some units that came before it, and what these
    take by themselves is cut off, less a moment in which both are mixed.

    Arguments
    ---------
    before : Units that were heard already, such as a prompt.
    context : How many of them are spoken with a chunk.
    """
    said = np.zeros(0, np.int64) if before is None else before
    held, fade = torch.zeros(0), round(FADE * vocoder.sample_rate)
    for chunk in chunks:
        if vocoder.deduplicated and len(said) and len(chunk):
            # What repeats itself is one unit, whichever chunk it is in.
            chunk = chunk[int(chunk[0] == said[-1]) :]
        if not len(chunk):
            continue
        heard = said[-context:]
        said = np.concatenate([heard, chunk])
        wav, old = speak_as(vocoder, [said, heard], speaker, language)
        # Of context 1,000 samples and a fade of 160: from sample 840 on.
        start = min(len(old), len(wav))
        mixed = min(len(held), start)
        fresh = wav[start - mixed :].clone()
        ramp = torch.linspace(0, 1, mixed)
        fresh[:mixed] *= ramp
        fresh[:mixed] += held[len(held) - mixed :] * (1 - ramp)
        fresh = torch.cat([held[: len(held) - mixed], fresh])
        keep = max(len(fresh) - fade, 0)
        held = fresh[keep:]
        if keep:
            yield fresh[:keep]
    if len(held):
        yield held
