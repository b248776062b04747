"""A table of pairs over the stories of ``store_folder``, and a Brain for it."""

import numpy as np
import pyarrow as pa
import torch
from cloze_example import BOUNDARY, VOCABULARY, export
from lm_example import HPARAMS, RUN_OPTS

from speechbrain_slm.brains.checkpoints import AtomicCheckpointer
from speechbrain_slm.brains.preference import PreferenceBrain
from speechbrain_slm.brains.preference_plan import PairPlan, read_pairs
from speechbrain_slm.dataio.preference import PAIRS
from speechbrain_slm.models.export import examine_speech_lm, load_speech_lm
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.tables import write_table

UNITS = {
    "tokenizer_identity": "codebook-a",
    "vocabulary_size": VOCABULARY,
    "boundary": BOUNDARY,
    "language_tags": {},
}
SETTINGS = {"beta": 0.5, "label_smoothing": 0.1, "sft_weight": 0.2}
PLAN = {"steps": 8, "rows_per_step": 6, "valid_rows": 5, "seed": 7}


def pair_rows(count=20, seed=0):
    """Make random pairs, five of each story, of 3 to 12 units a part."""
    generator = np.random.default_rng(seed)

    def units():
        return generator.integers(0, VOCABULARY, generator.integers(3, 13))

    return [
        {
            "pair_id": f"pair-{n}",
            "group": f"story-{n // 5}",
            "tokenizer": "codebook-a",
            "prompt_language": "en",
            "ending_language": ("en", "fr")[n % 2],
            **{name: units() for name in ("prompt", "chosen", "rejected")},
        }
        for n in range(count)
    ]


def write_rows(path, rows):
    """Write pairs as a table."""
    write_table(path, pa.Table.from_pylist(rows, schema=PAIRS))
    return path


def make_plan(folder, model, units=UNITS, rows=None, **changes):
    """Make a plan of pairs, written to a folder."""
    path = folder / "pairs.parquet"
    if is_main():
        write_rows(path, rows or pair_rows())
    barrier()
    pairs = read_pairs(path, model, units)
    return PairPlan(pairs, units, **{**PLAN, **changes})


def make_brain(folder, start, **changes):
    """Make a Brain on an exported model; a change goes where it belongs."""
    run_opts = dict(RUN_OPTS)
    hparams = {**HPARAMS, **SETTINGS, "share_prompts": True}
    hparams |= {
        "learning_rate": 0.002,
        "batch_tokens": 256,
        "pairs_per_shard": 8,
    }
    for name, value in changes.items():
        (run_opts if name not in hparams else hparams)[name] = value
    _, identity = examine_speech_lm(start)
    model, _ = load_speech_lm(start, identity)
    hparams |= {"output_folder": str(folder), "model": model}
    hparams |= {"model_folder": start, "start": identity}
    return PreferenceBrain(
        modules={"model": model},
        opt_class=lambda parameters: torch.optim.AdamW(parameters),
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=AtomicCheckpointer(folder / "save", {"model": model}),
    )


def train(folder, start=None, steps=None, plan=None, **changes):
    """Run a training session; ``steps`` stops it early."""
    folder.mkdir(parents=True, exist_ok=True)
    if start is None:
        start = folder / "start"
        if is_main():
            export(start)
        barrier()
    brain = make_brain(folder, start, optimizer_step_limit=steps, **changes)
    units = examine_speech_lm(start)[0]
    plan = make_plan(folder, brain.hparams.model, units, **(plan or {}))
    brain.fit(plan, {"held out": plan.valid})
    return brain
