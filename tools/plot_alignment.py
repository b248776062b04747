"""Draw the alignment of several runs in one figure, and print a table.

python tools/plot_alignment.py en_fr=DIR interleaved_ft=DIR --output FILE.png

A run is NAME=DIR, where DIR is the output folder of the alignment recipe. The
table, of one pooling, goes to the standard output as Markdown.
"""

from speechbrain_slm.evaluation.alignment.figure import draw_alignment
from speechbrain_slm.evaluation.alignment.report import (
    alignment_table,
    read_alignment,
)
from speechbrain_slm.utils.running import run_script, script_parser


def main(arguments: list[str]) -> None:
    """Draw the figure and print the table."""
    parser = script_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=DIR")
    parser.add_argument("--output", required=True, help="the PNG file")
    parser.add_argument("--pooling", default="last", help="of the table")
    pair = {"nargs": 2, "metavar": ("SOURCE", "TARGET")}
    text = "by default a table of all pairs, a figure of the first"
    parser.add_argument("--languages", **pair, help=text)
    options = parser.parse_args(arguments)
    runs = {}
    for argument in options.runs:
        name, _, folder = argument.partition("=")
        if not (name and folder):
            raise ValueError(f"'{argument}' is not a run; expected NAME=DIR")
        if name in runs:
            raise ValueError("two runs have one name; give each its own")
        runs[name] = read_alignment(folder)
    table = alignment_table(runs, options.pooling, options.languages)
    draw_alignment(runs, options.output, options.languages)
    print(table)


if __name__ == "__main__":
    run_script(main)
