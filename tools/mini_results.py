"""Evaluate a model of the mini experiment, and write its small result."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from mini_jobs import ROOT, Job
from results_credits import GROUPS_JSON, credit_sums, groups_of
from results_files import FORMAT, VERSION

from speechbrain_slm.evaluation.alignment.evaluate import evaluate_alignment
from speechbrain_slm.evaluation.cloze.accuracy import CROSS_LINGUAL
from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze
from speechbrain_slm.evaluation.cloze.items import read_items
from speechbrain_slm.evaluation.cloze.results import read_results
from speechbrain_slm.utils.atomic import read_json, write_atomic
from speechbrain_slm.utils.config import call_with, load_yaml
from speechbrain_slm.utils.tables import write_table

CLOZE = "cloze/hparams/mini.yaml"
ALIGNMENT = "alignment/hparams/mini.yaml"
MAIN = ("sSC", "sTC")
NATURAL = "-natural"  # ends the metrics of natural items
# Of these, credits and subsets are kept, and further metrics.
SCORINGS = ("whole_mean", "normalised")
# Kinds of jobs that are scored on these alone.
BRIEF = ("control", "curve", "scaling")
MAIN_ITEMS = "main_items.parquet"
_MEASURES = ("cosine", "margin", "p1_forward", "p1_backward")
_PACKAGES = ("torch", "transformers", "speechbrain", "numpy")


def evaluate(job: Job, root: Path, results: Path, device: str) -> None:
    """Score a trained model, or its snapshots; write the small results."""
    request = {"request": job.request(root)}
    groups = _groups(job, root)
    path = results / job.units / GROUPS_JSON
    if not path.exists() or read_json(path) != groups:
        write_small(path, groups)
    if job.kind == "baseline":
        # It needs what stands here.
        from mini_baselines import score

        small = score(job.run, job.units, root) | request
        write_small(results / job.results[0][1], small)
        return
    trained = job.folder(root / "LM")
    for step, name in job.results:
        model = trained / "model"
        if step is not None:
            model = trained / "snapshots" / f"step-{step:06d}"
        small = _small(job, step, trained, device) | request
        _add_cloze(small, job, step, model, root, groups, device)
        _add_alignment(small, job, step, model, root, device)
        write_small(results / name, small)


def _groups(job: Job, root: Path) -> dict[str, dict]:
    """Return the groups of all items, natural ones, too."""
    found = {}
    for folder, suffix in (("synthesis", ""), ("natural", NATURAL)):
        items = read_items(root / folder / "items.parquet")
        found |= {f"{k}{suffix}": v for k, v in groups_of(items).items()}
    return found


def write_small(path: Path, content: dict) -> None:
    """Write a file of small results, a line a record."""
    lines = []
    for key, value in content.items():
        if isinstance(value, list) and value:
            rows = ",\n".join(map(_compact, value))
            text = f"[\n{rows}\n]"
        else:
            text = _compact(value)
        lines.append(f"{json.dumps(key)}: {text}")
    write_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _compact(value):
    told = {"ensure_ascii": False, "allow_nan": False}
    return json.dumps(value, separators=(",", ":"), **told)


def _small(job: Job, step: int | None, trained: Path, device: str) -> dict:
    """Say what the model is, and what it was trained on."""
    run = read_json(trained / "run.json")
    counts = run["tokens"] if step is None else run["snapshots"][str(step)]
    languages = [one for one in counts if len(one) == 2]
    return {
        **{"format": FORMAT, "version": VERSION, "set": job.units},
        **{"run": job.run, "seed": job.seed, "step": step, "kind": job.kind},
        **{"stages": job.stages, "options": job.options},
        "tokens": sum(counts.values()),
        "tokens_by_language": {one: counts[one] for one in languages},
        **{key: run[key] for key in ("parameters", "seconds", "steps")},
        "device": _device(device),
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{one: importlib.metadata.version(one) for one in _PACKAGES},
        },
    }


def _device(device):
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"{device} ({platform.machine()})"


def _commit():
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()


def _recipe(path: str, evaluator: Any, values: dict, **given: Any) -> Any:
    """Do what a recipe does with a YAML file of it, in this process."""
    told = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
    hparams = load_yaml(ROOT / "recipes/TinyStories" / path, told)
    return call_with(hparams, evaluator, **given)


def _batches(device: str) -> dict:
    # It changes no score, and a GPU would wait for Python.
    return {"batch_tokens": 32768} if device.startswith("cuda") else {}


def _add_cloze(small, job, step, model, root, groups, device):
    """Score the items of the corpus, and those that are natural."""
    main, natural = root / "synthesis/items.parquet", root / "natural"
    sets = [(main, root / "units" / job.units, root / "cloze", "")]
    if job.kind in BRIEF:
        main = root / "cloze" / MAIN_ITEMS
        _write_main_items(sets[0][0], main)
        sets = [(main, *sets[0][1:])]
    else:
        units, items = natural / "units" / job.units, natural / "items.parquet"
        sets.append((items, units, natural / "cloze", NATURAL))
    part = "" if step is None else f"step-{step:06d}"
    small.update(cloze=[], subsets=[], credit_sums={}, groups={})
    for items, units, base, suffix in sets:
        folder = job.folder(base) / part
        told = {"units_folder": units / "cloze", "items": items}
        told |= {"model_folder": model, "output_folder": folder}
        told |= {"run": job.run, **_batches(device)}
        _recipe(CLOZE, evaluate_cloze, told, device=device)
        _add_results(small, folder, groups, suffix)


def _write_main_items(source: Path, path: Path) -> None:
    items = read_items(source)
    chosen = items.filter(pc.is_in(items["benchmark"], pa.array(MAIN)))
    if not path.exists() or not read_items(path).equals(chosen):
        write_table(path, chosen)


def _add_results(small: dict, folder: Path, groups: dict, suffix: str) -> None:
    """Take what is worth keeping of a cloze recipe's results.

    All conventions on ``MAIN``, two on other metrics; of brief jobs two alone.
    The credits of all metrics for main runs, of ``MAIN`` for the others.
    """
    found = read_results(folder)
    for kind, key in (
        ("records", "cloze"),
        ("cross_lingual", "cloze"),
        ("subsets", "subsets"),
    ):
        for record in found.info[kind]:
            main = record["metric"] in MAIN and not suffix
            every = main and key == "cloze" and small["kind"] not in BRIEF
            asked = key == "cloze" or (main and small["kind"] not in BRIEF)
            if asked and (every or record["scoring"] in SCORINGS):
                small[key].append(_record(record, suffix))
    for (metric, direction), cell in found.cells.items():
        wanted = small["kind"] == "main" or (metric in MAIN and not suffix)
        if direction == CROSS_LINGUAL or not wanted:
            continue
        name = metric + suffix
        small["groups"][name] = groups[name]["identity"]
        for scoring in SCORINGS:
            sums = credit_sums(cell, scoring, groups[name])
            cells = small["credit_sums"].setdefault(scoring, {})
            cells[f"{name} {direction}"] = sums


def _record(record: dict, suffix: str) -> dict:
    names = ("direction", "scoring", "subset", "n", "items")
    kept = {name: record[name] for name in names if name in record}
    accuracy = round(record["accuracy"], 3)
    return {"metric": record["metric"] + suffix, **kept, "accuracy": accuracy}


def _add_alignment(small, job, step, model, root, device):
    """Compare the states of sentences, in the stories of validation."""
    folder = job.folder(root / "alignment")
    folder = folder if step is None else folder / f"step-{step:06d}"
    told = {
        **{"run": job.run, "model_folder": model, "output_folder": folder},
        "units_folder": root / "units" / job.units / "valid",
        "manifest": root / "synthesis/valid.parquet",
        "poolings": ["mean"] if job.kind in BRIEF else ["mean", "last"],
        **_batches(device),
    }
    found = _recipe(ALIGNMENT, evaluate_alignment, told, device=device)
    small["alignment"] = [_aligned(record) for record in found["records"]]


def _aligned(record: dict) -> dict:
    """Keep a layer's cosines and P@1 among candidates of one voice."""
    values = {**record["retrieval_matched"], **record}
    kept = {key: record[key] for key in ("layer", "voice", "pooling", "n")}
    for name in ("mismatched", "chance", "cka"):
        kept[name] = round(values[name], 4)
    for name in _MEASURES:
        for end in ("", "_low", "_high"):
            kept[name + end] = round(values[name + end], 4)
    return kept
