"""Collect the scores and losses of runs into results.json and report.html.

python tools/report.py \
    --runs en_fr=DIR/LM/en_fr:DIR/cloze/en_fr \
           interleaved_ft=DIR/LM/interleaved_ft:DIR/cloze/interleaved_ft \
    --manifest DIR/synthesis/cloze.parquet --output_folder DIR

A run is NAME=LM_FOLDER:CLOZE_FOLDER. The table goes to the standard output as
Markdown, too.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from report_audio import spoken_examples
from report_page import render

from speechbrain_slm.evaluation.cloze.results import COMPARABLE, read_info
from speechbrain_slm.utils.atomic import write_atomic, write_json
from speechbrain_slm.utils.hashing import difference
from speechbrain_slm.utils.running import run_script, script_parser
from speechbrain_slm.utils.schema import (
    NUMBER,
    Kind,
    check_shape,
    read_shaped,
    whole,
)
from speechbrain_slm.utils.tables import markdown_row

# Tokens that belong to no language.
NO_UNITS = ("boundary", "tag", "padding")


class ReportError(ValueError):
    """Inputs that no honest table can be made of."""


@dataclass(frozen=True)
class Run:
    """One trained and evaluated model.

    Arguments
    ---------
    name : str
        What tables call it.
    log : list of dict
        The lines of ``train_log.jsonl``.
    training : dict
        The content of ``run.json``.
    results : dict
        The content of the cloze recipe's ``results.json``.
    """

    name: str
    log: list
    training: dict
    results: dict

    @property
    def tokens(self):
        """Units seen in training, by language (dict)."""
        counts = self.training["tokens"]
        return {name: counts[name] for name in counts if name not in NO_UNITS}

    def records(self, kind="records"):
        """Return the records under the main convention.

        Arguments
        ---------
        kind : str
            ``records`` (one a direction) or ``cross_lingual`` (their mean).

        Returns
        -------
        dict
            (metric, direction) -> record.
        """
        return {
            (record["metric"], record["direction"]): record
            for record in self.results.get(kind, ())
            if record["scoring"] == self.results["scoring"]
        }


# What can be drawn.
_STEP = whole(0, 10**12)
_LOSS = Kind(
    "a number from -1e9 to 1e9",
    lambda value: NUMBER.holds(value) and abs(value) <= 1e9,
)
_LINE = {"step": _STEP, "loss?": _LOSS, "valid?": {str: _LOSS}}
_TRAINING = {
    "tokens": {str: whole(0, 10**18)},
    "steps": _STEP,
    "parameters": whole(0, 10**15),
    "seconds": NUMBER,
    "seconds_from_step?": _STEP,
}


def _read_json(path):
    if not path.is_file():
        raise ReportError(
            f"{path} does not exist. Run the LM recipe to the end; it writes "
            "it."
        )
    return read_shaped(path, _TRAINING)


def _read_log(path):
    if not path.is_file():
        raise ReportError(f"{path} does not exist; the LM recipe writes it.")
    entries = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line))
        except ValueError as error:
            raise ReportError(
                f"{path}, line {number}: expected a JSON object, found "
                f"{line[:40]!r} ({error})"
            ) from None
        check_shape(entries[-1], _LINE, f"{path}, line {number}")
    return entries


def read_run(argument):
    """Read one run.

    Arguments
    ---------
    argument : str
        ``NAME=LM_FOLDER:CLOZE_FOLDER``.

    Returns
    -------
    Run
        What the two folders say.

    Raises
    ------
    ValueError
        If the argument or a file is not as it should be.
    """
    name, _, folders = argument.partition("=")
    lm_folder, _, cloze_folder = folders.partition(":")
    if not (name and lm_folder and cloze_folder) or ":" in cloze_folder:
        raise ReportError(
            f"--runs {argument!r}: expected NAME=LM_FOLDER:CLOZE_FOLDER"
        )
    run = Run(
        name=name,
        results=read_info(cloze_folder),
        log=_read_log(Path(lm_folder) / "train_log.jsonl"),
        training=_read_json(Path(lm_folder) / "run.json"),
    )
    if not run.records():
        raise ReportError(
            f"{cloze_folder} has no record of the scoring "
            f"'{run.results['scoring']}', which its results.json names; "
            "evaluate again"
        )
    return run


def check_comparable(runs):
    """Refuse runs that were not scored alike.

    Arguments
    ---------
    runs : list of Run
        At least one.

    Raises
    ------
    ReportError
        If two have one name, or differ in their convention, units or items.
    """
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ReportError(f"--runs: a name stands twice in {', '.join(names)}")
    first, *others = runs
    expected = {key: first.results[key] for key in COMPARABLE}
    for run in others:
        found = {key: run.results[key] for key in COMPARABLE}
        lines = difference(expected, found)
        if lines:
            raise ReportError(
                f"runs '{first.name}' and '{run.name}' were not scored alike "
                f"({'; '.join(lines)}); evaluate both on the same units and "
                "items"
            )


def collect(runs):
    """Flatten the runs into records.

    Arguments
    ---------
    runs : list of Run
        What was read.

    Returns
    -------
    list of dict
        One a run, metric and direction.
    """
    return [
        {"run": run.name, **record, "tokens": run.tokens}
        for run in runs
        for record in run.records().values()
    ]


def table_rows(runs):
    """Order the rows of the table.

    Arguments
    ---------
    runs : list of Run
        The columns.

    Returns
    -------
    list of tuple
        (metric, direction, {run name: record}); the mean of the
        cross-lingual directions ends each metric.
    """
    rows = {}
    for run in runs:
        for kind in ("records", "cross_lingual"):
            for key, record in run.records(kind).items():
                rows.setdefault(key, {})[run.name] = record
    metrics = dict.fromkeys(metric for metric, _ in rows)
    return [
        (metric, direction.replace("cross_lingual", "cross-lingual"), found)
        for wanted in metrics
        for (metric, direction), found in rows.items()
        if metric == wanted
    ]


def markdown(runs):
    """Lay out the table as Markdown.

    Arguments
    ---------
    runs : list of Run
        The columns.

    Returns
    -------
    str
        Accuracy and interval in percent.
    """
    names = [run.name for run in runs]
    lines = [
        markdown_row(["metric", "direction", "n", *names]),
        f"| --- | --- | ---: |{' --- |' * len(names)}",
    ]
    for metric, direction, found in table_rows(runs):
        cells = [
            "{accuracy:.1f} [{ci_low:.1f}, {ci_high:.1f}]".format(**found[name])
            if name in found
            else ""
            for name in names
        ]
        n = str(next(iter(found.values()))["n"])
        lines.append(markdown_row([metric, direction, n, *cells]))
    return "\n".join(lines)


def main(arguments):
    """Write both files and print the table.

    Arguments
    ---------
    arguments : list of str
        The command line.
    """
    parser = script_parser(__doc__)
    parser.add_argument("--runs", nargs="+", required=True)
    parser.add_argument("--manifest", help="spoken manifest to listen to")
    parser.add_argument("--stories", type=int, default=2, help="to listen to")
    parser.add_argument("--output_folder", type=Path, required=True)
    options = parser.parse_args(arguments)
    runs = [read_run(argument) for argument in options.runs]
    check_comparable(runs)
    examples = []
    if options.manifest:
        examples = spoken_examples(options.manifest, options.stories)
    # The page first: where there is a results.json, there is a report.
    page = options.output_folder / "report.html"
    write_atomic(page, render(runs, table_rows(runs), examples))
    write_json(options.output_folder / "results.json", collect(runs))
    print(markdown(runs))
    print(f"\nReport: {page}")


if __name__ == "__main__":
    run_script(main)
