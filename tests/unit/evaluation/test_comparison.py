from statistics import mean, stdev

import numpy as np
import pyarrow as pa
import pytest
from results_example import drawn_credits, scores_table, write_results

from speechbrain_slm.evaluation.cloze.accuracy import summarise
from speechbrain_slm.evaluation.cloze.comparison import compare, read_run
from speechbrain_slm.evaluation.statistics import (
    holm,
    mcnemar,
    paired_bootstrap,
)


def write(folder, share=0.7, seed=0, shuffle=False, changes=(), **options):
    """Write the results of a run that ``seed`` and ``share`` decide."""
    scores = scores_table(drawn_credits(share, seed=seed, **options))
    if shuffle:
        order = np.random.default_rng(1).permutation(len(scores))
        scores = scores.take(pa.array(order))
    return write_results(folder, scores, **dict(changes))


def credits_of(drawn, *cell):
    return np.array([c for key, c in drawn.items() if key[1:] == cell])


def select(records, **wanted):
    """Return the one record that has these values."""
    (found,) = [
        record
        for record in records
        if all(record[key] == value for key, value in wanted.items())
    ]
    return found


def test_accuracies_are_those_of_the_evaluation(tmp_path):
    scores = scores_table(drawn_credits(0.7))
    folder = write_results(tmp_path / "a", scores)
    found, differences = compare([read_run(f"a={folder}")], seed=5)
    records, cross_lingual, _ = summarise(scores, seed=5)
    assert differences == []
    assert len(found) == 2 * 5
    for record in found:
        keys = ("metric", "direction", "scoring")
        expected = select(
            records + cross_lingual, **{key: record[key] for key in keys}
        )
        for key in expected.keys() - {"ties", "chance"}:
            assert record[key] == expected[key], key
        assert (record["seeds"], record["deviation"]) == (1, None)


def test_columns_stand_as_in_the_paper(tmp_path):
    grid = (("en", "en"), ("en", "fr"))
    one = write(tmp_path / "one", benchmarks=("sTC", "sSC", "aBLIMP"))
    other = write(tmp_path / "other", benchmarks=("sSC",), grid=grid)
    accuracies, _ = compare([read_run(f"one={one}")])
    assert [(r["metric"], r["direction"]) for r in accuracies[:10]] == [
        (metric, direction)
        for kind in (("en", "fr"), ("en>fr", "fr>en"), ("cross_lingual",))
        for metric in ("sSC", "sTC")
        for direction in kind
    ]
    assert {r["metric"] for r in accuracies[10:]} == {"aBLIMP"}
    # The mean of one direction would say it twice.
    accuracies, _ = compare([read_run(f"other={other}")])
    assert [r["direction"] for r in accuracies] == ["en", "en>fr"]


def test_differences_are_paired_by_item(tmp_path):
    # The rows of the two files stand in different orders.
    folders = {
        "base": write(tmp_path / "base", 0.5),
        "better": write(tmp_path / "better", 0.8, seed=1, shuffle=True),
    }
    runs = [read_run(f"{name}={folder}") for name, folder in folders.items()]
    accuracies, differences = compare(runs, seed=2)
    assert len(differences) == 10
    credits = [drawn_credits(0.5), drawn_credits(0.8, seed=1)]
    base, better = (credits_of(one, "sTC", "en", "fr") for one in credits)
    found = select(differences, metric="sTC", direction="en>fr")
    assert (found["run"], found["baseline"]) == ("better", "base")
    counts = mcnemar(better, base)
    low, high, p = paired_bootstrap(better, base, seed=2)
    names = ("n", "better", "worse", "mcnemar_p", "bootstrap_p")
    assert [found[name] for name in names] == [60, *counts, p]
    assert found["bootstrap_low"] == 100 * low
    assert found["bootstrap_high"] == 100 * high
    one, other = (
        select(accuracies, run=run, metric="sTC", direction="en>fr")["accuracy"]
        for run in folders
    )
    assert found["difference"] == pytest.approx(other - one)
    p_values = [record["mcnemar_p"] for record in differences]
    assert [record["holm_p"] for record in differences] == holm(p_values)


def test_any_run_can_be_the_baseline(tmp_path):
    names = ("a", "b", "c")
    runs = [
        read_run(f"{name}={write(tmp_path / name, seed=seed)}")
        for seed, name in enumerate(names)
    ]
    _, first = compare(runs)
    assert [r["run"] for r in first] == ["b"] * 10 + ["c"] * 10
    _, last = compare(runs, baseline="c")
    assert {r["baseline"] for r in last} == {"c"}
    one, other = (
        select(found, run=run, metric="sSC", direction="fr")
        for found, run in ((first, "c"), (last, "a"))
    )
    assert one["difference"] == pytest.approx(-other["difference"])
    assert (one["better"], one["worse"]) == (other["worse"], other["better"])
    with pytest.raises(ValueError, match="baseline is 'd'; expected a or b o"):
        compare(runs, baseline="d")


