"""The jobs of the mini experiment, laid out from its YAML file.

A job is a trained model and all that is found of it. Its name is where its
small result stands: ``mfcc/en_fr-1986`` is ``results/mfcc/en_fr-1986.json``.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ruamel.yaml
from budget import nominal_budget, read_runs

from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.numbers import check_choice

ROOT = Path(__file__).parents[1]
EXPERIMENT = Path(__file__).with_name("reproduce_mini.yaml")
# With a GPU: sizes and budgets of a larger corpus.
FULL_GRAMMAR = Path(__file__).with_name("reproduce_full_grammar.yaml")
LM = ROOT / "recipes/TinyStories/LM"
LM_YAML = LM / "hparams/mini.yaml"
SPLITS = ("train", "valid", "cloze")
THOUSAND_STEPS = 16384  # tokens in place of 1,000 steps, in the YAML file


@dataclass(frozen=True, eq=False)
class Job:
    """A model to train and to evaluate, or the snapshots of one.

    Arguments
    ---------
    units : The name of the set of units.
    run, seed : What small results call it.
    stages : The run of the LM recipe whose stages it has; of a baseline, none.
    options : Of the LM recipe, beside run, seed and folders.
    steps : Of snapshots: kept in training, scored by the job of a curve.
    budget : Share of the tokens that the LM recipe's run has.
    tokens : What is trained on; tells how long the rest will take.
    """

    units: str
    run: str
    seed: int
    kind: str
    stages: str
    options: dict[str, Any] = field(default_factory=dict)
    steps: tuple[int, ...] = ()
    budget: float = 1.0
    tokens: float = 0.0

    @property
    def model(self) -> str:
        """Name the model; a curve's is that of another job, too."""
        return f"{self.units}/{self.run}-{self.seed}"

    @property
    def name(self) -> str:
        """Name the job."""
        return f"{self.model}-curve" if self.kind == "curve" else self.model

    @property
    def results(self) -> list[tuple[int | None, str]]:
        """List what is evaluated, (step, file of the small result)."""
        if self.kind != "curve":
            return [(None, f"{self.model}.json")]
        return [(step, f"{self.model}-{step}.json") for step in self.steps]

    def folder(self, stage: Path) -> Path:
        """Return where what a recipe makes of the model stands."""
        return stage / self.units / self.run / str(self.seed)

    def training(self, root: Path) -> list[str]:
        """Return the command of the LM recipe, without Python."""
        if not self.stages:
            return []
        values = {
            "run": self.stages,
            "seed": self.seed,
            "units_folder": str(root / "units" / self.units),
            "output_folder": str(self.folder(root / "LM")),
            **self.options,
        }
        if self.steps:
            values["snapshot_steps"] = [*self.steps]
        words = [str(LM / "train.py"), str(LM_YAML)]
        for key, value in values.items():
            plain = isinstance(value, str)
            words += [f"--{key}", value if plain else json.dumps(value)]
        return words

    def request(self, root: Path) -> str:
        """Name all that decides the results; others are made anew."""
        units, natural = root / "units" / self.units, root / "natural"
        stores = [units / split for split in SPLITS]
        stores.append(natural / "units" / self.units / "cloze")
        identities = [
            json.loads((store / "store.json").read_text("utf-8"))["identity"]
            for store in stores
        ]
        items = [root / "synthesis", natural]
        return identity_of(
            {
                "training": self.training(Path("folder"))[2:],
                "stores": identities,
                "items": [sha256_file(one / "items.parquet") for one in items],
                "kind": self.kind,
                "run": self.run,
            }
        )


def read_experiment(path: Path = EXPERIMENT) -> dict:
    """Read a YAML file that says what is run.

    One that is ``like`` another has in place of it what stands in itself.
    """
    read = ruamel.yaml.YAML(typ="safe").load
    found = read(path.read_text("utf-8"))
    if "like" in found:
        found = read_experiment(path.with_name(found.pop("like"))) | found
    return found | {"file": str(path)}


def lay_out(
    experiment: dict, seeds: int | None = None, scale: float = 1.0
) -> list[Job]:
    """List all jobs, the most valuable first.

    Arguments
    ---------
    seeds : How many of each; None: as the YAML file says.
    scale : Share of the tokens of each run.
    """
    file, first = experiment["file"], experiment["first_seed"]
    numbers = range(first, first + (seeds or experiment["seeds"]))
    makers = {
        "main": _main,
        "baseline": _baselines,
        "control": _controls,
        "curve": _curves,
        "scaling": _scaling,
    }
    followed = experiment["curves"]["runs"]
    steps = _scaled_steps(experiment["curves"]["steps"], scale)
    budgets = {
        settings["run"]: nominal_budget(LM_YAML, settings)["tokens"]
        for settings in read_runs(LM_YAML)
    }
    jobs = []
    for line in experiment["order"]:
        kind, units = line.split()
        check_choice(f"{file}: order", kind, makers)
        check_choice(f"{file}: order", units, experiment["units"])
        # What counts alone is the same for every seed.
        several = numbers if kind != "baseline" else range(1)
        for seed, job in itertools.product(several, makers[kind](experiment)):
            budget = scale * job.budget
            options = {
                **experiment["training"],
                **experiment["training_on"].get(units, {}),
                **job.options,
            }
            if budget != 1:
                options["thousand_steps"] = round(budget * THOUSAND_STEPS)
            share = 0.5 if kind == "curve" else 1  # the model is there already
            facts = {"units": units, "seed": seed, "options": options}
            facts["steps"] = steps if job.run in followed else ()
            facts["tokens"] = share * budget * budgets.get(job.stages, 0)
            jobs.append(replace(job, **facts))
    return jobs


def _scaled_steps(steps, scale):
    return tuple(sorted({max(1, int(step * scale)) for step in steps}))


def _job(kind, run, stages, **options):
    return Job("", run, 0, kind, stages, options)


def _main(experiment) -> Iterator[Job]:
    for run in experiment["main"]:
        yield _job("main", run, run)


def _baselines(experiment) -> Iterator[Job]:
    for kind in experiment["baselines"]:
        yield _job("baseline", kind, "")


def _controls(experiment) -> Iterator[Job]:
    for name, told in experiment["controls"].items():
        sources = {"interleaved": told["source"]}
        yield _job("control", name, told["run"], sources=sources)


def _curves(experiment) -> Iterator[Job]:
    known = {
        job.run: job for job in (*_main(experiment), *_controls(experiment))
    }
    for run in experiment["curves"]["runs"]:
        check_choice(f"{experiment['file']}: curves", run, known)
        yield replace(known[run], kind="curve")


def _scaling(experiment) -> Iterator[Job]:
    told = experiment["scaling"]
    for run, (size, lm), budget in itertools.product(
        told["runs"], told["sizes"].items(), told["budgets"]
    ):
        if lm or budget != 1:  # else it is a main run
            name = f"{run}-{size}-x{budget:g}"
            job = _job("scaling", name, run, **({"lm": lm} if lm else {}))
            yield replace(job, budget=budget)
