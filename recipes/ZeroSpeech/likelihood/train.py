"""Is the right word, sentence or story the likelier one?

The benchmarks' audio becomes units of the tokenizer that the LM was trained
on, then the LM scores them. What is complete is reused.

python train.py hparams/mini.yaml --run interleaved_ft
"""

import logging
import sys
from pathlib import Path

from speechbrain_slm.utils.config import call_with, load_recipe

sys.path.append(str(Path(__file__).resolve().parents[1]))
logger = logging.getLogger(__name__)


def extract(manifest, hparams, device):
    """Turn the manifest's audio into a unit store; nothing is fitted."""
    from speechbrain_slm.units.assembly import assemble_stores
    from speechbrain_slm.units.extraction import extract_utterances
    from speechbrain_slm.units.fitting import fit_tokenizer
    from speechbrain_slm.units.manifest import map_manifests
    from speechbrain_slm.units.rejects import leave_out_rejects
    from speechbrain_slm.units.tokenizers.bpe import UnitBPE
    from speechbrain_slm.utils.tables import read_items

    folder = Path(hparams["units_folder"])
    finished = Path(hparams["tokenizer_folder"])
    items, _ = read_items(manifest.parent / "items.parquet")
    languages = sorted(set(items["ending_language"].to_pylist()))
    tables = map_manifests([manifest], languages, folder / "manifests")
    tokenizer = hparams["units"]["tokenizer"].to(device)
    tokenizer = fit_tokenizer(tokenizer, None, finished, None, None)
    utterances = folder / "utterances"
    extract_utterances(
        tables.values(), tokenizer, utterances, **hparams["extraction"]
    )
    # Every file is one side of an item: none can be left out.
    kept = leave_out_rejects(tables, utterances, folder, 0)
    bpe = None
    if (finished / "bpe").is_dir():
        bpe = UnitBPE.load(finished / "bpe", base=tokenizer)
    assemble_stores(kept, tokenizer, folder, bpe)
    return folder / manifest.stem


def main(hparams, run_opts):
    """Read the benchmarks, encode them, and score them."""
    from zerospeech_prepare import prepare_zerospeech

    from speechbrain_slm.evaluation.cloze.accuracy import results_table
    from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze
    from speechbrain_slm.utils.distributed import barrier, is_main

    prepared, device = Path(hparams["prepared_folder"]), run_opts["device"]
    if is_main():
        call_with(hparams, prepare_zerospeech, output_folder=prepared)
    barrier()
    results = call_with(
        hparams,
        evaluate_cloze,
        units_folder=extract(prepared / "speech.parquet", hparams, device),
        items=prepared / "items.parquet",
        device=device,
    )
    if is_main():
        logger.info("%s\n%s", hparams["output_folder"], results_table(results))


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
