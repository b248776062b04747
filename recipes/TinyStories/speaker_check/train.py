"""Keep the voices that sound the same in every language.

python train.py hparams/mini.yaml
"""

import logging
import sys
from pathlib import Path

from speechbrain_slm.speech.voices.check import (
    compare_voices,
    draw_utterances,
    embed_utterances,
)
from speechbrain_slm.speech.voices.filter import leave_out_voices, output_tables
from speechbrain_slm.speech.voices.report import voices_table, write_report
from speechbrain_slm.utils.config import load_recipe
from speechbrain_slm.utils.distributed import is_main
from speechbrain_slm.utils.hashing import file_stamp

logger = logging.getLogger(__name__)

if __name__ == "__main__":
    hparams, run_opts = load_recipe(sys.argv[1:])
    folder = Path(hparams["output_folder"])
    data = Path(hparams["data_folder"])
    manifests = {
        split: data / f"{split}.parquet" for split in hparams["splits"]
    }
    # Not after the comparison.
    output_tables(manifests, folder)
    stamps = [file_stamp(path) for path in manifests.values()]
    encoder = hparams["encoder"].to(run_opts["device"])
    settings = {
        "encoder": encoder.identity,
        "compare": hparams["compare"],
        "threshold": hparams["threshold"],
        "languages": list(hparams["languages"]),
        "utterances": hparams["utterances"],
        "seed": hparams["seed"],
    }
    drawn = draw_utterances(
        manifests.values(),
        hparams["utterances"],
        hparams["seed"],
        hparams["languages"],
    )
    embeddings = embed_utterances(
        drawn, encoder, folder / "embeddings", hparams["num_workers"]
    )
    if is_main():
        voices = compare_voices(
            embeddings,
            hparams["languages"],
            hparams["threshold"],
            hparams["compare"],
        )
        write_report(folder, voices, settings)
        logger.info("\n%s", voices_table(voices, settings))
        items = hparams["items"] and data / hparams["items"]
        leave_out_voices(
            manifests, items, folder, voices, hparams["max_left_out"], stamps
        )
