"""Put evaluated runs into one table and test their differences.

python tools/compare.py en_fr=results/mini/cloze/en_fr \
    interleaved=results/mini/cloze/interleaved --baseline en_fr

A run is NAME=DIR, where DIR is the output folder of a cloze recipe
(results.json and scores.parquet). NAME=DIR,DIR,... are models that differ in
their seed; NAME=DIR+DIR joins the results of one model on different
benchmarks. Runs that were not scored alike, on the same units and items, are
refused. Markdown and LaTeX hold the table, the differences and, for runs of
several seeds, mean and deviation; CSV holds all numbers, a line each.
--scoring all lays out every convention of every run, a row each, and tests
nothing: baselines that have no likelihoods may stand beside models.
"""

import csv
import io
from pathlib import Path

from speechbrain_slm.evaluation.cloze.accuracy import CHANCE, CROSS_LINGUAL
from speechbrain_slm.evaluation.cloze.comparison import (
    ALL,
    compare,
    compare_conventions,
    read_run,
)
from speechbrain_slm.evaluation.cloze.results import CONVENTION
from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.running import run_script, script_parser
from speechbrain_slm.utils.tables import markdown_row

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # In OT1, the default encoding, these two are other signs.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def _heading(record):
    """Name a column as the paper does: ``sSC EN>FR``."""
    direction = record["direction"].upper()
    if record["direction"] == CROSS_LINGUAL:
        direction = "cross-lingual"
    return f"{record['metric']} {direction}"


def _wide_table(records, cell, keys=("run",)):
    """Lay out a row a run (and scoring), a column a metric and direction."""
    columns = {_heading(record): record["n"] for record in records}
    rows = {}
    for record in records:
        row = rows.setdefault(tuple(record[key] for key in keys), {})
        row[_heading(record)] = cell(record)
    table = [[*keys, *columns]]
    for names, found in rows.items():
        table.append([*names, *(found.get(column, "-") for column in columns)])
    blank = [""] * (len(keys) - 1)
    return [*table, ["n", *blank, *map(str, columns.values())]]


def tables(accuracies, differences, scoring=None):
    """Lay out what ``compare`` found as (lines of text, rows of strings)."""
    note = (
        "Accuracy in % [95 % interval by Wilson's formula]; n items (groups, "
        f"where items form them), chance {CHANCE:.0f}."
    )
    cell = "{accuracy:.2f} [{ci_low:.1f}, {ci_high:.1f}]".format_map
    keys = ("run", "scoring") if scoring == ALL else ("run",)
    found = [([note], _wide_table(accuracies, cell, keys))]
    if differences:
        cells = {
            "run": "{run}",
            "on": "{on}",
            "n": "{n}",
            "difference": "{difference:+.2f}",
            "95 % interval": "[{bootstrap_low:+.1f}, {bootstrap_high:+.1f}]",
            "p": "{bootstrap_p:.2g}",
            "better:worse": "{better}:{worse}",
            "McNemar p": "{mcnemar_p:.2g}",
            "Holm p": "{holm_p:.2g}",
        }
        rows = [
            [cell.format(on=_heading(one), **one) for cell in cells.values()]
            for one in differences
        ]
        notes = [
            f"Differences to {differences[0]['baseline']} on the same items, "
            "in points. The interval and the first p are of a paired "
            "bootstrap; McNemar's test, exact and two-sided, counts the items "
            "that the one or the other does better.",
            f"{len(differences)} McNemar test(s) were made; Holm p is "
            "adjusted for that number.",
        ]
        found.append((notes, [list(cells), *rows]))
    several = [record for record in accuracies if record["seeds"] > 1]
    if several:
        seeds = {record["run"]: record["seeds"] for record in several}
        notes = [
            "Mean ± sample deviation over seeds. Elsewhere an item's credit "
            "is its mean over a run's seeds: intervals and tests are over "
            "items, for the models at hand.",
            *(f"{name}: {count} seeds." for name, count in seeds.items()),
        ]
        cell = "{accuracy:.2f} ± {deviation:.2f}".format_map
        found.append((notes, _wide_table(several, cell, keys)))
    return found


def _conventions(runs, accuracies):
    """Say how each benchmark was scored and what was truncated."""
    shown = {}
    for record in accuracies:
        names = shown.setdefault(record["metric"], [])
        names += {record["scoring"]} - {*names}
    lines = {}
    for run in runs:
        for number, seed in enumerate(run.seeds, start=1):
            for metric, results in seed.items():
                how = {**results.info, "scoring": "/".join(shown[metric])}
                how = ", ".join(f"{key} {how[key]}" for key in CONVENTION)
                lines.setdefault(metric, f"{metric}: {how}.")
                if results.info["truncated"]:
                    lines[run.name, number, results.folder] = (
                        f"{run.name}, seed {number}: "
                        f"{results.info['truncated']} items of "
                        f"{results.folder} were truncated."
                    )
    return list(lines.values())


def markdown(found, notes):
    """Write tables as Markdown, and notes at the end."""
    blocks = []
    for lines, (header, *rows) in found:
        ruler = ["---", *("---:" for _ in header[1:])]
        table = [markdown_row(row) for row in (header, ruler, *rows)]
        blocks.append("\n".join([*lines, "", *table]))
    return "\n\n".join([*blocks, "\n".join(f"- {note}" for note in notes)])


def latex(found, notes):
    """Write tables as LaTeX, a ``tabular`` each; needs no package."""
    blocks = []
    for lines, (header, *rows) in found:
        body = [
            " & ".join("".join(LATEX.get(s, s) for s in cell) for cell in row)
            + r" \\"
            for row in (header, *rows)
        ]
        blocks += [f"% {line}" for line in lines]
        blocks.append(rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}")
        blocks += [r"\hline", body[0], r"\hline", *body[1:], r"\hline"]
        blocks += [r"\end{tabular}", ""]
    return "\n".join([*blocks, *(f"% {note}" for note in notes)])


def comma_separated(accuracies, differences):
    """Write every number as CSV, a line a run, metric and direction."""
    lines = [{"table": "accuracy", **record} for record in accuracies]
    lines += [{"table": "difference", **record} for record in differences]
    columns = dict.fromkeys(name for line in lines for name in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().rstrip("\n")


def main(arguments):
    """Print the tables, or write them to a file."""
    parser = script_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=DIR")
    parser.add_argument("--baseline", help="a NAME; the first by default")
    how = f"a convention, or {ALL}; that of results.json by default"
    parser.add_argument("--scoring", help=how)
    parser.add_argument(
        "--format", choices=("markdown", "latex", "csv"), default="markdown"
    )
    parser.add_argument("--seed", type=int, default=1986, help="bootstrap's")
    parser.add_argument("--output", type=Path, help="a file to be written")
    options = parser.parse_args(arguments)
    runs = [read_run(argument) for argument in options.runs]
    if options.scoring == ALL:
        if options.baseline:
            parser.error(f"--scoring {ALL} tests nothing against a --baseline")
        accuracies = compare_conventions(runs, options.seed)
        differences = []
    else:
        how = options.baseline, options.scoring, options.seed
        accuracies, differences = compare(runs, *how)
    if options.format == "csv":
        text = comma_separated(accuracies, differences)
    else:
        write = {"markdown": markdown, "latex": latex}[options.format]
        notes = _conventions(runs, accuracies)
        text = write(tables(accuracies, differences, options.scoring), notes)
    if options.output:
        write_atomic(options.output, text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    run_script(main)
