import numpy as np
import pyarrow as pa
import pytest
from results_example import drawn_credits, scores_table

from speechbrain_slm.evaluation.cloze.accuracy import (
    group_credits,
    results_table,
    split_scores,
    summarise,
)
from speechbrain_slm.evaluation.cloze.conventions import LIKELIHOODS
from speechbrain_slm.evaluation.statistics import (
    bootstrap_interval,
    wilson_interval,
)

CREDITS = {
    ("a", "sSC", "en", "fr"): 1.0,
    ("a", "sSC", "fr", "en"): 0.0,
    ("b", "sSC", "en", "fr"): 0.5,
    ("b", "sSC", "fr", "en"): 1.0,
    ("a", "sSC", "en", "en"): 1.0,
    ("b", "sSC", "en", "en"): 0.5,
}
# Three voices of one pair of words, one of another.
VOICES = {"w1": "house", "w2": "house", "w3": "house", "w4": "mouse"}


def by_key(records):
    found = {(r["direction"], r["scoring"]): r for r in records}
    assert len(found) == len(records)
    return found


def test_accuracy_by_hand():
    records, _, subsets = summarise(scores_table(CREDITS), seed=3)
    found = by_key(records)
    assert len(found) == 3 * len(LIKELIHOODS)
    low, high = wilson_interval(1.5, 2)
    resampled = bootstrap_interval([1.0, 0.5], seed=3)
    assert found["en>fr", "whole_mean"] == {
        **{"metric": "sSC", "direction": "en>fr", "scoring": "whole_mean"},
        **{"n": 2, "ties": 1, "accuracy": 75.0, "chance": 50.0},
        **{"ci_low": 100 * low, "ci_high": 100 * high},
        "bootstrap_low": 100 * resampled[0],
        "bootstrap_high": 100 * resampled[1],
    }
    assert found["fr>en", "whole_mean"]["accuracy"] == 50.0
    assert found["en", "ending_sum"]["accuracy"] == 100.0
    assert found["en", "ending_mean"]["accuracy"] == 0.0
    assert subsets == []


def test_cross_lingual_mean_counts_an_item_once():
    _, means, _ = summarise(scores_table(CREDITS), seed=0)
    record = by_key(means)["cross_lingual", "whole_mean"]
    # a: (1 + 0) / 2; b: (0.5 + 1) / 2.
    assert (record["n"], record["ties"]) == (2, 1)
    assert "items" not in record
    assert record["accuracy"] == pytest.approx(62.5)
    assert record["ci_low"] == pytest.approx(100 * wilson_interval(1.25, 2)[0])
    monolingual = {key: CREDITS[key] for key in CREDITS if key[2] == key[3]}
    assert summarise(scores_table(monolingual), seed=0)[1] == []


def test_items_of_a_group_count_once():
    credits = dict(zip(VOICES, (1.0, 1.0, 0.5, 0.0), strict=True))
    scores = scores_table(
        {(item, "sWUGGY", "en", "en"): c for item, c in credits.items()},
        groups=VOICES,
    )
    record = by_key(summarise(scores, seed=0)[0])["en", "whole_mean"]
    # house: 2.5 / 3; mouse: 0.
    assert record["accuracy"] == pytest.approx(100 * (2.5 / 3) / 2)
    assert (record["n"], record["items"], record["ties"]) == (2, 4, 1)
    low, _ = wilson_interval(2.5 / 3, 2)
    assert record["ci_low"] == pytest.approx(100 * low)


def test_a_direction_with_more_voices_weighs_no_more():
    # en>fr in three voices (all right), fr>en in one (wrong).
    credits = {(w, "sSC", "en", "fr"): 1.0 for w in ("w1", "w2", "w3")}
    credits["w1", "sSC", "fr", "en"] = 0.0
    scores = scores_table(credits, groups=VOICES)
    record = by_key(summarise(scores, seed=0)[1])["cross_lingual", "whole_mean"]
    assert (record["n"], record["items"]) == (1, 3)
    assert record["accuracy"] == 50.0


