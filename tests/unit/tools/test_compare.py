import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from results_example import drawn_credits, scores_table, write_results

ROOT = Path(__file__).parents[3]
COLUMNS = 2 * 5


def compare(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "compare.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def write(folder, share, seed, **changes):
    scores = scores_table(drawn_credits(share, seed=seed))
    return write_results(folder, scores, **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Arguments: a run of one seed, another of two, with odd names."""
    folder = tmp_path_factory.mktemp("compare")
    one = write(folder / "one", 0.5, 0)
    seeds = [write(folder / f"{n}", 0.8, n, truncated=n - 1) for n in (1, 2)]
    return [f"en_fr={one}", f"a|b & 50%={seeds[0]},{seeds[1]}"]


def printed(*arguments):
    done = compare(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_markdown(runs):
    lines = printed(*runs).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in tables]
    # Header, ruler and rows of the three tables.
    widths = [COLUMNS + 1] * 5 + [9] * (2 + COLUMNS) + [COLUMNS + 1] * 4
    assert [len(row) for row in rows] == widths
    header = [cell.strip() for cell in rows[0]]
    assert header[:6] == (
        ["run", "sSC EN", "sSC FR", "sTC EN", "sTC FR", "sSC EN>FR"]
    )
    assert header[-1] == "sTC cross-lingual"
    assert rows[2][0] == " en_fr "
    assert rows[3][0] == r" a\|b & 50% "
    assert [cell.strip() for cell in rows[4]] == ["n"] + ["60"] * COLUMNS
    cell = r" \d+\.\d\d \[\d+\.\d, \d+\.\d\] "
    assert all(re.fullmatch(cell, found) for found in rows[2][1:])
    assert all(re.fullmatch(r" .* ± \d+\.\d\d ", s) for s in rows[-2][1:])
    text = "\n".join(lines)
    assert "Differences to en_fr" in text
    assert "10 McNemar test(s)" in text
    assert "a|b & 50%: 2 seeds." in text
    assert lines[-3].startswith("- sSC: scoring whole_mean, start boundary, ")
    assert "seed 2: 1 items of" in lines[-1]


def test_latex_is_a_tabular_without_bare_signs(runs):
    text = printed(*runs, "--format", "latex")
    lines = [s for s in text.splitlines() if s and not s.startswith("%")]
    assert lines.count(r"\end{tabular}") == 3
    widths = []
    for line in lines:
        if line.startswith(r"\begin"):
            columns = re.fullmatch(r"\\begin\{tabular\}\{(lr+)\}", line)[1]
            continue
        if line in (r"\hline", r"\end{tabular}"):
            continue
        assert line.endswith(r" \\")
        cells = re.split(r"(?<!\\)&", line[:-3])
        assert len(cells) == len(columns)
        widths.append(len(cells))
        rest = re.sub(r"\\[&%_]|\\textgreater\{\}|\$\\pm\$", "", line[:-3])
        assert not re.search(r"[\\%$#_{}~^<>]", rest), line
        assert rest.isascii()
    assert len(widths) == 4 + 1 + COLUMNS + 3
    assert r"a|b \& 50\%" in text
    assert r"en\_fr" in text
    assert r"sSC EN\textgreater{}FR" in text


def test_csv_holds_every_number(runs, tmp_path):
    path = tmp_path / "out" / "table.csv"
    assert printed(*runs, "--format", "csv", "--output", path) == ""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = [row["table"] for row in rows]
    assert kinds == ["accuracy"] * 2 * COLUMNS + ["difference"] * COLUMNS
    assert rows[0]["deviation"] == ""
    assert float(rows[COLUMNS]["deviation"]) > 0
    for row in rows[:-COLUMNS]:
        ends = float(row["ci_low"]), float(row["ci_high"])
        assert ends[0] < float(row["accuracy"]) < ends[1]
    for row in rows[-COLUMNS:]:
        assert (row["run"], row["baseline"]) == ("a|b & 50%", "en_fr")
        assert float(row["holm_p"]) >= float(row["mcnemar_p"])


def test_options(runs):
    text = printed(*runs, "--baseline", "a|b & 50%", "--scoring", "whole_sum")
    assert "Differences to a|b & 50%" in text
    assert "sSC: scoring whole_sum" in text
    assert "| en_fr | 0.00 [" in text
    # The seed decides the bootstrap; the same one gives the same bytes.
    texts = [printed(*runs, "--seed", seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_one_run_has_no_differences(runs):
    text = printed(runs[0])
    assert text.count("| run |") == 1
    assert "McNemar" not in text


def test_bad_input_is_named_and_writes_nothing(runs, tmp_path):
    other = write(tmp_path / "other", 0.5, 3, units="another store")
    output = tmp_path / "table.md"
    for arguments, message in (
        ([runs[0], f"b={other}"], "units: expected 'store', found 'another"),
        ([f"b={tmp_path / 'none'}"], "results.json does not exist"),
        ([*runs, "--baseline", "x"], "baseline is 'x'; expected en_fr or a|b"),
    ):
        done = compare(*arguments, "--output", output)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not output.exists()
