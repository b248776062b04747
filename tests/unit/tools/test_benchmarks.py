import json
import sys

import pytest
from processes import ROOT, run

pytestmark = pytest.mark.long


def measure(name, *options):
    """Run a benchmark in a process of its own, as a user does."""
    tool = ROOT / "tools" / "benchmark" / name
    code, text = run([sys.executable, tool, *map(str, options)], timeout=300)
    assert code == 0, text
    return json.loads(text.splitlines()[-1])


def test_train_throughput():
    result = measure(
        "train_throughput.py",
        "--no-compile",
        *("--stories", 40, "--mean", 40, "--row_length", 64),
        *("--rows_per_step", 2, "--micro_batches", 2),
        *("--steps", 1, "--turns", 2),
    )
    assert result["parameters"] == 4_065_024
    assert result["threads"] == 1
    assert not result["compile"]
    assert 0 < result["padding"] < 0.5
    for name in ("tokens_per_cpu_second", "tokens_per_second"):
        assert result[name] > 0
        assert result[f"bare_{name}"] > 0
    # Rounded medians against totals: of the same turns.
    quotient = (
        result["tokens_per_cpu_second"] / result["bare_tokens_per_cpu_second"]
    )
    assert 0.3 < result["ratio"] / quotient < 3


def test_cloze_cost():
    result = measure("cloze_cost.py", "--stories", 3, "--repetitions", 1)
    assert result["parameters"]["4.06M"] == 4_065_024
    assert 0.2 < result["token_ratio_grid"] <= 0.27
    assert 0.5 < result["token_ratio_pair"] <= 0.62
    assert result["max_difference"] <= 1e-4
    # The clock is the machine's affair; that it is no loss is ours.
    for model, quotient in result["speedup"].items():
        speeds = result["items_per_cpu_second"][model]
        assert quotient > 1.5
        assert speeds["shared"] / speeds["independent"] == pytest.approx(
            quotient, rel=0.05
        )


def test_generation():
    result = measure(
        "generation.py",
        *("--lengths", 64, "--batches", 1, "--steps", 16),
    )
    assert result["parameters"] == 1_366_784
    assert result["cached_over_uncached"].keys() == {"64"}
    # How much is the machine's affair; that it is a gain is ours.
    assert result["cached_over_uncached_64"] > 1
    assert result["units_per_second"].keys() == {"batch 1, 64 units"}
    for name in ("vocoder_times_real_time", "first_audio_seconds"):
        assert result[name] > 0
