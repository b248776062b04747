"""What a folder will hold, written down before the first file of it.

Work that comes in shards and may be resumed needs to know that the shards
which are there belong to it: ``plan.json`` says what makes them.
"""

from pathlib import Path

from speechbrain_slm.utils.atomic import read_json, write_json
from speechbrain_slm.utils.hashing import difference

PLAN_JSON = "plan.json"


def pin_plan(
    folder: str | Path, plan: dict, shards: str, alone: bool = False
) -> None:
    """Write down what a folder will hold, or refuse one begun otherwise.

    Arguments
    ---------
    folder : Made where it is missing; gets ``plan.json``.
    plan : All that decides the folder's content. JSON can hold it.
    shards : Pattern of the files that need a plan to be understood.
    alone
        No other process writes to the folder: another plan of which nothing
        was made yet is replaced.

    Raises
    ------
    ValueError
        If the folder has another plan (the message names the fields), or
        such files but no plan. Nothing is changed.
    """
    path = Path(folder) / PLAN_JSON
    if path.is_file():
        lines = difference(plan, read_json(path))
        if lines and alone and not any(Path(folder).glob(shards)):
            write_json(path, plan)
        elif lines:
            raise ValueError(
                f"{folder} was begun with another configuration ("
                + "; ".join(lines)
                + "). Choose another folder, or remove this one to start over."
            )
        return
    stray = sorted(Path(folder).glob(shards))
    if stray:
        raise ValueError(
            f"{folder} holds {stray[0].name} but no {PLAN_JSON}, so nothing "
            "says what made it; choose another folder or remove this one"
        )
    write_json(path, plan)
