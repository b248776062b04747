import pyarrow as pa
import pytest

from speechbrain_slm.evaluation.accuracy import results_table, summarise
from speechbrain_slm.evaluation.statistics import wilson_interval


def scores(credits):
    """Make per-item scores from {(item, prompt, ending): credit}."""
    return pa.Table.from_pylist(
        [
            {
                "item_id": item,
                "benchmark": "sSC",
                "prompt_language": prompt,
                "ending_language": ending,
                "whole_mean": credit,
                "ending_mean": 1.0,
                "ending_sum": 0.0,
            }
            for (item, prompt, ending), credit in credits.items()
        ]
    )


CREDITS = {
    ("a", "en", "fr"): 1.0,
    ("a", "fr", "en"): 0.0,
    ("b", "en", "fr"): 0.5,
    ("b", "fr", "en"): 1.0,
    ("a", "en", "en"): 1.0,
    ("b", "en", "en"): 0.5,
}


def test_accuracy_by_hand():
    records, _ = summarise(scores(CREDITS))
    found = {
        (record["direction"], record["scoring"]): record for record in records
    }
    assert len(found) == len(records) == 3 * 3
    record = found["en>fr", "whole_mean"]
    low, high = wilson_interval(1.5, 2)
    assert record == {
        "metric": "sSC",
        "direction": "en>fr",
        "scoring": "whole_mean",
        "n": 2,
        "ties": 1,
        "accuracy": 75.0,
        "ci_low": 100 * low,
        "ci_high": 100 * high,
        "chance": 50.0,
    }
    assert found["fr>en", "whole_mean"]["accuracy"] == 50.0
    assert found["en", "ending_mean"]["accuracy"] == 100.0
    assert found["en", "ending_sum"]["accuracy"] == 0.0


def test_monolingual_directions_come_first():
    records, _ = summarise(scores(CREDITS))
    directions = [record["direction"] for record in records[::3]]
    assert directions == ["en", "en>fr", "fr>en"]


def test_cross_lingual_mean_counts_an_item_once():
    _, means = summarise(scores(CREDITS))
    (record,) = [r for r in means if r["scoring"] == "whole_mean"]
    # a: (1 + 0) / 2; b: (0.5 + 1) / 2.
    assert record["n"] == 2
    assert record["accuracy"] == pytest.approx(62.5)
    assert record["ci_low"] == pytest.approx(100 * wilson_interval(1.25, 2)[0])
    monolingual = {key: CREDITS[key] for key in CREDITS if key[1] == key[2]}
    assert summarise(scores(monolingual))[1] == []


def test_table_shows_the_main_convention_only():
    records, means = summarise(scores(CREDITS))
    content = {
        "scoring": "whole_mean",
        "records": records,
        "cross_lingual": means,
    }
    lines = results_table(content).splitlines()
    assert len(lines) == 1 + 3 + 1
    assert "whole_mean, chance 50" in lines[0]
    assert lines[2].split()[:4] == ["sSC", "en>fr", "2", "75.00"]
