"""Continuations of unit sequences, drawn from a decoder LM.

By transformers' ``generate`` and its key-value cache. What is random is a
function of (seed of the item, place in its continuation): noise of a
counter-based generator is added to the logits and the largest taken, which is
a draw from their softmax (the Gumbel-max trick). So a continuation does not
depend on what else is in the batch, on the device, or on how it is streamed;
only where two candidates are as likely to the last digits may rounding decide.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from speechbrain_slm.utils.numbers import check_choice, check_number

logger = logging.getLogger(__name__)

TOO_LONG = ("truncate", "refuse")
# What transformers calls the key-value cache, by its version.
CACHE = ("cache", "past_key_values")
# How units are drawn where nothing else is asked for: SlamKit's settings.
SAMPLING: dict[str, Any] = {"temperature": 0.8, "top_k": 25}


class _Ban(LogitsProcessor):
    """Make some symbols impossible."""

    def __init__(self, symbols: Tensor) -> None:
        self.symbols = symbols

    def __call__(self, input_ids, scores):
        return scores.index_fill(1, self.symbols.to(scores.device), -torch.inf)


class _Turns(LogitsProcessor):
    """Give each codebook its turn; the boundary and tags are of the first."""

    def __init__(self, codebooks: int, boundary: int, begin: int) -> None:
        self.codebooks, self.boundary, self.begin = codebooks, boundary, begin

    def __call__(self, input_ids, scores):
        # Of 2 codebooks of 10: after 3 new units the second one's, 10 to 19.
        new = (input_ids[:, self.begin :] < self.boundary).sum(dim=1)
        symbols = torch.arange(scores.shape[1], device=scores.device)
        owner = symbols // (self.boundary // self.codebooks)
        owner[self.boundary :] = 0
        theirs = owner == (new % self.codebooks)[:, None]
        return scores.masked_fill(~theirs, -torch.inf)


class _Gumbel(LogitsProcessor):
    """Add noise by which the largest logit is a draw from the softmax."""

    def __init__(self, seeds: Sequence[int], begin: int) -> None:
        self.seeds, self.begin = seeds, begin

    def __call__(self, input_ids, scores):
        place, size = input_ids.shape[1] - self.begin, scores.shape[1]
        # The bits of Philox, which no version of NumPy changes. It would make
        # floats of a large seed and a place.
        keys = (np.array([seed, place], np.uint64) for seed in self.seeds)
        bits = [np.random.Philox(key=key).random_raw(size) for key in keys]
        uniform = ((np.stack(bits) >> np.uint64(11)) + 0.5) * 2.0**-53
        noise = -np.log(-np.log(uniform))
        return scores + torch.from_numpy(noise).to(scores)


def generate_units(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int] | np.ndarray],
    **how: Any,
) -> list[np.ndarray]:
    """Continue prompts, all in one batch.

    Arguments
    ---------
    model, prompts, **how : See :func:`stream_units`.

    Returns
    -------
    The new units of each prompt, int64 ``[U]``, without the boundary.

    Example
    -------
    >>> from speechbrain_slm.models.decoder import decoder_lm
    >>> model = decoder_lm(
    ...     "qwen2", 9, hidden_size=8, intermediate_size=8,
    ...     num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
    ... ).eval()
    >>> how = dict(boundary=9, max_units=5, top_k=4)
    >>> both = generate_units(model, [[1, 2, 3], [4]], seeds=[7, 8], **how)
    >>> alone = generate_units(model, [[4]], seeds=[8], **how)
    >>> len(alone[0]), bool((both[1] == alone[0]).all())
    (5, True)
    """
    chunks = list(stream_units(model, prompts, chunk=None, **how))
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def stream_units(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int] | np.ndarray],
    *,
    max_units: int,
    seeds: Sequence[int],
    boundary: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    banned: Sequence[int] = (),
    language_tag: int | None = None,
    allow_tags: bool = False,
    stop_at_boundary: bool = False,
    too_long: str = "truncate",
    use_cache: bool = True,
    chunk: int | None = 25,
    codebooks: int = 1,
) -> Iterator[list[np.ndarray]]:
    """Continue prompts, and yield the units of each as they come.

    Arguments
    ---------
    model : In eval mode.
    prompts
        Units, and language tags where training had them; may be empty. The
        boundary is put before each.
    max_units : How many are drawn at most.
    seeds : ``[B]``, of each prompt's own draws.
    boundary : The symbol between stories; those above it are language tags.
    temperature : Of the softmax; 0 takes the likeliest unit.
    top_k, top_p : Draw from the likeliest K, from those of probability P.
    banned : Symbols that are never drawn.
    language_tag : The symbol that is put behind each prompt.
    allow_tags : Let the model draw language tags.
    stop_at_boundary : The boundary ends a continuation; else none is drawn.
    too_long
        Where a prompt and ``max_units`` exceed what the model can read:
        ``truncate`` cuts the beginning of the prompt, and warns.
    use_cache : False computes all positions anew for each unit.
    chunk : Units of a prompt that are yielded at a time; None: all at once.
    codebooks
        Of a codec whose codes take turns in the units. Each draw is of the
        next one's; whole frames are drawn, and cut off.
    """
    _check_call(model, prompts, seeds)
    check_number("max_units", max_units, at_least=1, whole=True)
    check_choice("too_long", too_long, TOO_LONG)
    # Whole frames.
    max_units += -max_units % codebooks
    chunk = max_units if chunk is None else chunk + -chunk % codebooks
    size: Any = model.get_input_embeddings().num_embeddings
    rows = [
        _row(f"prompt {number}", prompt, boundary, language_tag, size)
        for number, prompt in enumerate(prompts)
    ]
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None:
        limits = context, max_units, codebooks
        rows = _fitted(rows, *limits, too_long, boundary)
    ids, mask = _left_padded(rows, boundary)
    tags = [] if allow_tags else range(boundary + 1, size)
    forbidden = [*banned, *tags, *([] if stop_at_boundary else [boundary])]
    processors = LogitsProcessorList([_Ban(torch.tensor(forbidden).long())])
    if codebooks > 1:
        processors.append(_Turns(codebooks, boundary, ids.shape[1]))
    processors += _warpers(temperature, top_k, top_p)
    if temperature:
        processors.append(_Gumbel(seeds, ids.shape[1]))
    config = GenerationConfig(
        **{"do_sample": False, "num_beams": 1, "use_cache": use_cache},
        **dict.fromkeys(("eos_token_id", "pad_token_id"), boundary),
        return_dict_in_generate=True,
    )
    yield from _rounds(model, ids, mask, processors, config, max_units, chunk)


def _rounds(model, ids, mask, processors, config, max_units, chunk):
    """Draw a chunk of units after the other, with one cache."""
    # transformers hides that its method is bound.
    generate: Any = model.generate
    ended, cache = np.zeros(len(ids), bool), dict[str, Any]()
    for begin in range(0, max_units, chunk):
        config.max_new_tokens = min(chunk, max_units - begin)
        found = generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            logits_processor=processors,
            **cache,
        )
        new = found.sequences[:, ids.shape[1] :].cpu()
        ids = torch.cat([ids, new], dim=1)
        mask = torch.cat([mask, mask.new_ones(new.shape)], dim=1)
        if config.use_cache:
            name = next(name for name in CACHE if name in found)
            cache = {name: found[name]}
        yield _until_boundary(new.numpy(), config.eos_token_id, ended)
        if ended.all():
            return


def _check_call(model, prompts, seeds):
    if model.training:
        raise ValueError(
            "the model is in training mode, where dropout makes what it "
            "computes random; call model.eval() first"
        )
    check_seeds(seeds, len(prompts))


def check_seeds(seeds: Sequence[int], count: int) -> None:
    """Refuse other than a whole number for each prompt, of 64 bits at most."""
    if len(seeds) != count:
        raise ValueError(
            f"{len(seeds)} seeds for {count} prompts; expected one each"
        )
    for seed in seeds:
        check_number("seed", seed, whole=True, at_least=0, below=2**64)


def _row(name, prompt, boundary, language_tag, size):
    """Put the boundary before a prompt, and the tag behind it, int64."""
    after = [] if language_tag is None else [language_tag]
    row = np.concatenate([[boundary], prompt, after]).astype(np.int64)
    outside = row[(row < 0) | (row >= size)]
    if len(outside):
        raise ValueError(
            f"{name}: its symbol {outside[0]} is outside [0, {size}), what the "
            "model embeds; it is of another tokenizer, or another model's tag"
        )
    return row


def _fitted(rows, context, max_units, codebooks, too_long, boundary):
    """Cut the beginnings of prompts, or refuse them."""
    fitted = []
    for number, row in enumerate(rows):
        if len(row) + max_units > context:
            told = (
                f"prompt {number}: its {len(row)} symbols and {max_units} new "
                f"units exceed the model's context of {context}"
            )
            cut = _cut(row, context - max_units, codebooks, boundary)
            if too_long == "refuse" or cut is None:
                raise ValueError(
                    f"{told}; give a shorter prompt, or ask for less"
                )
            lost = len(row) - len(cut)
            logger.warning("%s; its first %d are left out", told, lost)
            row = cut
        fitted.append(row)
    return fitted


def _cut(row, most, codebooks, boundary):
    """Keep the end of a prompt, whole frames; None if no unit would stay.

    The boundary stays, and the tag that says what the end speaks: of a
    prompt in two languages not always its first one.
    """
    tag, lost, units = [], 0, int((row < boundary).sum())
    for place, symbol in enumerate(row[1:].tolist(), 1):
        head = [] if symbol > boundary else tag
        fits = 1 + len(head) + len(row) - place <= most
        if fits and lost % codebooks == 0 and lost < units:
            return np.concatenate([row[:1], head, row[place:]]).astype(np.int64)
        # A story within the prompt has a tag of its own.
        tag = [symbol] if symbol > boundary else tag * (symbol < boundary)
        lost += symbol < boundary
    return None


def _left_padded(rows, filling):
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), filling)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.from_numpy(row)
        mask[number, width - len(row) :] = 1
    return ids, mask


def _warpers(temperature, top_k, top_p):
    check_number("temperature", temperature, at_least=0)
    warpers = []
    if temperature not in (0, 1):
        warpers.append(TemperatureLogitsWarper(float(temperature)))
    if top_k is not None:
        check_number("top_k", top_k, at_least=1, whole=True)
        warpers.append(TopKLogitsWarper(top_k))
    if top_p is not None:
        check_number("top_p", top_p, above=0, at_most=1)
        warpers.append(TopPLogitsWarper(float(top_p)))
    return warpers


def _until_boundary(new, boundary, ended):
    """Cut each row before its boundary, and note which have ended."""
    parts = []
    for number, row in enumerate(new):
        ends = np.flatnonzero(row == boundary)
        stop = 0 if ended[number] else (ends[0] if len(ends) else len(row))
        parts.append(row[:stop])
        ended[number] |= len(ends) > 0
    return parts
