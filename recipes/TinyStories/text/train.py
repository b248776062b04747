"""Clean the stories of a source and cut them into sentences.

python train.py hparams/tinystories.yaml [--key value ...]
"""

import sys

from speechbrain_slm.stories.text import prepare_text
from speechbrain_slm.utils.config import load_recipe
from speechbrain_slm.utils.distributed import world_size

if __name__ == "__main__":
    if world_size() > 1:
        sys.exit("error: run this without torchrun; it is one stream")
    hparams, _ = load_recipe(sys.argv[1:])
    prepare_text(
        hparams["output_folder"],
        hparams["source"],
        hparams["rules"],
        seed=hparams["seed"],
        shares=hparams["shares"],
        limit=hparams["limit"],
        min_sentences=hparams["min_sentences"],
        speakers=hparams["speakers"],
    )
