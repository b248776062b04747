import csv
import re
import sys

import pytest
from processes import ROOT, run
from results_example import drawn_credits, scores_table, write_results

from speechbrain_slm.evaluation.cloze.conventions import LIKELIHOODS
from speechbrain_slm.utils.tables import ITEMS

COLUMNS = 2 * 5


def compare(*arguments):
    tool = ROOT / "tools" / "compare.py"
    return run([sys.executable, tool, *map(str, arguments)])


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
    code, text = compare(*arguments)
    assert code == 0, text
    return text


def test_markdown(runs):
    lines = printed(*runs).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in tables]
    # Header, ruler and rows of the three tables.
    widths = [COLUMNS + 1] * 5 + [9] * (2 + COLUMNS) + [COLUMNS + 1] * 4
    assert [len(row) for row in rows] == widths
    assert lines[2].startswith("| run | sSC EN | sSC FR | sTC EN | sTC FR | sS")
    assert lines[2].endswith("| sSC cross-lingual | sTC cross-lingual |")
    names = [row[0].strip() for row in rows[2:5]]
    assert names == ["en_fr", r"a\|b & 50%", "n"]
    assert [cell.strip() for cell in rows[4][1:]] == ["60"] * COLUMNS
    cell = r" \d+\.\d\d \[\d+\.\d, \d+\.\d\] "
    assert all(re.fullmatch(cell, found) for found in rows[2][1:])
    assert all(re.fullmatch(r" .* ± \d+\.\d\d ", s) for s in rows[-2][1:])
    text = "\n".join(lines)
    told = "Differences to en_fr", "10 McNemar test(s)", "a|b & 50%: 2 seeds."
    assert all(words in text for words in told)
    assert lines[-3].startswith("- sSC: scoring whole_mean, start boundary, ")
    assert "seed 2: 1 items of" in lines[-1]


def test_all_conventions_side_by_side(runs, tmp_path):
    scores = scores_table(drawn_credits(0.5))
    kept = (*ITEMS.names, "group", "subset")
    names = [f"{side}whole_mean" for side in ("", "right_", "wrong_")]
    new = [name.replace("whole_mean", "cosine") for name in names]
    scores = scores.select([*kept, *names]).rename_columns([*kept, *new])
    bag = write_results(tmp_path / "bag", scores, scoring="cosine")
    text = printed(*runs, f"bag={bag}", "--scoring", "all")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
    ]
    first = rows[2 : 2 + 2 * len(LIKELIHOODS) + 1]
    assert rows[0][:3] == ["run", "scoring", "sSC EN"]
    named = [tuple(row[:2]) for row in first]
    names = ["en_fr", r"a\|b & 50%"]
    expected = [(name, scoring) for name in names for scoring in LIKELIHOODS]
    assert named == [*expected, ("bag", "cosine")]
    # Of these scores, every item is right under ending_sum.
    shown = dict(zip(named, first, strict=True))
    assert shown["en_fr", "ending_sum"][2].startswith("100.00 ")
    assert shown["en_fr", "normalised"][2].startswith("0.00 ")
    assert "Differences" not in text
    assert "scoring whole_mean/whole_sum/" in text
    changes = {"scoring": "cosine", "units": "other"}
    other = write_results(tmp_path / "other", scores, **changes)
    for more, told in (
        ([f"other={other}"], "units: expected 'store', found 'other'"),
        (["--baseline", "en_fr"], "tests nothing"),
    ):
        code, text = compare(*runs, *more, "--scoring", "all")
        assert code != 0
        assert re.search(told, text), text


def test_latex_is_a_tabular_without_bare_signs(runs):
    text = printed(*runs, "--format", "latex")
    lines = [s for s in text.splitlines() if s and not s.startswith("%")]
    assert lines.count(r"\end{tabular}") == 3
    rows = 0
    for line in lines:
        if line.startswith(r"\begin"):
            columns = re.fullmatch(r"\\begin\{tabular\}\{(lr+)\}", line)[1]
        if line == r"\hline" or line.startswith((r"\begin", r"\end")):
            continue
        assert line.endswith(r" \\")
        assert len(re.split(r"(?<!\\)&", line[:-3])) == len(columns)
        rows += 1
        rest = re.sub(r"\\[&%_]|\\textgreater\{\}|\$\\pm\$", "", line[:-3])
        assert not re.search(r"[\\%$#_{}~^<>]", rest), line
        assert rest.isascii()
    assert rows == 4 + 1 + COLUMNS + 3
    for name in (r"a|b \& 50\%", r"en\_fr", r"sSC EN\textgreater{}FR"):
        assert name in text


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
        code, text = compare(*arguments, "--output", output)
        assert code == 1
        assert message in text
        assert "Traceback" not in text
    assert not output.exists()