def test_one_group_in_two_benchmarks_or_directions_is_not_joined():
    credits = drawn_credits(0.5, count=4)
    scores = scores_table(credits, groups=dict.fromkeys(VOICES, "x"))
    cells = split_scores(scores)
    assert sum(len(c) for (_, d), c in cells.items() if "_" not in d) == 32
    assert len(group_credits(cells["sTC", "fr"], "whole_mean")) == 4


def test_equal_credits_stay_equal_in_any_order():
    # Thirds and sevenths do not add up alike in every order in floating
    # point; paired tests would take the rounding for a difference.
    directions = {("en", "fr"): 7, ("fr", "en"): 3, ("en", "es"): 7}
    generator = np.random.default_rng(0)
    values = set()
    for _ in range(20):
        credits = {}
        for direction, voices in directions.items():
            drawn = generator.permutation([1, 1, 0.5, 0, 0, 1, 1][:voices])
            for voice, credit in enumerate(drawn.tolist()):
                credits[(f"w{voice}", "sSC", *direction)] = credit
        groups = {key[0]: "x" for key in credits}
        cell = split_scores(scores_table(credits, groups))
        found = group_credits(cell["sSC", "cross_lingual"], "whole_mean")
        values.update(found.tolist())
    expected = (4.5 / 7 + 2.5 / 3 + 4.5 / 7) / 3
    assert list(values) == [pytest.approx(expected)]


def test_rows_in_another_order_change_nothing():
    credits = drawn_credits(0.7)
    scores = scores_table(
        credits, groups={f"test-{n:03d}": f"g{n // 3}" for n in range(60)}
    )
    order = np.random.default_rng(0).permutation(len(scores))
    shuffled = scores.take(pa.array(order))
    assert summarise(scores, seed=1) == summarise(shuffled, seed=1)


def test_subsets():
    subsets = {"w1": "binding", "w2": "binding", "w4": "anaphor"}
    credits = dict(zip(VOICES, (1.0, 0.0, 0.0, 1.0), strict=True))
    scores = scores_table(
        {(item, "sBLIMP", "en", "en"): c for item, c in credits.items()},
        subsets=subsets,
    )
    records, _, found = summarise(scores, seed=0)
    accuracies = [
        (record["subset"], record["n"], record["accuracy"])
        for record in found
        if record["scoring"] == "whole_mean"
    ]
    assert accuracies == [("anaphor", 1, 100.0), ("binding", 2, 50.0)]
    assert by_key(records)["en", "whole_mean"]["n"] == 4
    assert not any("subset" in record for record in records)


def test_ties_are_counted_where_they_get_no_credit():
    credits = {("a", "sSC", "en", "en"): 0.5, ("b", "sSC", "en", "en"): 1.0}
    scores = scores_table(credits)
    column = scores.column_names.index("whole_mean")
    strict = scores.set_column(column, "whole_mean", pa.array([0.0, 1.0]))
    record = by_key(summarise(strict, seed=0)[0])["en", "whole_mean"]
    assert (record["ties"], record["accuracy"]) == (1, 50.0)


def test_table_shows_the_main_convention_only():
    subsets = {"a": "a phenomenon of a longer name"}
    records, means, subsets = summarise(scores_table(CREDITS, {}, subsets), 0)
    content = {"scoring": "whole_mean", "records": records}
    content |= {"cross_lingual": means, "subsets": subsets}
    lines = results_table(content).splitlines()
    assert len(lines) == 1 + 3 + 1 + 3
    assert "whole_mean, chance 50" in lines[0]
    assert lines[2].split()[:4] == ["sSC", "en>fr", "2", "75.00"]
    assert lines[5].startswith("sSC     en, a phenomenon of a longer name  ")
    assert len({line.index("[") for line in lines[1:]}) == 1
