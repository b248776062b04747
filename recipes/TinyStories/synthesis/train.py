"""Write the stories of a corpus and speak them.

    python train.py hparams/mini.yaml [--key value ...]

Speaking needs no GPU and no ``torchrun``: `num_workers` processes share it.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Here and not above: the worker processes import this file, and would
    # load torch for nothing.
    from speechbrain_slm.corpus.synthesis import synthesize
    from speechbrain_slm.utils.config import load_recipe
    from speechbrain_slm.utils.distributed import world_size

    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from tinystories_prepare import prepare_tinystories

    if world_size() > 1:
        sys.exit("error: run this without torchrun; see num_workers")
    hparams, _ = load_recipe(sys.argv[1:])
    stories = prepare_tinystories(
        output_folder=hparams["output_folder"],
        source=hparams["source"],
        languages=hparams["languages"],
        seed=hparams["seed"],
        plots=hparams["plots"],
        characters=hparams["characters"],
        things=hparams["things"],
        num_train=hparams["num_train"],
        num_valid=hparams["num_valid"],
        num_cloze=hparams["num_cloze"],
        speakers=hparams["speakers"],
    )
    synthesize(
        stories,
        hparams["output_folder"],
        tts=hparams["speech"]["tts"],
        speakers=hparams["speech"]["speakers"],
        languages=hparams["languages"],
        seed=hparams["seed"],
        trim=hparams["trim"],
        num_workers=hparams["num_workers"],
    )
