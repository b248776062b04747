"""Turn a spoken, sentence-aligned corpus into manifests.

python train.py hparams/mini.yaml
"""

import sys

from speechbrain_slm.speech.imported.spoken import import_spoken
from speechbrain_slm.utils.config import load_recipe

if __name__ == "__main__":
    hparams, _ = load_recipe(sys.argv[1:])
    import_spoken(
        hparams["sources"],
        hparams["output_folder"],
        columns=hparams["columns"],
        languages=hparams["languages"],
        language_names=hparams["language_names"],
        num_workers=hparams["num_workers"],
        batch_rows=hparams["batch_rows"],
        buckets=hparams["buckets"],
        max_left_out=hparams["max_left_out"],
        max_ratio=hparams["max_ratio"],
        max_seconds=hparams["max_seconds"],
    )
