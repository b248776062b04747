"""Collect the scores and losses of models into results.json and report.html.

python tools/report.py \
    --runs en_fr=DIR/LM/en_fr:DIR/cloze/en_fr \
           interleaved_ft=DIR/LM/interleaved_ft:DIR/cloze/interleaved_ft \
    --manifest DIR/synthesis/cloze.parquet --output_folder DIR

A run is NAME=LM_FOLDER:CLOZE_FOLDER. The table goes to the standard output as
Markdown, too. The page also shows what else there is of these runs:

    --alignment NAME=FOLDER ... --continuation NAME=FOLDER ...
    --units STORE [MANIFEST]
"""

import json
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from report_audio import spoken_stories
from report_figures import alignment_charts, loss_charts, strip_of
from report_page import how_made, render

from speechbrain_slm.evaluation.alignment import report as alignment
from speechbrain_slm.evaluation.cloze.results import COMPARABLE, read_info
from speechbrain_slm.units.inspection import inspect_store
from speechbrain_slm.utils import schema
from speechbrain_slm.utils.atomic import write_atomic, write_json
from speechbrain_slm.utils.hashing import difference
from speechbrain_slm.utils.running import run_script, script_parser
from speechbrain_slm.utils.schema import NUMBER, whole
from speechbrain_slm.utils.tables import markdown_row

# Tokens that belong to no language.
NO_UNITS = ("boundary", "tag", "padding")
POOLING = "last"  # of alignment; that of the recipe's README
INSPECTED = 1000  # stories in a language that units are judged by


@dataclass(frozen=True)
class Model:
    """One trained and evaluated model: a column of the table."""

    name: str
    log: list[dict]  # of train_log.jsonl
    training: dict  # of run.json
    results: dict  # of results.json
    folders: dict[str, Path]  # of stages

    @property
    def tokens(self) -> dict[str, int]:
        """Units seen in training, by language."""
        counts = self.training["tokens"]
        return {name: counts[name] for name in counts if name not in NO_UNITS}

    def records(self, kind: str = "records") -> dict[tuple[str, str], dict]:
        """Return (metric, direction) -> record under the main convention."""
        return {
            (record["metric"], record["direction"]): record
            for record in self.results.get(kind, ())
            if record["scoring"] == self.results["scoring"]
        }


# What can be drawn.
_STEP = whole(0, 10**12)
_LOSS = schema.Kind(
    "a number from -1e9 to 1e9", lambda x: NUMBER.holds(x) and abs(x) <= 1e9
)
_LINE = {"step": _STEP, "loss?": _LOSS, "valid?": {str: _LOSS}}
_TRAINING = {
    "tokens": {str: whole(0, 10**18)},
    "steps": _STEP,
    "parameters": whole(0, 10**15),
    "seconds": NUMBER,
    "seconds_from_step?": _STEP,
}


def read_log(path: Path) -> list[dict]:
    """Read a training log, each line checked."""
    entries = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: expected a JSON object, found "
                f"{line[:40]!r} ({error})"
            ) from None
        schema.check_shape(entries[-1], _LINE, f"{path}, line {number}")
    return entries


def read_model(argument: str) -> Model:
    """Read what the folders of ``NAME=LM_FOLDER:CLOZE_FOLDER`` say."""
    name, _, folders = argument.partition("=")
    lm_folder, _, cloze_folder = folders.partition(":")
    if not (name and lm_folder and cloze_folder) or ":" in cloze_folder:
        raise ValueError(
            f"--runs {argument!r}: expected NAME=LM_FOLDER:CLOZE_FOLDER"
        )
    results = read_info(cloze_folder)
    log, run = (Path(lm_folder) / f for f in ("train_log.jsonl", "run.json"))
    for path in (log, run):
        if not path.is_file():
            raise ValueError(
                f"{path} does not exist; run the LM recipe to the end first"
            )
    training = schema.read_shaped(run, _TRAINING)
    folders = {"LM": Path(lm_folder), "cloze": Path(cloze_folder)}
    model = Model(name, read_log(log), training, results, folders)
    if not model.records():
        raise ValueError(
            f"{cloze_folder} has no record of the scoring "
            f"'{results['scoring']}' of its results.json; evaluate again"
        )
    return model


def check_comparable(models: list[Model]) -> None:
    """Refuse models that were not scored alike."""
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f"--runs: a name stands twice in {', '.join(names)}")
    expected, *found = (
        {key: model.results[key] for key in COMPARABLE} for model in models
    )
    for name, other in zip(names[1:], found, strict=True):
        lines = difference(expected, other)
        if lines:
            raise ValueError(
                f"runs '{names[0]}' and '{name}' were not scored alike "
                f"({'; '.join(lines)}); evaluate both on the same units and "
                "items"
            )


def table_rows(models: list[Model]) -> list[tuple[str, str, dict]]:
    """Order the rows: (metric, direction, {name: record}), the mean last."""
    rows: dict[tuple, dict] = {}
    for model in models:
        for kind in ("records", "cross_lingual"):
            for key, record in model.records(kind).items():
                rows.setdefault(key, {})[model.name] = record
    # Stable: within a metric, directions stay in their order.
    place = list(dict.fromkeys(metric for metric, _ in rows)).index
    return [
        (metric, direction.replace("cross_lingual", "cross-lingual"), found)
        for (metric, direction), found in sorted(
            rows.items(), key=lambda row: place(row[0][0])
        )
    ]


