"""Train a vocoder on spoken stories and their units, and judge what it says.

python train.py hparams/mini.yaml
"""

import logging
import sys
from pathlib import Path

from speechbrain_slm.utils.config import call_with, load_recipe

logger = logging.getLogger(__name__)


def main(hparams, run_opts):
    """Read the speech and its units, train, and let the recogniser listen."""
    from speechbrain_slm.dataio.utterance_plan import UtterancePlan
    from speechbrain_slm.evaluation.generation import resynthesis
    from speechbrain_slm.models.vocoders.base import load_vocoder, new_vocoder
    from speechbrain_slm.units.spoken import SpokenUnits
    from speechbrain_slm.units.tokenizers.saved import load_tokenizer
    from speechbrain_slm.utils.distributed import is_main

    folder = Path(hparams["output_folder"])
    # Below the BPE, if there is one: a vocoder speaks the tokenizer's units.
    tokenizer, _ = load_tokenizer(
        hparams["tokenizer_folder"], hparams["tokenizer_source"]
    )
    tokenizer.to(run_opts["device"])
    spoken = call_with(
        hparams,
        SpokenUnits,
        tokenizer=tokenizer,
        folder=folder / "utterances",
    )
    make, names = hparams["vocoder"], (spoken.speakers, spoken.languages)
    vocoder = new_vocoder(make, tokenizer, *names)
    plan = call_with(
        hparams,
        UtterancePlan,
        numbers=spoken.train,
        identity=spoken.identity,
        # What a step takes of an utterance.
        frames=hparams.get("segment_frames", spoken.mean_units),
    )
    held = spoken.some_held(hparams["valid_utterances"])
    brain = call_with(
        hparams,
        hparams["brain"],
        vocoder=vocoder,
        spoken=spoken,
        hparams=hparams,
        run_opts=run_opts,
    )
    brain.fit(plan, {"held_out": held} if len(held) else None)
    if hparams["judged"] and is_main() and brain.folder.is_dir():
        results = resynthesis.judge(
            load_vocoder(brain.folder, tokenizer).to(run_opts["device"]),
            spoken,
            hparams["recognizer"](device=run_opts["device"]),
            hparams["judged"],
            folder,
        )
        logger.info("%s\n%s", folder, resynthesis.results_table(results))


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
