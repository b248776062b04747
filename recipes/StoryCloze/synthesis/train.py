"""Speak a cloze benchmark.

python train.py hparams/natural.yaml [--key value ...]

Speaking needs no GPU and no torchrun: num_workers processes share it.
"""

import sys
from pathlib import Path

from speechbrain_slm.utils.config import call_with, load_recipe

sys.path.append(str(Path(__file__).resolve().parents[1]))


def main(hparams, run_opts):
    """Write the benchmark's stories and items, and speak the stories."""
    # Here and not above: the worker processes import this file, too.
    from storycloze_prepare import prepare_cloze

    from speechbrain_slm.speech.synthesis import synthesize
    from speechbrain_slm.speech.utterances import Speech
    from speechbrain_slm.utils.jobs import PARTS, claim

    tts, speakers = hparams["speech"]["tts"], hparams["speech"]["speakers"]
    speech = call_with(hparams, Speech, tts=tts, speakers=speakers)
    # A run that logs elsewhere may have this as its data folder.
    with claim(Path(hparams["output_folder"]) / PARTS):
        call_with(
            hparams,
            synthesize,
            stories=call_with(hparams, prepare_cloze),
            speech=speech,
        )


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:], alone="see num_workers"))
