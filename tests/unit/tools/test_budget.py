import contextlib
import io
import json
import runpy
import sys

import numpy as np
import pytest
import ruamel.yaml
from conftest import write_store
from processes import ROOT

from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.dataio.reader import open_stores
from speechbrain_slm.utils.atomic import read_json

TOOL = str(ROOT / "tools" / "budget.py")
BUDGET = runpy.run_path(TOOL)
RUNS = ("en", "fr", "en_fr", "interleaved", "interleaved_ft")
# Steps of each stage, and the tokens of each language, in units of 1,000 steps
# of 614,400 tokens: as the paper's, reported by a digest of it.
PAPER = {
    "en": ([75], {"en": 75}),
    "fr": ([25], {"fr": 25}),
    "en_fr": ([100], {"en": 75, "fr": 25}),
    "interleaved": ([65, 20], {"en": 75, "fr": 10}),
    "interleaved_ft": ([50, 20, 30], {"en": 75, "fr": 25}),
}
# A YAML file whose objects cannot be made.
SMALL = {
    "run": "toy",
    "seed": 3,
    "sources": {
        "en": {"languages": ["en"]},
        "both": {"languages": ["en", "fr"], "switch_probability": 0.5},
    },
    "stages": [
        {"tokens": 1700, "mixture": {"en": 1}},
        {"tokens": 20, "mixture": {"both": 2}},
        {"tokens": 25000, "mixture": {"both": 3, "en": 1}},
    ],
    "row_length": 50,
    "rows_per_step": 4,
    "packing": "concatenate",
    "language_tags": [],
}


def budgets(*arguments):
    """Return what tools/budget.py prints for programs."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        BUDGET["main"]([*map(str, arguments), "--json"])
    return json.loads(output.getvalue())


@pytest.fixture(scope="module")
def recipe():
    """The budgets of the recipe's own YAML files, by size and run."""
    records = budgets()
    found = {(record["size"], record["run"]): record for record in records}
    assert len(found) == len(records)
    return found


@pytest.mark.parametrize("size", ["360M", "1B"])
def test_full_budgets_are_the_papers(recipe, size):
    thousand = 614_400_000
    for run, (stages, languages) in PAPER.items():
        record = recipe[size, run]
        steps = [stage["steps"] for stage in record["stages"]]
        assert steps == [1000 * count for count in stages], run
        assert record["languages"] == {
            name: count * thousand for name, count in languages.items()
        }
        assert record["tokens"] == sum(stages) * thousand


def test_languages_are_matched_at_every_size(recipe):
    """Nominally; mini's are equal in the units of its own store."""
    for size, nearly in (("mini", 0.05), ("360M", 0), ("1B", 0)):
        seen = {run: recipe[size, run]["languages"] for run in RUNS}
        for run in ("en_fr", "interleaved", "interleaved_ft"):
            for name in ("en", "fr")[: 1 if run == "interleaved" else 2]:
                expected = pytest.approx(seen[name][name], rel=nearly)
                assert seen[run][name] == expected, (size, run)
        assert 0 < seen["interleaved"]["fr"] < seen["fr"]["fr"]


def test_table_reads_as_the_papers(capsys):
    BUDGET["main"]([str(ROOT / "recipes/TinyStories/LM/hparams/1B.yaml")])
    lines = capsys.readouterr().out.splitlines()
    # In the order in which they stand in the file.
    assert [line.split(" | ")[1] for line in lines[2:]] == [
        f"`{run}`" for run in RUNS
    ]
    assert [*lines[:3], lines[-1]] == [
        "| size | run | stages, in steps | steps | tokens | en | fr |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
        "| 1B | `en` | 75,000 en | 75,000 | 46.08 B | 46.08 B | - |",
        "| 1B | `interleaved_ft` | 50,000 en, then 20,000 interleaved, then "
        "30,000 en + fr (1:1) | 100,000 | 61.44 B | 46.08 B | 15.36 B |",
    ]