def test_seeds_are_averaged_item_by_item(tmp_path):
    folders = [write(tmp_path / str(seed), seed=seed) for seed in range(3)]
    base = write(tmp_path / "base", 0.5, seed=9)
    ours = ",".join(map(str, folders))
    runs = [read_run(f"base={base}"), read_run(f"ours={ours}")]
    accuracies, differences = compare(runs, seed=4)
    drawn = [
        credits_of(drawn_credits(0.7, seed=s), "sSC", "en", "en")
        for s in range(3)
    ]
    found = select(accuracies, run="ours", metric="sSC", direction="en")
    by_seed = [100 * float(credits.mean()) for credits in drawn]
    assert (found["n"], found["seeds"]) == (60, 3)
    assert found["accuracy"] == pytest.approx(mean(by_seed))
    assert found["deviation"] == pytest.approx(stdev(by_seed))
    baseline = credits_of(drawn_credits(0.5, seed=9), "sSC", "en", "en")
    tested = select(differences, metric="sSC", direction="en")
    expected = mcnemar(np.mean(drawn, axis=0), baseline)
    keys = ("better", "worse", "mcnemar_p")
    assert tuple(tested[key] for key in keys) == expected


def test_another_convention_can_be_shown(tmp_path):
    a = write(tmp_path / "a")
    b = write(tmp_path / "b", changes={"scoring": "ending_sum"}, seed=1)
    runs = [read_run(f"a={a}"), read_run(f"b={b}")]
    with pytest.raises(ValueError, match="scoring: expected 'whole_mean'"):
        compare(runs)
    accuracies, differences = compare(runs, scoring="ending_sum")
    assert {r["scoring"] for r in accuracies} == {"ending_sum"}
    assert {r["accuracy"] for r in accuracies} == {100.0}
    # Two runs that do the same: nothing to be found.
    assert {r["mcnemar_p"] for r in differences} == {1.0}
    with pytest.raises(ValueError, match="no scores of 'mean'; expected one"):
        compare(runs, scoring="mean")


def test_benchmarks_are_joined_and_compared_where_both_have_them(tmp_path):
    monolingual = (("en", "en"),)
    blimp = {"benchmarks": ("sBLIMP",), "grid": monolingual}
    of_a = {"model": "a", "items": "other items", "units": "other units"}
    a = write(tmp_path / "a", changes={"model": "a"})
    a_blimp = write(tmp_path / "a_blimp", changes=of_a, **blimp)
    b = write(tmp_path / "b", seed=1)
    runs = [read_run(f"a={a}+{a_blimp}"), read_run(f"b={b}")]
    accuracies, differences = compare(runs)
    assert select(accuracies, metric="sBLIMP")["run"] == "a"
    assert len(accuracies) == 11 + 10
    assert {r["metric"] for r in differences} == {"sSC", "sTC"}
    # Each benchmark is held against its own.
    c_blimp = write(tmp_path / "c", changes={"items": "c's"}, **blimp)
    with pytest.raises(ValueError, match=r"sBLIMP of .*items: expected 'other"):
        compare([*runs, read_run(f"c={c_blimp}")])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("start", "first_unit"), ("score_end", True), ("tie", 0)),
        *(("endings", "together"), ("too_long", "truncate")),
        *(("tokenizer", "codebook-b"), ("units", "b"), ("items", "b")),
    ],
)
def test_what_was_scored_otherwise_is_refused(tmp_path, key, value):
    a = write(tmp_path / "a")
    b = write(tmp_path / "b", changes={key: value}, seed=1)
    with pytest.raises(ValueError, match=f"{a} .*{b} .*{key}: expected .*, fo"):
        compare([read_run(f"a={a}"), read_run(f"b={b}")])
    # Seeds of one run, too.
    with pytest.raises(ValueError, match=f"{key}: expected"):
        compare([read_run(f"ours={a},{b}")])


def test_rows_of_other_items_are_refused(tmp_path):
    a = write(tmp_path / "a")
    b = write(tmp_path / "b", seed=1, count=59)
    with pytest.raises(ValueError, match="name other items"):
        compare([read_run(f"a={a}"), read_run(f"b={b}")])


def test_bad_arguments_are_refused(tmp_path):
    a = write(tmp_path / "a", changes={"model": "one"})
    twin = write(tmp_path / "twin", changes={"model": "one"})
    b = write(tmp_path / "b", seed=1)
    half = write(tmp_path / "half", seed=2, benchmarks=("sSC",))
    for argument, message in (
        (f"{a}", "expected NAME=DIR"),
        (f"={a}", "expected NAME=DIR"),
        (f"a={a},", "expected NAME=DIR"),
        (f"a={a}+{twin}", "both hold sSC; a benchmark may stand in one"),
        (f"a={a}+{b}", "are of different models"),
        (f"a={a},{twin}", "are of the same model"),
        (f"a={a},{half}", "half holds sSC, the first seed sSC, sTC"),
    ):
        with pytest.raises(ValueError, match=message):
            read_run(argument)
    with pytest.raises(ValueError, match="a name stands twice in a, a"):
        compare([read_run(f"a={a}"), read_run(f"a={b}")])
