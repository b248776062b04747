"""Run every recipe of the CSV files, in SpeechBrain's form.

A CSV file a dataset, a row a YAML file, in the order in which a user runs
them: a row finds, under the defaults of its YAML file, what the rows before it
have written. ``test_debug_flags`` make it small, ``test_debug_checks`` say
which files its output folder must hold then.
"""

import csv
import itertools
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from chat_server import chat_server
from neural_voices import save_pocket
from processes import ROOT, kill, run, start
from published_sets import (
    write_pairs,
    write_salmon,
    write_story_cloze,
    write_whole_stories,
)
from speaker_models import save_ecapa, save_resemblyzer, save_xvector
from tiny_models import save_encoder, save_mimi, save_text_lm, save_whisper
from tiny_translators import save_marian
from tinystories_example import write_tinystories

FILES = ("Script_file", "Hparam_file", "Data_prep_file", "Readme_file")
CHECKS = ("test_debug_flags", "test_debug_checks")
COLUMNS = ["Task", "Dataset", *FILES, "Result_url", "HF_repo", *CHECKS]
REQUIRED = {*FILES, *CHECKS} - {"Data_prep_file"}
RUNS = ("en_fr", "interleaved_ft")
# Of two topics: the one's ending is off the other's.
ITEMS = (
    {
        "id": "dog",
        "prompt": ["Tom has a dog.", "It ran to the river.", "It was cold."],
        "right": "The dog came back wet.",
        "wrong": "The cat sat on a chair.",
    },
    {
        "id": "bread",
        "prompt": [
            "Mia baked bread.",
            "She sold it at noon.",
            "People queued.",
        ],
        "right": "All loaves were gone by evening.",
        "wrong": "Nobody bought any.",
    },
)
LM, CLOZE = "results/mini/LM", "results/mini/cloze"


