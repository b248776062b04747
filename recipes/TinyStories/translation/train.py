#!/usr/bin/env python3
"""Recipe for adding a language to stories tables, sentence by sentence.

Shards of stories are shared by the ranks of ``torchrun``, or by array jobs.
Whatever is complete is reused, whatever is not resumes.

To run this recipe, do the following:
> python train.py hparams/mini.yaml
"""

import sys
from pathlib import Path

from speechbrain_slm.stories.translation.tables import (
    check_tables,
    translate_table,
)
from speechbrain_slm.utils.config import load_recipe

if __name__ == "__main__":
    hparams, run_options = load_recipe(sys.argv[1:])
    translator = hparams["translation"]["translator"]
    folder = Path(hparams["translation_folder"])
    # Before the first is paid for.
    tables = check_tables(hparams["tables"])
    for table in tables:
        translate_table(
            table,
            folder / "text" / table.name,
            hparams["source_language"],
            hparams["target_language"],
            translator.to(run_options["device"]),
            folder / "parts" / table.stem,
            checks=hparams["checks"],
            leave_out=hparams["leave_out"],
            stories_per_shard=hparams["stories_per_shard"],
            max_rejected=hparams["max_rejected"],
            job=hparams["job"],
            num_jobs=hparams["num_jobs"],
        )
