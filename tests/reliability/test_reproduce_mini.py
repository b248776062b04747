"""The mini experiment's jobs: laid out, run, stopped, failed, and read."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from alignment_example import write_corpus
from cloze_example import write_items
from conftest import write_store
from processes import ROOT, run, start, wait_until

sys.path.insert(0, str(ROOT / "tools"))
import mini_jobs
import mini_results
import reproduce_mini
from results_files import Results

from speechbrain_slm.utils.command_line import parse_arguments
from speechbrain_slm.utils.config import load_yaml

SCALE = 0.005  # eight steps of en_fr
SCRIPT = [sys.executable, str(ROOT / "tools/reproduce_mini.py")]


def jobs_of(path=mini_jobs.EXPERIMENT, **changes):
    return mini_jobs.lay_out(mini_jobs.read_experiment(path), **changes)


@pytest.fixture
def folder(tmp_path):
    """What the corpus's recipes would have made, for one set of units."""
    root = tmp_path / "made"
    corpus = write_corpus(tmp_path / "valid")
    for name in ("units/mfcc", "natural/units/mfcc"):
        for split in ("train", "cloze"):
            write_store(root / name / split)
    (corpus / "store").rename(root / "units/mfcc/valid")
    for name in ("synthesis", "natural"):
        write_items(root / name / "items.parquet")
        for split in ("train", "cloze"):
            (root / name / f"{split}.parquet").touch()
    manifest = root / "synthesis/valid.parquet"
    (corpus / "manifest.parquet").rename(manifest)
    return root


def test_every_job_is_a_command_that_the_recipe_takes(tmp_path):
    jobs = jobs_of()
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    files = [name for job in jobs for _, name in job.results]
    assert len(set(files)) == len(files)
    assert names[0] == "mfcc/en-1986"
    for job in jobs:
        # Sets and seeds differ in nothing that could be mistyped.
        if job.name.startswith("mfcc") and job.seed == 1986 and job.stages:
            parse_arguments(job.training(tmp_path)[1:])
    by_name = {job.name: job for job in jobs}
    told = by_name["whisper/hundredth-1988"].training(tmp_path)
    sources = told[told.index("--sources") + 1]
    assert json.loads(sources) == {"interleaved": {"aligned_share": 0.01}}
    curve = by_name["mfcc/en_fr-1987-curve"]
    assert curve.training(tmp_path) == by_name["mfcc/en_fr-1987"].training(
        tmp_path
    )
    small = {job.name: job for job in jobs_of(seeds=1, scale=0.01)}
    told = small["mfcc/en_fr-large-x2-1986"].training(tmp_path)
    assert told[told.index("--thousand_steps") + 1] == "328"
    assert small["mfcc/en_fr-1986"].steps == (1, 2, 3, 4, 6, 9, 11)


def test_the_full_grammar_has_models_of_its_sizes(tmp_path):
    path = mini_jobs.FULL_GRAMMAR
    jobs = jobs_of(path, seeds=1)
    assert {job.units for job in jobs} == {"full_grammar"}
    assert [job.budget for job in jobs] == [10, 20, 40] * 6
    for job in jobs:
        parse_arguments(job.training(tmp_path)[1:])
        lm = job.options["lm"] | {"vocabulary_size": 4000}
        with torch.device("meta"):
            fragment = load_yaml(ROOT / "hparams/lm/qwen2_mini.yaml", lm)
        wanted = 1e6 * int(job.run.split("-")[1].removesuffix("M"))
        assert fragment["model"].num_parameters() == pytest.approx(
            wanted, rel=0.1
        )
    (command, _), *_ = reproduce_mini.corpus_commands(
        mini_jobs.read_experiment(path), tmp_path, "scaling", ["full_grammar"]
    )
    assert command[-1] == "--new_speakers=[]"


def test_jobs_are_chosen_by_kind_and_name():
    jobs = jobs_of(seeds=1)
    found = reproduce_mini.chosen(jobs, "baseline", ["mfcc/*"])
    assert {job.kind for job in found} == {"main", "baseline"}
    assert {job.units for job in found} == {"mfcc"}
    with pytest.raises(ValueError, match="names 'mfcc/none', which is no job"):
        reproduce_mini.chosen(jobs, "scaling", ["mfcc/none"])


