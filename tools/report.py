"""Collect the scores and losses of models into results.json and report.html.

python tools/report.py \
    --runs en_fr=DIR/LM/en_fr:DIR/cloze/en_fr \
           interleaved_ft=DIR/LM/interleaved_ft:DIR/cloze/interleaved_ft \
    --manifest DIR/synthesis/cloze.parquet --output_folder DIR

A run is NAME=LM_FOLDER:CLOZE_FOLDER. The table goes to the standard output as
Markdown, too. The page also shows what else there is of these runs:

    --alignment NAME=FOLDER ... --continuation NAME=FOLDER ...
    --units STORE [MANIFEST] --vocoder FOLDER
"""

from argparse import Namespace
from pathlib import Path

from report_audio import Story, spoken_stories
from report_figures import Chart, alignment_charts, loss_charts, strip_of
from report_page import how_made, render
from report_runs import (
    Model,
    check_comparable,
    markdown,
    read_model,
    table_rows,
)

from speechbrain_slm.evaluation.alignment import report as alignment
from speechbrain_slm.utils.atomic import write_atomic, write_json
from speechbrain_slm.utils.running import run_script, script_parser
from speechbrain_slm.utils.schema import COUNT, NUMBER, TEXT, read_shaped

POOLING = "last"  # of alignment; that of the recipe's README
# In their order.
STAGES = ("speech", "units", "vocoder", "LM", "cloze", "alignment")
STAGES += ("continuation",)
INSPECTED = 1000  # stories in a language that units are judged by
# Word error rates of a vocoder, as its recipe writes them.
_SPOKEN = {
    **dict.fromkeys(("kind", "language", "speaker"), TEXT),
    **dict.fromkeys(("utterances", "words"), COUNT),
    **dict.fromkeys(("original", "resynthesized"), NUMBER),
}


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
    told = named(options.continuation, names, "--continuation")
    for name, folder in told.items():
        folders[f"continuation {name}"] = folder
    units, stories, continued = None, [], None
    # Not above: they bring torch and scikit-learn along.
    if told:
        from report_continued import Continued

        continued = Continued(names, told)
    if options.units:
        from speechbrain_slm.units.inspection import inspect_store

        units = inspect_store(*options.units, num_stories=INSPECTED)
        folders["units"] = Path(options.units[0]).parent
    understood = []
    if options.vocoder:
        folders["vocoder"] = options.vocoder
        # Where a recogniser has listened.
        if (path := options.vocoder / "results.json").is_file():
            understood = read_shaped(path, {"results": [_SPOKEN]})["results"]
    if options.manifest:
        wanted = continued.stories() if continued else ()
        stories = spoken_stories(options.manifest, options.stories, wanted)
        for story in stories:
            show(story, continued.rows(story) if continued else {})
        folders["speech"] = Path(options.manifest).parent
    order = sorted(folders, key=lambda name: STAGES.index(name.split()[0]))
    made, environments = how_made({name: folders[name] for name in order})
    return {
        "names": names,
        "models": models,
        "languages": list(dict.fromkeys(n for m in models for n in m.tokens)),
        "scoring": models[0].results["scoring"],
        "rows": rows,
        "strip": strip_of([r for *_, found in rows for r in found.values()]),
        "losses": losses(models, preference=False),
        "preference": losses(models, preference=True),
        "alignment": alignment_content(names, aligned),
        "units": units,
        "understood": understood,
        "stories": stories,
        "measures": continued.measures() if continued else [],
        "made": made,
        "environments": environments,
        "identities": identities(models),
    }


def losses(models: list[Model], preference: bool) -> list[Chart]:
    """Draw the losses of the runs of one kind."""
    return loss_charts(
        {
            place: (model.name, model.log)
            for place, model in enumerate(models)
            if model.preference == preference
        }
    )


def show(story: Story, continued: dict) -> None:
    """Choose what is shown of a story, and what is folded."""
    parts = story.parts()
    if continued:
        # Prompt and ending stand beside the continuations.
        folded = {k: parts[k] for k in parts if k.startswith("Wrong")}
        story.clips, story.folded = continued, folded
    else:
        story.clips = parts


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
        *(
            (f"model {model.name}, {what}", model.results[key])
            for model in models
            # Results of an earlier version name the weights alone.
            for what, key in (("weights", "model"), ("configuration",) * 2)
            if key in model.results
        ),
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
    parser.add_argument("--vocoder", type=Path, help="its recipe's folder")
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
