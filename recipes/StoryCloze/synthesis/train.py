"""Speak a cloze benchmark.

    python train.py hparams/natural.yaml [--key value ...]

Speaking needs no GPU and no ``torchrun``: `num_workers` processes share it.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Here and not above: the worker processes import this file, and would
    # load torch for nothing.
    from speechbrain_slm.speech.synthesis import synthesize
    from speechbrain_slm.utils.config import load_recipe
    from speechbrain_slm.utils.distributed import world_size
    from speechbrain_slm.utils.jobs import PARTS, claim

    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from storycloze_prepare import prepare_cloze

    if world_size() > 1:
        sys.exit("error: run this without torchrun; see num_workers")
    hparams, _ = load_recipe(sys.argv[1:])
    # A run that logs elsewhere may have this as its data folder.
    with claim(Path(hparams["output_folder"]) / PARTS):
        stories = prepare_cloze(
            output_folder=hparams["output_folder"],
            files=hparams["files"] or None,
            languages=hparams["languages"],
            seed=hparams["seed"],
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
            limits=hparams["limits"],
            max_left_out=hparams["max_left_out"],
            audio_format=hparams["audio_format"],
            loudness=hparams["loudness"],
        )
