"""A small LM Brain and its plan, made without a YAML file."""

import torch

from speechbrain_slm.brains.checkpoints import AtomicCheckpointer
from speechbrain_slm.brains.lm import LMBrain
from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.dataio.reader import open_stores
from speechbrain_slm.models.decoder import decoder_lm
from speechbrain_slm.models.vocoders.hifigan import HifiganVocoder

SOURCES = {
    "en": {"languages": ["en"]},
    "fr": {"languages": ["fr"]},
    "interleaved": {"languages": ["en", "fr"], "switch_probability": 0.5},
}
# Twelve steps of 8 rows of 48 tokens, padded: ranks and micro-batches score
# different numbers of positions.
PLAN = {
    "sources": SOURCES,
    "stages": [
        {"tokens": 4 * 8 * 48, "mixture": {"en": 1}},
        {"tokens": 8 * 8 * 48, "mixture": {"fr": 1, "interleaved": 1}},
    ],
    "row_length": 48,
    "rows_per_step": 8,
    "seed": 7,
    "packing": "best_fit",
    "language_tags": [],
}
HPARAMS = {
    "seed": 7,
    "attention": "blocked",
    "learning_rate": 0.02,
    "warmup": 0.1,
    "schedule": "run",
    "parallel": "ddp",
    "log_interval": 2,
    "valid_interval": 6,
    "keep_checkpoints": 2,
    "peak_tflops": None,
    "tensorboard": False,
    "train_logger": None,
    "vocoder_folder": None,
    "audio_samples": 0,
    "snapshot_steps": [],
}
RUN_OPTS = {
    "device": "cpu",
    "distributed_backend": "gloo",
    "noprogressbar": True,
    "ckpt_interval_steps": 3,
    "max_grad_norm": 1.0,
    "grad_accumulation_factor": 1,
}
MODEL = {
    "vocabulary_size": 30,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}

# Of a vocoder for these units.
VOCODER = {
    "embedding_dim": 8,
    "conditioning_dim": 8,
    "upsample_factors": [5, 4],
    "upsample_kernel_sizes": [11, 8],
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3, 5]],
    "duration_hidden_size": 8,
}


def make_plan(units, **changes):
    """Make a plan over ``units/train``, and validation rows."""
    settings = {**PLAN, **changes}
    sources = settings.pop("sources")
    plan = TokenPlan(open_stores(sources, units, "train"), sources, **settings)
    return plan, plan.valid_rows(open_stores(sources, units, "valid"), 5)


def make_brain(folder, brain_class=LMBrain, weight_decay=0.1, **changes):
    """Make a Brain; each change goes where its name belongs."""
    model = dict(MODEL)
    run_opts, hparams = dict(RUN_OPTS), dict(HPARAMS)
    for name, value in changes.items():
        for settings in (hparams, run_opts, model):
            if name in settings:
                settings[name] = value
                break
        else:
            target = model if name.startswith("model_") else run_opts
            target[name.removeprefix("model_")] = value
    torch.manual_seed(0)
    model = decoder_lm("qwen2", **model)
    return brain_class(
        modules={"model": model},
        opt_class=lambda parameters: torch.optim.AdamW(
            parameters, weight_decay=weight_decay, fused=True
        ),
        hparams={**hparams, "output_folder": str(folder), "model": model},
        run_opts=run_opts,
        checkpointer=AtomicCheckpointer(folder / "save", {"model": model}),
    )


def train(units, folder, steps=None, plan=None, **changes):
    """Run a training session; ``steps`` stops it early."""
    brain = make_brain(folder, optimizer_step_limit=steps, **changes)
    brain.fit(*make_plan(units, **(plan or {})))
    return brain


def save_vocoder(folder):
    """Save a neural vocoder of random weights; return its folder."""
    torch.manual_seed(0)
    told = ("codebook-a", ["anna"], ["en"], True, 8000, 400.0, 30)
    HifiganVocoder(*told, **VOCODER).save(folder)
    return str(folder)
