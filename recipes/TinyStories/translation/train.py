"""Add a language to stories tables, sentence by sentence.

Shards of stories are shared by the ranks of torchrun, or by array jobs.
Whatever is complete is reused, whatever is not resumes.

python train.py hparams/mini.yaml
"""

import sys
from pathlib import Path

from speechbrain_slm.utils.config import call_with, load_recipe


def main(hparams, run_opts):
    """Translate one table after the other."""
    from speechbrain_slm.stories.translation.tables import (
        check_tables,
        translate_table,
    )

    translator = hparams["translation"]["translator"]
    folder = Path(hparams["translation_folder"])
    # All of them before the first is paid for.
    for table in check_tables(hparams["tables"]):
        call_with(
            hparams,
            translate_table,
            path_in=table,
            path_out=folder / "text" / table.name,
            folder=folder / "parts" / table.stem,
            translator=translator.to(run_opts["device"]),
        )


if __name__ == "__main__":
    main(*load_recipe(sys.argv[1:]))
