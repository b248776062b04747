"""A tiny model and cloze items over the stories of ``store_folder``."""

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from speechbrain_slm.evaluation.cloze.likelihood import LikelihoodScorer
from speechbrain_slm.models.export import save_speech_lm
from speechbrain_slm.utils.tables import ITEMS, write_table

VOCABULARY = BOUNDARY = 30
DIRECTIONS = (("en", "en"), ("fr", "fr"), ("en", "fr"), ("fr", "en"))


def tiny_model(
    config_class=Qwen2Config, seed=0, tags=0, size=VOCABULARY, **config
):
    """Make a 2-layer decoder of random weights, far enough from uniform."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(
        config_class(
            vocab_size=size + 1 + tags,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            initializer_range=0.3,
            max_position_embeddings=128,
            **config,
        )
    )
    return model.eval()


def tiny_llama():
    """Make a model of another family, with dropout in its configuration."""
    return tiny_model(LlamaConfig, seed=1, attention_dropout=0.5)


def export(folder, model=None, identity="codebook-a", size=VOCABULARY, **units):
    """Write a model with the identity of ``store_folder``'s tokenizer."""
    units = {
        "tokenizer_identity": identity,
        "vocabulary_size": size,
        "boundary": size,
        "language_tags": {},
        **units,
    }
    if model is None:
        model = tiny_model(size=size, tags=len(units["language_tags"]))
    save_speech_lm(folder, model, units)
    return folder


def items_table(count=10, directions=DIRECTIONS):
    """Make items for sSC and sTC out of the stories story-000, ..."""
    rows = [
        (
            *(f"test-{n:03d}", benchmark, *languages),
            *(f"story-{n + more:03d}" for more in (0, 10, shift)),
        )
        for benchmark, shift in (("sSC", 20), ("sTC", 30))
        for languages in directions
        for n in range(count)
    ]
    rows = [dict(zip(ITEMS.names, row, strict=True)) for row in rows]
    return pa.Table.from_pylist(rows, schema=ITEMS)


def write_items(path, table=None, **columns):
    """Write items, the first row's values replaced by ``columns``."""
    rows = (table if table is not None else items_table()).to_pylist()
    rows[0].update(columns)
    write_table(path, pa.Table.from_pylist(rows, schema=ITEMS))
    return path


def shuffled(table, seed=0):
    """Return the rows in another order, and that order."""
    order = np.random.default_rng(seed).permutation(len(table))
    return table.take(pa.array(order)), order


def make_scorer(model, **options):
    """Make a scorer over the units of a tiny model."""
    return LikelihoodScorer(model, VOCABULARY, BOUNDARY, **options)


def naive(model, prompt, ending, start=(BOUNDARY,), end=(), tags=()):
    """Score one unpadded sequence, straight from the definition.

    Returns the sums and the numbers of units of the whole and of the ending.
    """
    ids = [*start, *prompt, *ending, *end]
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    first = next(t for t, symbol in enumerate(ids) if symbol not in tags)
    units = {
        t: logs[t - 1, symbol].item()
        for t, symbol in enumerate(ids)
        if t > first and symbol not in tags
    }
    begin = len(start) + len(prompt)
    tail = [units[t] for t in units if t >= begin]
    return sum(units.values()), len(units), sum(tail), len(tail)