def markdown(models: list[Model]) -> str:
    """Lay out accuracies and intervals, in percent."""
    names = [model.name for model in models]
    lines = [
        markdown_row(["metric", "direction", "n", *names]),
        f"| --- | --- | ---: |{' --- |' * len(names)}",
    ]
    for metric, direction, found in table_rows(models):
        cell = "{accuracy:.1f} [{ci_low:.1f}, {ci_high:.1f}]".format_map
        cells = [cell(found[name]) if name in found else "" for name in names]
        n = str(next(iter(found.values()))["n"])
        lines.append(markdown_row([metric, direction, n, *cells]))
    return "\n".join(lines)


def named(arguments: list[str], names: list[str], option: str) -> dict:
    """Read ``NAME=FOLDER`` of runs, in the order of the runs."""
    found = {}
    for argument in arguments:
        name, _, folder = argument.partition("=")
        if name not in names or not folder:
            raise ValueError(
                f"{option} {argument!r}: expected NAME=FOLDER, with a name of "
                f"--runs: {', '.join(names)}"
            )
        if name in found:
            raise ValueError(f"{option}: '{name}' stands twice")
        found[name] = Path(folder)
    return {name: found[name] for name in names if name in found}


def page_content(models: list[Model], options: Namespace) -> dict:
    """Gather what the page shows."""
    names = [model.name for model in models]
    rows = table_rows(models)
    folders = {
        f"{stage} {model.name}": folder
        for model in models
        for stage, folder in model.folders.items()
    }
    aligned = named(options.alignment, names, "--alignment")
    for name, folder in aligned.items():
        folders[f"alignment {name}"] = folder
    units, stories = None, []
    if options.units:
        units = inspect_store(*options.units, num_stories=INSPECTED)
        folders["units"] = Path(options.units[0]).parent
    if options.manifest:
        stories = spoken_stories(options.manifest, options.stories)
        folders["speech"] = Path(options.manifest).parent
    made, environments = how_made(folders)
    return {
        "names": names,
        "models": models,
        "languages": list(dict.fromkeys(n for m in models for n in m.tokens)),
        "scoring": models[0].results["scoring"],
        "rows": rows,
        "strip": strip_of([r for *_, found in rows for r in found.values()]),
        "losses": loss_charts(names, [model.log for model in models]),
        "alignment": alignment_content(names, aligned),
        "units": units,
        "stories": stories,
        "made": made,
        "environments": environments,
        "identities": identities(models),
    }


def alignment_content(names: list[str], folders: dict[str, Path]) -> list[dict]:
    """Lay out alignment: charts and records of each pair of languages."""
    runs = {n: alignment.read_alignment(f) for n, f in folders.items()}
    if not runs:
        return []
    alignment.check_comparable(runs)
    first = next(iter(runs.values()))
    poolings = [record["pooling"] for record in first["records"]]
    pooling = POOLING if POOLING in poolings else poolings[0]
    found = []
    for summary in first["languages"]:
        chosen = {
            name: [
                record
                for record in alignment.select(run, summary["languages"])
                if record["pooling"] == pooling
            ]
            for name, run in runs.items()
        }
        charts = alignment_charts(
            {names.index(n): (n, chosen[n]) for n in chosen}
        )
        told = alignment.pairs_line(summary, first["level"])
        found.append(
            {
                "pair": " and ".join(summary["languages"]),
                **{"told": told, "pooling": pooling, "charts": charts},
                "gallery": first["gallery"],
                "records": [(n, r) for n in chosen for r in chosen[n]],
            }
        )
    return found


def identities(models: list[Model]) -> list[tuple[str, str]]:
    """Name the inputs by their hashes."""
    shared = models[0].results
    return [
        *((f"model {model.name}", model.results["model"]) for model in models),
        *((key, shared[key]) for key in ("tokenizer", "units", "items")),
    ]


def main(arguments: list[str]) -> None:
    """Write both files and print the table."""
    parser = script_parser(__doc__)
    parser.add_argument("--runs", nargs="+", required=True)
    for name in ("alignment", "continuation"):
        parser.add_argument(
            f"--{name}", nargs="+", default=[], metavar="NAME=FOLDER"
        )
    parser.add_argument("--units", nargs="+", help="unit store to look into")
    parser.add_argument("--manifest", help="spoken manifest to listen to")
    parser.add_argument("--stories", type=int, default=2, help="to listen to")
    parser.add_argument("--output_folder", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.units and len(options.units) > 2:
        raise ValueError("--units: expected STORE or STORE MANIFEST")
    models = [read_model(argument) for argument in options.runs]
    check_comparable(models)
    content = page_content(models, options)
    records = [
        {"run": model.name, **record, "tokens": model.tokens}
        for model in models
        for record in model.records().values()
    ]
    # The page first: where there is a results.json, there is a report.
    page = options.output_folder / "report.html"
    write_atomic(page, render(**content))
    write_json(options.output_folder / "results.json", records)
    print(markdown(models))
    print(f"\nReport: {page}")


if __name__ == "__main__":
    run_script(main)
