"""Credits of groups of items, small enough for the repository.

A file of small results has the sum of the credits of each group's items, a
whole number but for ties, for each metric and direction; ``groups.json`` beside
it names the groups, once for a set of units, and counts their items. Both give
what ``evaluation.cloze.accuracy.group_credits`` gives.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_slm.evaluation.cloze.accuracy import (
    CROSS_LINGUAL,
    split_scores,
)
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.schema import TEXT, read_shaped, whole

GROUPS_JSON = "groups.json"
_GROUPS = {str: {"names": [TEXT], "items": [whole(1)], "identity": TEXT}}


def groups_of(items: pa.Table) -> dict[str, dict]:
    """Name the groups of each metric, and count their items in a direction.

    ValueError if directions differ in them.
    """
    found: dict[str, dict] = {}
    for (metric, direction), cell in split_scores(items).items():
        if direction == CROSS_LINGUAL:
            continue
        names, counts = np.unique(cell["group"].to_pylist(), return_counts=True)
        groups: dict = {"names": names.tolist(), "items": counts.tolist()}
        groups["identity"] = identity_of(groups)
        if found.setdefault(metric, groups) != groups:
            raise ValueError(
                f"{metric}: the items of {direction} have other groups than "
                "those of the direction before; expected the same in all"
            )
    return found


def credit_sums(cell: pa.Table, scoring: str, groups: dict) -> list[float]:
    """Return the sum of credits of each group in one direction."""
    place = {name: number for number, name in enumerate(groups["names"])}
    numbers = [place[name] for name in cell["group"].to_pylist()]
    weights = cell[scoring].to_numpy()
    sums = np.bincount(numbers, weights, minlength=len(place)).tolist()
    return [int(one) if one == int(one) else one for one in sums]


def read_groups(folder: Path) -> dict[str, dict]:
    """Read the groups of a set of units."""
    return read_shaped(folder / GROUPS_JSON, _GROUPS)


def unpack(
    path: Path, model: dict, groups: dict[str, dict]
) -> dict[str, dict[str, list[float]]]:
    """Return scoring -> "<metric> <direction>" -> credits from 0 to 1.

    ``cross_lingual`` is the mean of the directions that change the language.
    ValueError, with the path, if ``groups`` are not those of the model's file.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for scoring, cells in model["credit_sums"].items():
        credits: dict[str, np.ndarray] = {}
        crossing: dict[str, list[np.ndarray]] = {}
        for cell, sums in cells.items():
            metric, direction = cell.split(" ")
            known = groups.get(metric, {})
            if model["groups"].get(metric) != known.get("identity"):
                raise ValueError(
                    f"{path}: the groups of {metric} are not those of "
                    f"{GROUPS_JSON} beside it; evaluate again"
                )
            share = np.array(sums) / np.array(known["items"])
            credits[cell] = share
            if ">" in direction:
                crossing.setdefault(metric, []).append(share)
        for metric, shares in crossing.items():
            credits[f"{metric} {CROSS_LINGUAL}"] = np.mean(shares, axis=0)
        found[scoring] = {
            cell: share.round(12).tolist() for cell, share in credits.items()
        }
    return found
