"""Speak the small stand-in for the ZeroSpeech benchmarks.

python train.py hparams/mini.yaml
"""

import logging
import sys
from pathlib import Path

from speechbrain_slm.utils.config import load_recipe

sys.path.append(str(Path(__file__).resolve().parents[1]))
logger = logging.getLogger(__name__)


def main(hparams, run_opts):
    """Speak the texts of mini_texts.yaml."""
    from mini_corpus import speak_mini_corpus

    folder, speech = hparams["output_folder"], hparams["speech"]
    count = speak_mini_corpus(folder, speech["tts"], speech["speakers"])
    logger.info("%s: %d files spoken", folder, count)


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:], alone="it takes seconds"))
