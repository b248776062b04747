r"""Run the mini experiment: trainings, controls, curves, and their scores.

python tools/reproduce_mini.py --seeds 1 --scale 0.01 --only mfcc/en_fr-1986 \
    --folder results/rehearsal

What is run stands in reproduce_mini.yaml beside this file, or in the file of
--experiment: first the corpus and its units, then jobs, several at a time,
each a training and what is found of its model. A job leaves small results, one
file a model; it is passed over where these stand and are of the same request.
What was stopped goes on where it was. A job that fails is named, and the
others go on.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from mini_jobs import EXPERIMENT, ROOT, Job, lay_out, read_experiment
from mini_pool import Pool, with_me

from speechbrain_slm.utils.atomic import read_json
from speechbrain_slm.utils.numbers import check_choice, check_number
from speechbrain_slm.utils.running import begin_process, script_parser

RESULTS = ROOT / "recipes/TinyStories/results"
KINDS = ("main", "baseline", "control", "curve", "scaling")


def corpus_commands(
    experiment: dict, root: Path, until: str, units: Sequence[str]
) -> list[tuple[list[str], list[Path]]]:
    """List (command, what it makes) of the corpus and of some sets of units."""
    found = []
    for stage, told in experiment["corpus"].items():
        for name in units if "{set}" in told["command"] else units[:1]:
            marks = {"{set}": name, "{yaml}": experiment["units"][name]}
            marks["{folder}"] = str(root)
            words = told["command"].split()
            words += experiment["corpus_options"].get(stage, [])
            words = [_filled(word, marks) for word in words]
            made = [Path(_filled(text, marks)) for text in told["makes"]]
            found.append((words, made))
        if stage == until:
            break
    return found


def _filled(text: str, marks: dict[str, str]) -> str:
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text


def chosen(jobs: Sequence[Job], until: str, only: Sequence[str]) -> list[Job]:
    """Choose jobs by their kind, and by their names or patterns of these."""
    number = KINDS.index(until) + 1 if until in KINDS else len(KINDS)
    left = [job for job in jobs if job.kind in KINDS[:number]]
    if not only:
        return left
    for pattern in only:
        if not any(fnmatchcase(job.name, pattern) for job in left):
            raise ValueError(
                f"--only names '{pattern}', which is no job; expected names "
                f"or patterns of names, such as '{left[0].name}'"
            )
    return [j for j in left if any(fnmatchcase(j.name, one) for one in only)]


def is_done(job: Job, root: Path, results: Path) -> bool:
    """Tell whether the small results of a job stand, and are of its request."""
    paths = [results / name for _, name in job.results]
    if not all(path.is_file() for path in paths):
        return False
    with suppress(ValueError, AttributeError):
        wanted = job.request(root)
        return all(read_json(path).get("request") == wanted for path in paths)
    return False


def evaluate_here(arguments: argparse.Namespace, job: Job) -> None:
    """Evaluate a trained model in this process; what the pool starts."""
    # These import torch: some seconds.
    from mini_results import evaluate

    from speechbrain_slm.utils.config import check_device

    device = arguments.device or default_device()
    check_device(device)
    evaluate(job, arguments.folder, arguments.results, device)


def default_device() -> str:
    """Return the device that the recipes would take."""
    from speechbrain.utils.distributed import infer_device

    return str(infer_device())


def commands_of(job: Job, arguments: argparse.Namespace) -> list[list[str]]:
    """Return the commands of a job: its training, and its evaluation."""
    device = ["--device", arguments.device] if arguments.device else []
    training = job.training(arguments.folder)
    own = [str(Path(__file__)), "--evaluate", job.name, *device]
    for name in ("experiment", "folder", "results", "scale", "seeds"):
        own += [f"--{name}", str(getattr(arguments, name))]
    commands = [[sys.executable, *own]]
    if training:
        training = [sys.executable, *training, "--noprogressbar", *device]
        commands.insert(0, training)
    return commands


def parse(arguments: list[str]) -> tuple[argparse.Namespace, dict]:
    """Read the command line, and the experiment that it names."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--experiment", type=Path, default=EXPERIMENT, help="what is run")
    add("--folder", help="where all is made (as the experiment says)")
    add(
        "--results",
        help="where small results go (the repository's; with a --scale other "
        "than 1, <folder>/results)",
    )
    add("--seeds", type=int, help="of each training (as the experiment says)")
    add("--scale", type=float, default=1.0, help="share of each run's tokens")
    add("--jobs", type=int, default=os.cpu_count(), help="at a time")
    add("--device", choices=("cpu", "cuda"), help="that of the recipes")
    add("--until", default=KINDS[-1], help="the last stage or kind of jobs")
    add(
        "--only", nargs="+", default=[], metavar="NAME", help="jobs, as printed"
    )
    add("--print", action="store_true", help="print the commands alone")
    add("--evaluate", metavar="NAME", help="evaluate one job's model, here")
    found = parser.parse_args(arguments)
    found.experiment = found.experiment.absolute()
    experiment = read_experiment(found.experiment)
    if found.seeds is None:
        found.seeds = experiment["seeds"]
    check_choice("--until", found.until, (*experiment["corpus"], *KINDS))
    check_number("--seeds", found.seeds, at_least=1)
    check_number("--jobs", found.jobs, at_least=1)
    check_number("--scale", found.scale, above=0)
    found.folder = Path(found.folder or experiment["folder"]).absolute()
    # What is kept is of whole runs: a rehearsal does not write over it.
    kept = RESULTS if found.scale == 1 else found.folder / "results"
    found.results = Path(found.results or kept).absolute()
    return found, experiment


def make_corpus(stages, show: bool) -> None:
    """Make what is missing of the corpus and its units, one by one."""
    for command, made in stages:
        words = [sys.executable, *command]
        if show:
            print(f"+ {shlex.join(words)}")
        elif not all(path.is_file() for path in made):
            print(f"\n+ {shlex.join(words)}", flush=True)
            done = subprocess.run(with_me(words), cwd=ROOT)
            if done.returncode:
                raise RuntimeError(
                    f"{command[0]} has failed with status {done.returncode}; "
                    "see above, and run the same command again"
                )


def main(arguments: list[str]) -> None:
    """Make the corpus, then run the jobs that are left."""
    found, experiment = parse(arguments)
    jobs = lay_out(experiment, found.seeds, found.scale)
    if found.evaluate:
        named = {job.name: job for job in jobs}
        check_choice("--evaluate", found.evaluate, named)
        evaluate_here(found, named[found.evaluate])
        return
    jobs = chosen(jobs, found.until, found.only)
    units = list(dict.fromkeys(job.units for job in jobs))
    stages = corpus_commands(experiment, found.folder, found.until, units)
    if not found.print:
        # All cores are shared among processes of one thread each.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    make_corpus(stages, found.print)
    if found.until not in KINDS:
        return
    if found.print:
        for job in jobs:
            print(f"# {job.name}")
            for command in commands_of(job, found):
                print(f"+ {shlex.join(command)}")
        return
    left = [j for j in jobs if not is_done(j, found.folder, found.results)]
    print(f"{len(jobs) - len(left)} of {len(jobs)} jobs are done", flush=True)
    pool = Pool(found.jobs, found.folder / "logs")
    pool.run({job: commands_of(job, found) for job in left})
    if pool.failed:
        raise RuntimeError(
            f"{len(pool.failed)} of {len(left)} jobs have failed: "
            f"{', '.join(pool.failed)}. Run the same command again"
        )


if __name__ == "__main__":
    begin_process()
    main(sys.argv[1:])
