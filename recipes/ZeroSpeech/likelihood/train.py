"""Is the right word or sentence the likelier one? sWUGGY, sBLIMP, CSZS.

The benchmarks' audio becomes units of the tokenizer that the LM was trained
on, then the LM scores them. What is complete is reused.

python train.py hparams/mini.yaml --run interleaved_ft
"""

import logging
import sys
from pathlib import Path

from speechbrain_slm.evaluation.cloze.accuracy import results_table
from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze
from speechbrain_slm.units.assembly import assemble_stores
from speechbrain_slm.units.extraction import extract_utterances
from speechbrain_slm.units.fitting import fit_tokenizer
from speechbrain_slm.units.mapping import map_manifests
from speechbrain_slm.units.rejects import leave_out_rejects
from speechbrain_slm.units.tokenizers.bpe import UnitBPE
from speechbrain_slm.utils.config import load_recipe
from speechbrain_slm.utils.distributed import barrier, is_main

sys.path.append(str(Path(__file__).resolve().parents[1]))
from zerospeech_prepare import prepare_zerospeech

logger = logging.getLogger(__name__)


def extract(manifest, hparams, device):
    """Turn the manifest's audio into a unit store; nothing is fitted."""
    folder = Path(hparams["units_folder"])
    finished = Path(hparams["tokenizer_folder"])
    languages = ["en", hparams["code_switched_language"]]
    tables = map_manifests([manifest], languages, folder / "manifests")
    tokenizer = hparams["units"]["tokenizer"].to(device)
    tokenizer = fit_tokenizer(tokenizer, None, finished, None, None)
    utterances = folder / "utterances"
    extract_utterances(
        tables.values(), tokenizer, utterances, **hparams["extraction"]
    )
    # Every file is one side of an item: none can be left out.
    kept = leave_out_rejects(tables, utterances, folder, max_rejects=0)
    bpe = None
    if (finished / "bpe").is_dir():
        bpe = UnitBPE.load(finished / "bpe", base=tokenizer)
    assemble_stores(kept, tokenizer, folder, bpe)
    return folder / manifest.stem


if __name__ == "__main__":
    hparams, run_opts = load_recipe(sys.argv[1:])
    prepared = Path(hparams["prepared_folder"])
    if is_main():
        prepare_zerospeech(
            hparams["benchmarks"], prepared, hparams["code_switched_language"]
        )
    barrier()
    results = evaluate_cloze(
        model_folder=hparams["model_folder"],
        units_folder=extract(
            prepared / "speech.parquet", hparams, run_opts["device"]
        ),
        items=prepared / "items.parquet",
        output_folder=hparams["output_folder"],
        convention={
            "scoring": hparams["convention"]["scoring"],
            "start": hparams["convention"]["start"],
            "score_end": hparams["convention"]["score_end"],
            "tie": hparams["convention"]["tie"],
        },
        batch_tokens=hparams["batch_tokens"],
        seed=hparams["seed"],
        device=run_opts["device"],
    )
    if is_main():
        logger.info("%s\n%s", hparams["output_folder"], results_table(results))
