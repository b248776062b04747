"""Small results with planted numbers, as the mini experiment leaves them."""

import numpy as np

from speechbrain_slm.utils.atomic import write_json

METRICS = ("sSC", "sTC")
DIRECTIONS = ("en", "fr", "en>fr", "fr>en", "cross_lingual")
GROUPS = 40


def sums_of(share, seed=0):
    """Plant how many of each group's ten items are right."""
    right = np.zeros(GROUPS * 10)
    right[: round(share * len(right))] = 1
    right = np.random.default_rng(seed).permutation(right)
    return right.reshape(GROUPS, 10).sum(axis=1).tolist()


def small_result(
    run, seed, shares, units="mfcc", step=None, metrics=METRICS, aligned=0.1
):
    """Make what a file says; ``shares``: (mono-, cross-lingual)."""
    content = {
        **{"format": "speechbrain_slm.small_results", "version": 1},
        **{"set": units, "run": run, "seed": seed, "step": step},
        **{
            "tokens": 1024 * (step or 1600),
            "tokens_by_language": {"en": 805151},
        },
        **{"parameters": 1366784, "seconds": 60.0, "device": "cpu"},
        **{"commit": "", "versions": {}, "cloze": [], "subsets": []},
        **{"credit_sums": {"whole_mean": {}, "normalised": {}}},
        "groups": {metric: f"groups of {metric}" for metric in metrics},
        "alignment": [],
    }
    for metric in metrics:
        for direction in DIRECTIONS:
            share = shares[len(direction) > 2]
            what = {"metric": metric, "direction": direction}
            what |= {"n": GROUPS, "items": 10 * GROUPS}
            for scoring, own in (
                *(("whole_mean", share), ("ending_sum", 0.5)),
                ("normalised", share),
            ):
                record = {**what, "scoring": scoring, "accuracy": 100 * own}
                content["cloze"].append(record)
                if scoring != "ending_sum" and direction in DIRECTIONS[:4]:
                    own = sums_of(share, seed)
                    key = f"{metric} {direction}"
                    content["credit_sums"][scoring][key] = own
            if direction != "cross_lingual":
                record = {**what, "scoring": "whole_mean", "subset": "names"}
                content["subsets"].append({**record, "accuracy": 60.0})
    for layer in range(3):
        value = aligned * layer
        record = {"layer": layer, "voice": "different", "pooling": "mean"}
        for name in ("cosine", "margin", "p1_forward", "p1_backward"):
            record[name] = value
            record[f"{name}_low"] = value - 0.02
            record[f"{name}_high"] = value + 0.02
        content["alignment"].append(record)
    return content


def write_small(folder, content):
    """Write a file under its name, and return its path."""
    step = content["step"]
    name = f"{content['run']}-{content['seed']}"
    name += "" if step is None else f"-{step}"
    path = folder / content["set"] / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    groups = {
        metric: {
            "names": [f"plot {number}" for number in range(GROUPS)],
            "items": [10] * GROUPS,
            "identity": f"groups of {metric}",
        }
        for metric in METRICS
    }
    write_json(path.parent / "groups.json", groups)
    return path
