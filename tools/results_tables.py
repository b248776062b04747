"""The tables of the page of results, in Markdown."""

import csv
from pathlib import Path
from statistics import fmean

from results_cells import (
    BASE,
    COLUMNS,
    COMPARED,
    DIRECTIONS,
    LOCAL,
    MAIN,
    METRICS,
    PAPER,
    SCORING,
    SETS,
    TUNED,
    by_set,
    common_seeds,
    difference_text,
    differences,
    heading,
    missing,
    shown,
    spread,
    table,
)
from results_files import MONOLINGUAL, Results, accuracy_record, deviation

from speechbrain_slm.evaluation.cloze.accuracy import CROSS_LINGUAL
from speechbrain_slm.evaluation.statistics import holm

_OTHERS = ("control", "baseline")  # kinds of runs
TOKENS = "M tokens"  # heads a column


def _rows(results, units, runs, columns, scoring=SCORING):
    """Make a row a run: its name, its seeds, its cells."""
    for run in runs:
        seeds = len(results.models(units, run))
        if seeds:
            own = results.scoring(units, run, scoring)
            cells = (results.cell(units, run, *c, own) for c in columns)
            texts = [shown(cell, seeds) for cell in cells]
            yield [f"`{run}`", str(seeds), *texts]


def _tokens(results, units, run):
    """Write how many tokens of each language a run is trained on."""
    found = [one["tokens_by_language"] for one in results.models(units, run)]
    means = {name: fmean(one[name] for one in found) for name in found[0]}
    return " + ".join(
        f"{n / 1e6:.2f} {name.upper()}" for name, n in means.items()
    )


def main_table(results: Results, paper: Path) -> str:
    """Draw the five runs, and the paper's beside them."""
    header = ["run", "seeds", *(heading(*column) for column in COLUMNS)]
    header.append(TOKENS)
    reported = list(_paper_rows(paper))

    def draw(units):
        rows = [
            [*row, _tokens(results, units, row[0].strip("`"))]
            for row in _rows(results, units, MAIN, COLUMNS)
        ]
        cells = [results.cell(units, BASE, *c, SCORING) for c in COLUMNS]
        groups = ["groups", "", *(str(c.n) if c else "-" for c in cells), "-"]
        drawn = table(header, [*rows, groups, *reported])
        return drawn + missing(results, units, "main")

    return by_set(results, draw)


def _paper_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            cells = [row.get(f"{m} {d}") for m, d in COLUMNS[:-2]]
            for metric in METRICS:
                both = [row[f"{metric} {d}"] for d in ("en>fr", "fr>en")]
                mean = f"{fmean(map(float, both)):.2f}" if all(both) else ""
                cells.append(mean)
            name = f"`{row['run']}`, {row['size']}, {PAPER}"
            yield [name, "", *(cell or "-" for cell in cells), "-"]


def difference_table(results: Results) -> str:
    """Draw what sets the interleaved runs apart."""
    found = [
        {"units": units, **one}
        for units in SETS
        for one in differences(results, units, BASE, COMPARED, COLUMNS)
    ]
    adjusted = holm([one["mcnemar_p"] for one in found]) if found else []
    header = ["run", "units", "on", "seeds", "groups"]
    header += [f"difference to `{BASE}`", "by seed"]
    header += ["better:worse", "sign test p", "Holm p", "disjoint intervals"]
    rows = [
        [
            *(f"`{one['run']}`", f"`{one['units']}`"),
            heading(one["metric"], one["direction"]),
            *(str(one["seeds"]), str(one["n"])),
            *(difference_text(one), _by_seed(results, one)),
            "{better}:{worse}".format_map(one),
            *(f"{one['mcnemar_p']:.2g}", f"{p:.2g}"),
            "yes" if one["apart"] else "no",
        ]
        for one, p in zip(found, adjusted, strict=True)
    ]
    return f"{len(found)} tests.\n\n{table(header, rows)}"


def _by_seed(results, one):
    """Write a difference's part of each seed."""
    units, run, scoring = one["units"], one["run"], one["scoring"]
    column = one["metric"], one["direction"]
    texts = []
    for seed in sorted(common_seeds(results, units, BASE, run)):
        cells = [
            results.cell(units, name, *column, scoring, seeds=frozenset([seed]))
            for name in (run, BASE)
        ]
        if all(cells):
            texts.append(f"{cells[0].accuracy - cells[1].accuracy:+.1f}")
    return ", ".join(texts)


