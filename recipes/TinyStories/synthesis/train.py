"""Write the stories of a corpus, and speak them.

python train.py hparams/mini.yaml
torchrun --nproc_per_node 2 train.py hparams/mini.yaml
"""

import sys
from pathlib import Path

from speechbrain_slm.utils.config import call_with, load_recipe, named

sys.path.append(str(Path(__file__).resolve().parents[1]))


def main(hparams, run_opts):
    """Write the text, unless it is there, and speak it."""
    # Here and not above: the worker processes import this file, too.
    from grammar_prepare import MAKER, SPLITS, prepare_grammar

    from speechbrain_slm.speech.synthesis import (
        name_tables,
        plan_of_speech,
        synthesize,
    )
    from speechbrain_slm.speech.utterances import Speech
    from speechbrain_slm.utils.distributed import barrier, is_main
    from speechbrain_slm.utils.jobs import PARTS, Share, claim
    from speechbrain_slm.utils.tables import refuse_others

    folder, ready = Path(hparams["data_folder"]), hparams["stories"]
    text = None if ready else named(hparams, prepare_grammar)
    tables = name_tables(
        ready or [folder / "text" / f"{split}.parquet" for split in SPLITS]
    )
    tts, speakers = hparams["speech"]["tts"], hparams["speech"]["speakers"]
    speech = call_with(hparams, Speech, tts=tts, speakers=speakers)
    pinned = plan_of_speech(text, tables, speech)
    if not ready and is_main():
        refuse_others(folder, SPLITS, MAKER)
    share = call_with(hparams, Share)
    # Before anything is written: another run may log elsewhere, and write here.
    with claim(folder / PARTS, share) as place:
        place.pin(pinned, "*/*/*.parquet", takes_over=True)
        if not ready:
            if is_main():
                prepare_grammar(folder, **text)
            barrier()
        call_with(
            hparams,
            synthesize,
            stories=tables,
            output_folder=folder,
            speech=speech,
        )


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
