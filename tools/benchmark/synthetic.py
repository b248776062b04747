"""What several benchmarks train on and with: random stories, small models."""

import numpy as np
import torch

from speechbrain_slm.utils.store import StoreWriter

SOURCES = {"en": {"languages": ["en"]}}
UNITS = 501
# A Qwen2 of 4.06 M parameters with so many units.
MODEL = {
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
# How much the lengths of stories vary: that of TinyStories in Mimi's units.
SIGMA = 0.35


def tokenizer(vocabulary_size=UNITS):
    """Return what a store says of the tokenizer of random units."""
    return {
        "identity": "synthetic",
        "vocabulary_size": vocabulary_size,
        "frame_rate": 12.5,
        "deduplicated": False,
        "config": {},
    }


def write_stories(
    folder, stories, mean, longest, languages=("en",), size=UNITS
):
    """Write random stories, ten sentences each, of lognormal lengths."""
    generator = np.random.default_rng(0)
    scale = generator.lognormal(-(SIGMA**2) / 2, SIGMA, stories)
    lengths = np.clip(np.round(mean * scale), 10, longest).astype(int)
    writer = StoreWriter(folder, tokenizer(size), "synthetic", num_shards=1)
    rows = []
    for number, length in enumerate(lengths):
        for language in languages:
            units = generator.integers(0, size, length)
            sentences = np.array_split(units, 10)
            rows.append(
                (f"story-{number:06d}", language, "synthetic", sentences)
            )
    writer.write(0, rows)
    writer.finish()


def brain_settings(model, folder, run_opts, **hparams):
    """Return the arguments of an LMBrain without checkpoints or validation."""
    return {
        "modules": {"model": model},
        "opt_class": lambda parameters: torch.optim.AdamW(
            parameters, fused=True
        ),
        "hparams": {
            "model": model,
            "output_folder": str(folder),
            "seed": 0,
            "attention": "open",
            "learning_rate": 0.001,
            "warmup": 0.05,
            "schedule": "run",
            "parallel": "ddp",
            "log_interval": 10,
            "valid_interval": 0,
            "keep_checkpoints": 1,
            "peak_tflops": None,
            "tensorboard": False,
            **hparams,
        },
        "run_opts": {
            "device": "cpu",
            "noprogressbar": True,
            "max_grad_norm": 1.0,
            **run_opts,
        },
    }