def test_a_rehearsal_writes_over_nothing(tmp_path):
    for path in (mini_jobs.EXPERIMENT, mini_jobs.FULL_GRAMMAR):
        found, told = reproduce_mini.parse(["--experiment", str(path)])
        assert found.folder == Path(told["folder"]).absolute()
    assert told["folder"] == "results/full_grammar"
    told = ["--folder", str(tmp_path)]
    for scale, results in (
        ("1", ROOT / "recipes/TinyStories/results"),
        ("0.01", tmp_path / "results"),
    ):
        found, _ = reproduce_mini.parse([*told, "--scale", scale])
        assert found.results == results


def python(text):
    return [sys.executable, "-c", text]


def test_a_job_that_fails_stops_no_other(tmp_path, capsys):
    jobs = [
        mini_jobs.Job("mfcc", run, 1, kind, "en", tokens=2.0)
        for run, kind in (("a", "main"), ("b", "main"), ("a", "curve"))
    ]
    # A baseline trains on nothing, and ends first.
    jobs.insert(0, mini_jobs.Job("mfcc", "bag", 0, "baseline", ""))
    path = tmp_path / "order"
    write = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
    commands = [
        [python("0")],
        [[*python(write), str(path), "1"], [*python(write), str(path), "2"]],
        [python("print('a reason'); raise SystemExit(3)"), python("0")],
        [[*python(write), str(path), "3"]],
    ]
    pool = reproduce_mini.Pool(4, tmp_path / "logs")
    pool.run(dict(zip(jobs, commands, strict=True)))
    assert pool.failed == ["mfcc/b-1"]
    # A curve comes after the model that it is of.
    assert path.read_text() == "123"
    told = capsys.readouterr().out
    assert "[4 of 4] mfcc/a-1-curve: " in told
    assert "mfcc/b-1: failed; the last lines of" in told
    assert "    a reason" in told


def test_commands_are_printed_alone(folder, tmp_path, capsys):
    told = ["--folder", str(folder), "--only", "mfcc/en_fr-1986", "--print"]
    reproduce_mini.main(told)
    lines = capsys.readouterr().out.splitlines()
    # The corpus, its units, those of natural items; training, evaluation.
    assert [one[0] for one in lines] == [*"++++#++"]
    assert not (folder / "logs").exists()


@pytest.mark.long
def test_a_job_is_stopped_and_goes_on(folder, tmp_path):
    name, results = "mfcc/en_fr-1986", tmp_path / "results"
    command = [*SCRIPT, "--folder", folder, "--results", results]
    command += ["--scale", SCALE, "--seeds", 1, "--device", "cpu"]
    command = [*map(str, command), "--only", name]
    trained = folder / "LM/mfcc/en_fr/1986"
    process = start(command)
    wait_until((trained / "log.txt").exists, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    log = (folder / "logs/mfcc/en_fr-1986.log").read_text()
    assert "stopped by" in log
    assert not (results / f"{name}.json").exists()
    code, told = run(command)
    assert code == 0, told
    assert f"[1 of 1] {name}: " in told
    jobs = {job.name: job for job in jobs_of(seeds=1, scale=SCALE)}
    for other in ("mfcc/en_fr-1986-curve", "mfcc/bag-0", "mfcc/unigram-0"):
        mini_results.evaluate(jobs[other], folder, results, "cpu")
        assert reproduce_mini.is_done(jobs[other], folder, results)
    assert reproduce_mini.is_done(jobs[name], folder, results)
    check_results(
        Results(results, {}), json.loads((trained / "run.json").read_text())
    )
    # Other units, hence other results.
    shutil.rmtree(folder / "units/mfcc/train")
    write_store(folder / "units/mfcc/train", seed=3)
    assert not reproduce_mini.is_done(jobs[name], folder, results)


def check_results(results, run):
    (model,) = results.models("mfcc", "en_fr")
    assert model["tokens_by_language"]["en"] == run["tokens"]["en"]
    assert results.steps("mfcc", "en_fr") == [1, 2, 3, 4, 5]
    (point,) = results.models("mfcc", "en_fr", 3)
    assert point["tokens"] == sum(run["snapshots"]["3"].values())
    assert {one["metric"] for one in point["cloze"]} == {"sSC", "sTC"}
    metrics = {one["metric"] for one in model["cloze"]}
    assert metrics == {"sSC", "sTC", "sSC-natural", "sTC-natural"}
    assert {one["pooling"] for one in model["alignment"]} == {"mean", "last"}
    for run_, scoring in (("en_fr", "normalised"), ("bag", "cosine")):
        # Refused by its reader if credits and accuracies disagree.
        cell = results.cell("mfcc", run_, "sTC", "cross_lingual", scoring)
        assert cell.n == len(cell.credits) == 10
    assert results.runs("mfcc", "baseline") == ["bag", "unigram"]
