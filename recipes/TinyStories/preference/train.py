"""Train an exported speech LM to prefer one ending of a story to another.

python train.py hparams/mini.yaml --run en_fr
torchrun --nproc_per_node=2 -- train.py hparams/mini.yaml --run en_fr
"""

import sys
from pathlib import Path

from speechbrain_slm.utils.config import call_with, load_recipe


def main(hparams, run_opts):
    """Make pairs of endings, unless there are some, and train on them."""
    from speechbrain_slm.brains.checkpoints import AtomicCheckpointer
    from speechbrain_slm.brains.preference import PreferenceBrain
    from speechbrain_slm.brains.preference_plan import PairPlan, read_pairs
    from speechbrain_slm.dataio.preference import write_ending_pairs
    from speechbrain_slm.models.export import examine_speech_lm, load_speech_lm
    from speechbrain_slm.models.folder import find_speech_lm
    from speechbrain_slm.utils.distributed import barrier, is_main

    folder = Path(hparams["output_folder"])
    start = find_speech_lm(hparams["model_folder"])
    _, identity = examine_speech_lm(start)
    model, units = load_speech_lm(start, identity)
    pairs = hparams["pairs"] or folder / "pairs.parquet"
    if hparams["pairs"] is None and is_main():
        call_with(hparams, write_ending_pairs, path=pairs)
    barrier()
    plan = call_with(
        hparams, PairPlan, pairs=read_pairs(pairs, model, units), units=units
    )
    hparams |= {"model_folder": start, "start": identity, "model": model}
    brain = call_with(
        hparams,
        PreferenceBrain,
        modules={"model": model},
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=AtomicCheckpointer(folder / "save", {"model": model}),
    )
    brain.fit(plan, {"held out": plan.valid} if len(plan.valid) else {})


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
