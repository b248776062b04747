"""Turn a spoken, sentence-aligned corpus into manifests.

python train.py hparams/mini.yaml
"""

import sys

from speechbrain_slm.utils.config import call_with, load_recipe


def main(hparams, run_opts):
    """Read the corpus's own tables and audio."""
    from speechbrain_slm.speech.imported.spoken import import_spoken

    call_with(hparams, import_spoken)


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