def benchmark_table(results: Results) -> str:
    """Draw the benchmarks beside the main ones: plots, voices, natural."""

    def draw(units):
        metrics = {
            record["metric"]
            for run in results.runs(units)
            for record in results.models(units, run)[0]["cloze"]
        }
        header = ["benchmark", "run", "seeds", "groups"]
        header += [heading("", d).strip() for d in DIRECTIONS]
        rows = []
        further = sorted(metrics - set(METRICS))
        for metric in sorted(further, key=lambda m: m.split("-")[1:]):
            columns = [(metric, direction) for direction in DIRECTIONS]
            for run in (BASE, *COMPARED, LOCAL):
                own = results.scoring(units, run, SCORING)
                cell = results.cell(units, run, metric, CROSS_LINGUAL, own)
                if cell:
                    (row,) = _rows(results, units, [run], columns)
                    rows.append([metric, *row[:2], str(cell.n), *row[2:]])
        return table(header, rows)

    return by_set(results, draw)


def control_table(results: Results) -> str:
    """Draw controls and baselines, and their differences to two runs."""
    columns = [(metric, CROSS_LINGUAL) for metric in METRICS]
    header = ["run", "seeds", *(heading(*c) for c in columns)]
    header += [heading(metric, MONOLINGUAL) for metric in METRICS]
    bases = BASE, TUNED
    header += [f"{m}, less `{base}`" for base in bases for m in METRICS]
    header.append(TOKENS)

    def draw(units):
        names = [BASE, *COMPARED]
        for kind in _OTHERS:
            # In the experiment's order, and what else there is.
            names += results.expected.get((units, kind), [])
            names += results.runs(units, kind)
        names = [*dict.fromkeys(names)]
        own = [(metric, MONOLINGUAL) for metric in METRICS]
        texts = {}
        for base in bases:
            for one in differences(results, units, base, names, columns):
                key = one["run"], base, one["metric"]
                texts[key] = difference_text(one)
        rows = [
            row
            + [
                texts.get((row[0].strip("`"), base, metric), "-")
                for base in bases
                for metric in METRICS
            ]
            + [_tokens(results, units, row[0].strip("`"))]
            for row in _rows(results, units, names, [*columns, *own])
        ]
        gone = (missing(results, units, kind) for kind in _OTHERS)
        return table(header, rows) + "".join(gone)

    return by_set(results, draw)


def convention_table(results: Results) -> str:
    """Draw all conventions side by side, means over seeds."""
    header = ["run", "convention", *(heading(*column) for column in COLUMNS)]

    def draw(units):
        rows = []
        for run in (BASE, TUNED):
            models = results.models(units, run)[:1]
            for scoring in dict.fromkeys(
                record["scoring"] for m in models for record in m["cloze"]
            ):
                cells = [
                    results.cell(units, run, *column, scoring)
                    for column in COLUMNS
                ]
                texts = [
                    spread(cell.accuracy, cell.deviation) if cell else "-"
                    for cell in cells
                ]
                rows.append([f"`{run}`", f"`{scoring}`", *texts])
        return table(header, rows)

    return by_set(results, draw)


def subset_table(results: Results) -> str:
    """Draw subsets of items: what right endings share across languages."""
    columns = [(m, d) for m in METRICS for d in DIRECTIONS[:-1]]
    header = ["subset", "run", "seeds", *(heading(*c) for c in columns)]

    def draw(units):
        rows, found = (
            [],
            {
                record["subset"]
                for run in results.runs(units)
                for record in results.models(units, run)[0]["subsets"]
            },
        )
        for subset in sorted(found):
            for run in (BASE, *COMPARED):
                if seeds := len(results.models(units, run)):
                    cells = [
                        _subset_text(results, units, run, column, subset)
                        for column in columns
                    ]
                    rows.append([subset, f"`{run}`", str(seeds), *cells])
        return table(header, rows)

    return by_set(results, draw)


def _subset_text(results, units, run, column, subset):
    found = [
        accuracy_record(model, *column, SCORING, subset)
        for model in results.models(units, run)
    ]
    values = [record["accuracy"] for record in found if record]
    if not values:
        return "-"
    n = next(record["n"] for record in found if record)
    return f"{spread(fmean(values), deviation(values))} ({n})"
