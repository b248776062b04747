"""Keep the voices that sound the same in every language.

python train.py hparams/mini.yaml
"""

import logging
import sys
from pathlib import Path

from speechbrain_slm.utils.config import call_with, load_recipe

logger = logging.getLogger(__name__)


def main(hparams, run_opts):
    """Embed utterances of each voice, compare, and leave voices out."""
    from speechbrain_slm.speech.voices.check import (
        compare_voices,
        draw_utterances,
        embed_utterances,
    )
    from speechbrain_slm.speech.voices.filter import (
        leave_out_voices,
        output_tables,
    )
    from speechbrain_slm.speech.voices.report import voices_table, write_report
    from speechbrain_slm.utils.distributed import is_main
    from speechbrain_slm.utils.hashing import file_stamp

    folder = Path(hparams["output_folder"])
    data = Path(hparams["data_folder"])
    manifests = {
        split: data / f"{split}.parquet" for split in hparams["splits"]
    }
    # Not after the comparison.
    output_tables(manifests, folder)
    stamps = [file_stamp(path) for path in manifests.values()]
    encoder = hparams["encoder"].to(run_opts["device"])
    drawn = call_with(
        hparams,
        draw_utterances,
        manifests=manifests.values(),
        count=hparams["utterances"],
    )
    embeddings = embed_utterances(
        drawn, encoder, folder / "embeddings", hparams["num_workers"]
    )
    if is_main():
        voices = call_with(hparams, compare_voices, embeddings=embeddings)
        settings = {
            "encoder": encoder.identity,
            "compare": hparams["compare"],
            "threshold": hparams["threshold"],
            "languages": list(hparams["languages"]),
            "utterances": hparams["utterances"],
            "seed": hparams["seed"],
        }
        write_report(folder, voices, settings)
        logger.info("\n%s", voices_table(voices, settings))
        items = hparams["items"] and data / hparams["items"]
        leave_out_voices(
            manifests, items, folder, voices, hparams["max_left_out"], stamps
        )


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