def read_rows(root):
    """Read all CSV files, in the order of their names and rows."""
    rows = []
    for path in sorted((root / "tests" / "recipes").glob("*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            assert reader.fieldnames == COLUMNS, path
            rows += [{**row, "csv": path.stem} for row in reader]
    return rows


ROWS = read_rows(ROOT)


def faults(root):
    """List what the CSV files lack, or name although it is not there."""
    found, rows = [], read_rows(root)
    for row in rows:
        where = f"{row['csv']}.csv, {row['Hparam_file']}"
        found += [f"{where}: no {name}" for name in REQUIRED if not row[name]]
        found += [
            f"{where}: {row[name]} does not exist"
            for name in FILES
            if row[name] and not (root / row[name]).is_file()
        ]
        if row["Dataset"] != row["csv"]:
            found.append(f"{where}: Dataset is {row['Dataset']}")
        readme, yaml_file = root / row["Readme_file"], Path(row["Hparam_file"])
        if readme.is_file() and yaml_file.name not in readme.read_text():
            found.append(f"{row['Readme_file']} does not name {yaml_file.name}")
    for name, pattern in (
        ("Script_file", "**/train*.py"),
        ("Hparam_file", "**/hparams/**/*.yaml"),
    ):
        listed = {row[name] for row in rows}
        there = (root / "recipes").glob(pattern)
        # A link is an older name of what it leads to.
        own = (path for path in there if not path.is_symlink())
        names = (path.relative_to(root).as_posix() for path in own)
        found += [
            f"{path} stands in no CSV file"
            for path in sorted(set(names) - listed)
        ]
    return sorted(found)


def test_csv_files_name_every_recipe_and_what_is_there():
    assert faults(ROOT) == []


def test_faults_are_found(tmp_path):
    """Each planted fault is named, and nothing else."""
    texts = {
        "recipes/D/t/train.py": "",
        "recipes/D/t/hparams/a.yaml": "",
        "recipes/D/t/README.md": "hparams/a.yaml",
        "tests/recipes/D.csv": ",".join(COLUMNS)
        + "\nt,D,recipes/D/t/train.py,recipes/D/t/hparams/a.yaml,,"
        "recipes/D/t/README.md,,,--a=1,file_exists=[a]\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert faults(tmp_path) == []
    (tmp_path / "recipes/D/u/hparams").mkdir(parents=True)
    (tmp_path / "recipes/D/u/hparams/b.yaml").touch()
    (tmp_path / "recipes/D/u/train.py").touch()
    (tmp_path / "recipes/D/t/README.md").write_text("none")
    with open(tmp_path / "tests/recipes/D.csv", "a", encoding="utf-8") as file:
        file.write("t,E,recipes/D/t/train.py,,no.py,recipes/D/t/README.md,,,x,")
    assert faults(tmp_path) == [
        "D.csv, : Dataset is E",
        "D.csv, : no Hparam_file",
        "D.csv, : no test_debug_checks",
        "D.csv, : no.py does not exist",
        "recipes/D/t/README.md does not name a.yaml",
        "recipes/D/u/hparams/b.yaml stands in no CSV file",
        "recipes/D/u/train.py stands in no CSV file",
    ]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Where the recipes run; the paths in their YAML files are relative."""
    folder = tmp_path_factory.mktemp("workspace")
    # In place of pretrained models, which no test can download.
    save_encoder(folder / "models" / "hubert")
    save_mimi(folder / "models" / "mimi")
    save_whisper(folder / "models" / "whisper")
    save_text_lm(folder / "models" / "text_lm")
    save_ecapa(folder / "models" / "ecapa")
    save_xvector(folder / "models" / "wavlm-xvector")
    save_resemblyzer(folder / "models" / "resemblyzer.pt")
    save_marian(folder / "models" / "marian", end=100, min_tokens=3)
    save_pocket(folder / "models" / "pocket", speakers=("alba", "jean"))
    # In place of the published text.
    (folder / "data").mkdir()
    for seed, split in enumerate(("train", "valid")):
        path = folder / "data" / f"TinyStories-{split}.txt"
        write_tinystories(path, num_stories=60, seed=seed)
    path = folder / "data" / "items_en.jsonl"
    path.write_text("\n".join(map(json.dumps, ITEMS)), encoding="utf-8")
    # In place of the hub's spoken sets.
    write_salmon(folder / "data" / "SALMon")
    write_pairs(folder / "data" / "sBLIMP")
    voices = ("af", "am", "bf", "bm")
    write_story_cloze(folder / "data/multispeaker-storycloze", voices=voices)
    for seed, split in enumerate(("train", "valid")):
        write_whole_stories(folder / "data/sTinyStories" / split, seed=seed)
    with chat_server() as (url, _):
        (folder / "chat_url").write_text(url)
        yield folder


@pytest.fixture(scope="module")
def running(workspace):
    """The processes of the rows, by their number."""
    processes = {}
    yield processes
    for process in processes.values():
        if process.poll() is None:
            kill(process)


def begin(number, running, workspace):
    """Start the recipe of a row, unless it has been started."""
    if number not in running:
        row = ROWS[number]
        command = [sys.executable, ROOT / row["Script_file"]]
        command += [ROOT / row["Hparam_file"], "--noprogressbar"]
        url = (workspace / "chat_url").read_text()
        flags = row["test_debug_flags"].replace("CHAT_URL", url)
        command += shlex.split(flags)
        running[number] = start(list(map(str, command)), cwd=workspace)


@pytest.mark.parametrize(
    "number",
    range(len(ROWS)),
    ids=lambda number: "{Hparam_file} {test_debug_flags:.20}".format_map(
        ROWS[number]
    ),
)
def test_recipe(number, running, workspace):
    begin(number, running, workspace)
    # Rows of one task need nothing of each other: the next one starts too.
    tasks = [row["Task"] for row in ROWS[number : number + 2]]
    if len(tasks) == 2 and tasks[0] == tasks[1]:
        begin(number + 1, running, workspace)
    text, _ = running[number].communicate(timeout=300)
    assert running[number].returncode == 0, text
    output = workspace / re.search(r"Experiment folder: (.+)", text)[1]
    checks = ROWS[number]["test_debug_checks"]
    expected = re.fullmatch(r"file_exists=\[(.+)\]", checks)[1].split(",")
    assert [name for name in expected if not (output / name).exists()] == []


def test_report(workspace):
    """The last step of the quickstart, on what the rows have written."""
    command = [sys.executable, str(ROOT / "tools" / "report.py"), "--runs"]
    command += [f"{name}={LM}/{name}:{CLOZE}/{name}" for name in RUNS]
    command += ["--manifest", "results/mini/synthesis/cloze.parquet"]
    command += ["--output_folder", "results/report"]
    code, text = run(command, cwd=workspace)
    assert code == 0, text
    folder = workspace / "results" / "report"
    records = json.loads((folder / "results.json").read_text())
    names = ("run", "metric", "direction", "n")
    found = [tuple(entry[name] for name in names) for entry in records]
    grid = RUNS, ("sSC", "sTC"), ("en", "fr", "en>fr", "fr>en"), (20,)
    assert sorted(found) == sorted(itertools.product(*grid))
    for entry in records:
        assert 0 <= entry["ci_low"] <= entry["accuracy"] <= entry["ci_high"]
        assert set(entry["tokens"]) == {"en", "fr"}
    # Nominally 4 of 8 steps of 4 x 64 tokens of each language, in both runs.
    seen = {entry["run"]: entry["tokens"] for entry in records}
    for language in ("en", "fr"):
        assert seen["interleaved_ft"][language] == pytest.approx(
            seen["en_fr"][language], rel=0.15
        )
    assert (folder / "report.html").read_text().count("<audio") >= 4
