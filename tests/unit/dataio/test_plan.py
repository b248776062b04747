"""The token plan: budgets, mixtures, ranks."""

import hashlib

import numpy as np
import pytest
from conftest import write_store

from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.dataio.reader import UnitStore

SOURCES = {
    "en": {"languages": ["en"]},
    "fr": {"languages": ["fr"]},
    "interleaved": {"languages": ["en", "fr"], "switch_probability": 0.5},
}
STAGES = [
    {"tokens": 32 * 12 * 10, "mixture": {"en": 0.5, "fr": 0.5}},
    {"tokens": 32 * 12 * 6, "mixture": {"interleaved": 0.4, "en": 0.6}},
]


def make_plan(folder, stages=None, seed=7):
    store = UnitStore(folder)
    return TokenPlan(store, SOURCES, stages or STAGES, 32, 12, seed)


def test_rows_continue_each_source_and_budgets_are_exact(store_folder):
    plan = make_plan(store_folder)
    assert plan.num_steps == 16
    found = {name: [] for name in SOURCES}
    streams = {
        name: source.tokens(np.arange(300) * 32, 32)
        for name, source in plan.sources.items()
    }
    expected_counts = [[6, 6, 0]] * 10
    for step in range(plan.num_steps):
        rows = plan.rows(step)
        stage, local = plan._locate(step)
        layout = plan._stages[stage][local]
        names = [plan._names[number] for number in layout]
        for row, name in zip(rows, names, strict=True):
            index = len(found[name])
            assert row.tolist() == streams[name][index].tolist()
            found[name].append(index)
        if step < 10:
            assert [names.count(name) for name in SOURCES] == expected_counts[0]
    assert len(found["en"]) == 60 + round(0.6 * 72)
    assert len(found["fr"]) == 60
    assert len(found["interleaved"]) == 72 - round(0.6 * 72)
    # Each step of the second stage holds the mixture to within a row.
    second = plan._stages[1]
    shares = (second == plan._names.index("interleaved")).sum(axis=1)
    assert set(shares.tolist()) <= {4, 5, 6}


def test_counts_equal_what_the_rows_hold(store_folder):
    plan = make_plan(store_folder)
    total = 0
    for step in range(plan.num_steps):
        counts = plan.count(step)
        assert sum(counts.values()) == step * 32 * 12
        total += int((plan.rows(step) == plan.boundary).sum())
    assert plan.count(plan.num_steps)["boundary"] == total


def digest(plan, steps, world_size):
    """Hash the global batches as the ranks see them, put in rank order."""
    state = hashlib.sha256()
    for step in steps:
        parts = [
            plan.rows(step, rank, world_size) for rank in range(world_size)
        ]
        state.update(np.concatenate(parts).tobytes())
    return state.hexdigest()


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_world_size_changes_nothing(store_folder, world_size):
    one = digest(make_plan(store_folder), range(16), 1)
    assert digest(make_plan(store_folder), range(16), world_size) == one


def test_batch_that_ranks_cannot_divide(store_folder):
    with pytest.raises(ValueError, match="12, which 5 ranks cannot divide"):
        make_plan(store_folder).rows(0, rank=0, world_size=5)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"tokens": 0, "mixture": {"en": 1}}, "0 tokens"),
        ({"tokens": "abc", "mixture": {"en": 1}}, "'abc' tokens"),
        ({"tokens": 5, "mixture": {"it": 1}}, "names it; .* en, fr"),
        ({"tokens": 5, "mixture": {"en": 0}}, "one of them > 0"),
        ({"tokens": 5, "mixture": {"en": -1, "fr": 2}}, "weights >= 0"),
        ({"tokens": 5, "mixture": {"en": 1}, "epochs": 3}, "epochs"),
    ],
)
def test_refused_stages(store_folder, stage, message):
    with pytest.raises(ValueError, match=message):
        make_plan(store_folder, [stage])


def test_step_outside_the_run(store_folder):
    with pytest.raises(IndexError, match="run of 16 steps"):
        make_plan(store_folder).rows(16)


def test_refused_configurations(store_folder):
    store = UnitStore(store_folder)
    with pytest.raises(ValueError, match="'stages' is empty"):
        TokenPlan(store, SOURCES, [], 32, 12, 7)
    with pytest.raises(ValueError, match="seed is -1"):
        TokenPlan(store, SOURCES, STAGES, 32, 12, -1)
    sources = {**SOURCES, "en": {"languages": ["en"], "switch": 0.5}}
    with pytest.raises(ValueError, match=r"Source 'en' .*'switch'"):
        TokenPlan(store, sources, STAGES, 32, 12, 7)


def test_damaged_store_is_not_trained_on(tmp_path):
    folder = write_store(tmp_path / "store", stories=9)
    path = folder / "units-00001.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"units-00001\.arrow differs"):
        UnitStore(folder)