def write_yaml(path, **changes):
    """Write a YAML file whose objects nobody can make."""
    with open(path, "w", encoding="utf-8") as file:
        ruamel.yaml.YAML().dump({**SMALL, **changes}, file)
        file.write("model: !apply:no.such.module {}\n")
    return path


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_it_agrees_with_the_plan(tmp_path, capsys, packing):
    folder = tmp_path / "units"
    write_store(folder / "train")
    path = write_yaml(tmp_path / "small_toy.yaml", packing=packing)
    (record,) = budgets(path, "--units_folder", folder)
    settings = {key: SMALL[key] for key in SMALL if key != "run"}
    stores = open_stores(SMALL["sources"], folder, "train")
    plan = TokenPlan(stores, **{**settings, "packing": packing})
    steps = [stage["steps"] for stage in record["stages"]]
    assert steps == np.diff(plan.first_steps).tolist()
    assert record["steps"] == plan.num_steps
    assert record["counts"] == plan.count(plan.num_steps)
    rows = np.stack([plan.rows(step) for step in range(plan.num_steps)])
    assert record["tokens"] == rows.size == sum(record["counts"].values())
    assert record["tokens"] == sum(record["languages"].values())
    # Nominal tokens are units and boundaries: a story of about 20 units has
    # one of these. Sentences are as long in both languages.
    for language, nominal in record["languages"].items():
        units = record["counts"][language]
        assert 0.9 * nominal < units < nominal
    held = read_json(folder / "train" / "store.json")["counts"]
    assert record["passes"] == {
        name: record["counts"][name] / held[name]["units"] for name in held
    }
    assert 3 < record["passes"]["en"] < 30
    BUDGET["main"]([str(path), "--units_folder", str(folder)])
    table = capsys.readouterr().out
    cells = [
        f"{record['counts'][name]:,} ({record['passes'][name]:.2f})"
        for name in ("en", "fr")
    ]
    assert table.endswith(f"| {' | '.join(cells)} |\n")


def test_runs_of_one_language_each_are_counted(tmp_path, capsys):
    write_store(tmp_path / "units/train")
    files = []
    for one in ("en", "fr"):
        stages = [{"steps": 4, "mixture": {one: 1}}]
        changes = {"sources": {one: {"languages": [one]}}, "stages": stages}
        files.append(write_yaml(tmp_path / f"{one}.yaml", **changes))
    options = [*map(str, files), "--units_folder", str(tmp_path / "units")]
    BUDGET["main"](options)
    *_, english, french = capsys.readouterr().out.splitlines()
    assert english.endswith("| - |")
    assert not french.endswith("| - |")


def test_an_estimate_is_near_what_a_card_did(tmp_path, capsys):
    """Of one H200 with 15 rows at once, as RESULTS.md has it."""
    found = {}
    for size in ("360M", "1B"):
        text = (BUDGET["HPARAMS"] / f"{size}.yaml").read_text(encoding="utf-8")
        path = tmp_path / f"{size}.yaml"
        path.write_text(text, encoding="utf-8")
        for gpus in (1, 3):
            record = budgets(path, "--mfu", 0.4962, "--gpus", gpus)[0]
            found[size, gpus] = record
            assert record["micro_rows"] == {1: 15, 3: 10}[gpus]
    one = found["360M", 1]
    assert one["tokens_per_second"] == pytest.approx(182_700, rel=1e-3)
    assert one["memory_GB"] == pytest.approx(37.44, rel=0.02)
    assert (
        2 < one["tokens_per_second"] / found["1B", 1]["tokens_per_second"] < 3
    )
    assert one["memory_GB"] < found["1B", 1]["memory_GB"] < 80
    BUDGET["main"]([str(path), "--mfu", "0.4962"])
    assert "| 1B | `en` | 46.08 B | 1 | " in capsys.readouterr().out
    other = text.replace("micro_batch_rows: 15", "grad_accumulation_factor: 30")
    path.write_text(other, encoding="utf-8")
    assert budgets(path, "--mfu", 0.5)[0]["micro_rows"] == 10
    with pytest.raises(ValueError, match="which 7 GPUs do not"):
        budgets(path, "--mfu", 0.5, "--gpus", 7)
    mini = BUDGET["HPARAMS"] / "mini.yaml"
    with pytest.raises(ValueError, match="has peak_tflops"):
        budgets(mini, "--mfu", 0.5)


def test_a_stage_that_cannot_be_laid_out_is_named(tmp_path):
    stages = [*SMALL["stages"], {"tokens": 9, "mixture": {"it": 1}}]
    path = write_yaml(tmp_path / "a.yaml", stages=stages)
    with pytest.raises(ValueError, match="mixture names it") as caught:
        budgets(path)
    assert str(caught.value).startswith(f"{path}: Stage 4 of 4")


def test_a_file_of_another_recipe_ends_with_a_line(monkeypatch):
    path = ROOT / "recipes/TinyStories/units/hparams/mini.yaml"
    monkeypatch.setattr(sys, "argv", ["budget.py", str(path)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(TOOL, run_name="__main__")
    assert caught.value.code == (
        f"error: {path} sets no run, sources, stages, row_length, "
        "rows_per_step, packing, language_tags; expected a YAML file of the "
        "LM recipe"
    )
