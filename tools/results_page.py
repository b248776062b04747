"""Draw the tables and figures of the page of results anew.

python tools/results_page.py

reads the small results that the mini experiment leaves (one file a trained
model, see results_files.py) and writes, into the page, what stands between
    <!-- table: NAME -->
and <!-- end -->; the text around is written by hand and stays. Figures go to
the folder "figures" beside the results. The same results give the same bytes.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from mini_jobs import EXPERIMENT, FULL_GRAMMAR, lay_out, read_experiment
from results_claims import claim_table
from results_curves import (
    alignment_table,
    curve_table,
    scaling_table,
)
from results_figures import figures
from results_files import Results
from results_tables import (
    benchmark_table,
    control_table,
    convention_table,
    difference_table,
    main_table,
    subset_table,
)

from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.running import run_script, script_parser

RECIPE = Path(__file__).parents[1] / "recipes" / "TinyStories"
PAPER = RECIPE / "results" / "paper.csv"
_BLOCK = re.compile(
    r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL
)


def read_all(folder: Path) -> tuple[Results, list[str]]:
    """Read the results, and which runs have learning curves."""
    expected: dict[tuple[str, str], list[str]] = {}
    for path in (EXPERIMENT, FULL_GRAMMAR):
        for job in lay_out(read_experiment(path), seeds=1):
            expected.setdefault((job.units, job.kind), []).append(job.run)
    followed = read_experiment()["curves"]["runs"]
    return Results(folder, expected), followed


def tables(
    results: Results, followed: Sequence[str]
) -> dict[str, Callable[[], str]]:
    """Return name -> what draws the table of that name."""
    return {
        "claims": lambda: claim_table(results),
        "main": lambda: main_table(results, PAPER),
        "differences": lambda: difference_table(results),
        "benchmarks": lambda: benchmark_table(results),
        "controls": lambda: control_table(results),
        "conventions": lambda: convention_table(results),
        "subsets": lambda: subset_table(results),
        "alignment": lambda: alignment_table(results),
        "curves": lambda: curve_table(results, followed),
        "scaling": lambda: scaling_table(results),
    }


def draw(
    path: Path, known: dict[str, Callable[[], str]], pictures: dict[str, Path]
) -> str:
    """Return the page with every table, and its pictures, drawn anew."""
    page = path.read_text(encoding="utf-8")
    names = [found["name"] for found in _BLOCK.finditer(page)]
    begun = page.count("<!-- table:")
    if sorted(names) != sorted(known) or begun != len(names):
        raise ValueError(
            f"{path} has {begun} marks of tables, of which these end: "
            f"{', '.join(names) or 'none'}; expected '<!-- table: NAME -->' "
            f"and '<!-- end -->' once for each of {', '.join(known)}"
        )

    def block(found):
        own = [name for name in pictures if name.startswith(found["name"])]
        links = [
            f"\n\n![{name}]({os.path.relpath(pictures[name], path.parent)})"
            for name in own
        ]
        return f"{found[1]}{known[found['name']]()}{''.join(links)}\n{found[3]}"

    return _BLOCK.sub(block, page)


def main(arguments: list[str]) -> None:
    """Write the page and the figures."""
    parser = script_parser(__doc__)
    parser.add_argument("--results", type=Path, default=RECIPE / "results")
    parser.add_argument("--output", type=Path, default=RECIPE / "RESULTS.md")
    options = parser.parse_args(arguments)
    if not options.results.is_dir():
        raise FileNotFoundError(
            f"{options.results} is no folder; run the mini experiment first"
        )
    results, followed = read_all(options.results)
    folder = options.results / "figures"
    drawn = figures(results, followed)
    # Before anything is written: what is wrong with the page is found here.
    pictures = {name: folder / name for name in drawn}
    page = draw(options.output, tables(results, followed), pictures)
    for name, figure in drawn.items():
        folder.mkdir(exist_ok=True)
        write_atomic(folder / name, figure)
    write_atomic(options.output, page)


if __name__ == "__main__":
    run_script(main)
