"""Clean the stories of a source and cut them into sentences.

python train.py hparams/full.yaml [--key value ...]
"""

import sys

from speechbrain_slm.utils.config import call_with, load_recipe


def main(hparams, run_opts):
    """Read the source, and write the stories tables."""
    from speechbrain_slm.stories.text import prepare_text

    call_with(hparams, prepare_text)


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:], alone="it is one stream"))
