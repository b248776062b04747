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
    from speechbrain_slm.corpus.synthesis import name_tables, synthesize
    from speechbrain_slm.utils.config import load_recipe
    from speechbrain_slm.utils.distributed import barrier, is_main

    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from tinystories_prepare import prepare_tinystories

    hparams, _ = load_recipe(sys.argv[1:])
    folder = Path(hparams["data_folder"])
    tables = hparams["stories"]
    if not tables:
        if is_main():
            prepare_tinystories(
                output_folder=folder,
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
                speaker_per=hparams["speaker_per"],
            )
        barrier()
        splits = ("train", "valid", "cloze")
        tables = [folder / "text" / f"{split}.parquet" for split in splits]
    synthesize(
        name_tables(tables),
        folder,
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
        speaker_per=hparams["speaker_per"],
        stories_per_shard=hparams["stories_per_shard"],
        job=hparams["job"],
        num_jobs=hparams["num_jobs"],
    )
