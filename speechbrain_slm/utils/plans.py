"""What a folder will hold, written down before the first file of it.

Work that comes in shards and may be resumed needs to know that the shards
which are there belong to it: ``plan.json`` says what makes them.
"""

import json
from pathlib import Path

from speechbrain_slm.utils.atomic import write_json
from speechbrain_slm.utils.hashing import difference

PLAN_JSON = "plan.json"


def read_json(path):
    """Read a JSON file; one that is torn or damaged is named.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    object
        Its content.

    Raises
    ------
    ValueError
        If it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def pin_plan(folder, plan, shards):
    """Write down what a folder will hold, or refuse one begun otherwise.

    Arguments
    ---------
    folder : str or Path
        Made where it is missing; gets ``plan.json``.
    plan : dict
        All that decides the folder's content. JSON can hold it.
    shards : str
        Pattern of the files that need a plan to be understood.

    Raises
    ------
    ValueError
        If the folder has another plan (the message names the fields), or
        such files but no plan. Nothing is changed.
    """
    path = Path(folder) / PLAN_JSON
    if path.is_file():
        lines = difference(plan, read_json(path))
        if lines:
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
