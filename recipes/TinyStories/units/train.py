"""Turn spoken stories into unit stores.

A tokenizer is fitted on the training split, each distinct audio file encoded,
BPE fitted on the training split's units, and each split becomes a store.

python train.py hparams/mini.yaml
"""

import sys
from pathlib import Path

from speechbrain_slm.utils.config import call_with, load_recipe


def run_all(hparams, device):
    """Run all steps, from the manifests to the stores."""
    from speechbrain_slm.units.assembly import assemble_stores
    from speechbrain_slm.units.extraction import extract_utterances
    from speechbrain_slm.units.fitting import fit_bpe, fit_tokenizer
    from speechbrain_slm.units.manifest import map_manifests
    from speechbrain_slm.units.rejects import leave_out_rejects
    from speechbrain_slm.units.tokenizers.bpe import check_size
    from speechbrain_slm.utils.jobs import take_turns

    folder = Path(hparams["units_folder"])
    utterances = folder / "utterances"
    finished = hparams["tokenizer_folder"]
    tokenizer_folder = Path(finished or folder / "tokenizer")
    manifests = map_manifests(
        hparams["manifests"],
        hparams["languages"],
        Path(hparams["output_folder"]) / "manifests",
    )
    with take_turns(folder):
        tokenizer = fit_tokenizer(
            hparams["units"]["tokenizer"].to(device),
            None if finished else manifests,
            tokenizer_folder,
            hparams["fit_seconds"],
            hparams["seed"],
            max_seconds=hparams["extraction"]["max_seconds"],
        )
    if hparams["bpe"]:
        # Not once all audio is encoded.
        check_size(tokenizer.vocabulary_size, hparams["bpe"]["vocabulary_size"])
    extract_utterances(
        manifests.values(),
        tokenizer,
        utterances,
        **hparams["extraction"],
        job=hparams["job"],
        num_jobs=hparams["num_jobs"],
    )
    if hparams["job"] is not None:
        return
    kept = leave_out_rejects(
        manifests, utterances, folder, hparams["max_rejects"]
    )
    bpe = hparams["bpe"] and fit_bpe(
        tokenizer,
        None if finished else manifests,
        utterances,
        tokenizer_folder / "bpe",
        **hparams["bpe"],
    )
    assemble_stores(kept, tokenizer, folder, bpe, hparams["stories_per_shard"])


def main(hparams, run_opts):
    """Claim the folder of the units, and fill it."""
    from speechbrain_slm.utils.jobs import Share, claim

    # Not the folder of the logs alone: two runs may log to two.
    own = Path(hparams["units_folder"]) / ".run"
    with claim(own, call_with(hparams, Share)):
        run_all(hparams, run_opts["device"])


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
