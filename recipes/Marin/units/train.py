"""Turn Mimi tokens that others have published into unit stores.

python train.py hparams/mini.yaml
"""

import sys
from pathlib import Path

from speechbrain_slm.utils.config import call_with, load_recipe

sys.path.append(str(Path(__file__).resolve().parents[1]))


def main(hparams, run_opts):
    """Write the mini corpus, where one is asked for; read the sources."""
    from mini_corpus import write_mini_corpus

    from speechbrain_slm.units.imported import import_units
    from speechbrain_slm.utils.jobs import take_turns

    if folder := hparams["mini_corpus"]:
        with take_turns(folder):
            write_mini_corpus(folder, hparams["seed"])
    call_with(hparams, import_units, tokenizer=hparams["units"]["tokenizer"])


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
