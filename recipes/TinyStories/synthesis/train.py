"""Recipe for writing the stories of a corpus and speaking them.

To run this recipe, do one of the following:
> python train.py hparams/mini.yaml
> torchrun --nproc_per_node 2 train.py hparams/mini.yaml
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Here and not above: the worker processes import this file, and would
    # load torch for nothing.
    from speechbrain_slm.speech.synthesis import (
        name_tables,
        plan_of_speech,
        synthesize,
    )
    from speechbrain_slm.utils.config import load_recipe
    from speechbrain_slm.utils.distributed import barrier, is_main
    from speechbrain_slm.utils.jobs import PARTS, Share, claim
    from speechbrain_slm.utils.story_tables import refuse_others

    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from tinystories_prepare import MAKER, prepare_tinystories

    hparams, _ = load_recipe(sys.argv[1:])
    folder = Path(hparams["data_folder"])
    ready = hparams["stories"]
    text = {
        "source": hparams["source"],
        "languages": hparams["languages"],
        "seed": hparams["seed"],
        "plots": hparams["plots"],
        "characters": hparams["characters"],
        "things": hparams["things"],
        "num_train": hparams["num_train"],
        "num_valid": hparams["num_valid"],
        "num_cloze": hparams["num_cloze"],
        "speakers": hparams["speakers"],
        "speaker_per": hparams["speaker_per"],
    }
    splits = ("train", "valid", "cloze")
    tables = name_tables(
        ready or [folder / "text" / f"{split}.parquet" for split in splits]
    )
    speech = {
        "tts": hparams["speech"]["tts"],
        "speakers": hparams["speech"]["speakers"],
        "languages": hparams["languages"],
        "seed": hparams["seed"],
        "trim": hparams["trim"],
        "limits": hparams["limits"],
        "audio_format": hparams["audio_format"],
        "loudness": hparams["loudness"],
        "speaker_per": hparams["speaker_per"],
        "stories_per_shard": hparams["stories_per_shard"],
    }
    plan = plan_of_speech(**speech, text=None if ready else text, tables=tables)
    share = Share(hparams["job"], hparams["num_jobs"])
    if not ready and is_main():
        refuse_others(folder, splits, MAKER)
    # Before anything is written: another run may log elsewhere, and write here.
    with claim(folder / PARTS, share) as place:
        place.pin(plan, "*/*/*.parquet", takes_over=True)
        if not ready:
            if is_main():
                prepare_tinystories(output_folder=folder, **text)
            barrier()
        synthesize(
            tables,
            folder,
            **speech,
            num_workers=hparams["num_workers"],
            max_left_out=hparams["max_left_out"],
            job=hparams["job"],
            num_jobs=hparams["num_jobs"],
        )
