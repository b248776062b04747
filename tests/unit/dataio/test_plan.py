"""The token plan: budgets, mixtures, ranks."""

import hashlib
import logging

import numpy as np
import pytest
from conftest import write_store

from speechbrain_slm.dataio import packing
from speechbrain_slm.dataio.plan import Stage, TokenPlan
from speechbrain_slm.dataio.reader import UnitStore, open_stores

NAN = float("nan")
SOURCES = {
    "en": {"languages": ["en"]},
    "fr": {"languages": ["fr"]},
    "interleaved": {"languages": ["en", "fr"], "switch_probability": 0.5},
}
MIXED = SOURCES["interleaved"]
STAGES = [
    {"tokens": 32 * 12 * 10, "mixture": {"en": 0.5, "fr": 0.5}},
    {"tokens": 32 * 12 * 6, "mixture": {"interleaved": 0.4, "en": 0.6}},
]


def source(name, **settings):
    return {"sources": {**SOURCES, name: settings}}


def make_plan(folder, stages=None, seed=7, sources=SOURCES, **settings):
    store = UnitStore(folder)
    return TokenPlan(
        dict.fromkeys(sources, store),
        sources,
        STAGES if stages is None else stages,
        **{"row_length": 32, "rows_per_step": 12, "seed": seed, **settings},
    )


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_rows_continue_each_source_and_budgets_are_exact(store_folder, packing):
    plan = make_plan(store_folder, packing=packing)
    assert plan.num_steps == 16
    assert plan.first_steps.tolist() == [0, 10, 16]
    streams = {
        name: packed.rows(np.arange(110)).tolist()
        for name, packed in plan.sources.items()
    }
    taken = dict.fromkeys(SOURCES, 0)
    for step in range(plan.num_steps):
        assert plan.rows_of(step) == taken
        before = dict(taken)
        for row in plan.rows(step).tolist():
            (name,) = [
                name
                for name, rows in streams.items()
                if taken[name] < len(rows) and row == rows[taken[name]]
            ]
            taken[name] += 1
        now = {name: taken[name] - before[name] for name in SOURCES}
        if step < 10:
            assert now == {"en": 6, "fr": 6, "interleaved": 0}
        else:
            assert now["interleaved"] in (4, 5, 6)
    assert plan.rows_of(16) == taken
    assert taken == {
        "en": 60 + round(0.6 * 72),
        "fr": 60,
        "interleaved": 72 - round(0.6 * 72),
    }


def test_dealing_is_even_and_exact():
    mixture = {"a": 0.1, "b": 0.25, "c": 0.65}
    stage = Stage({"tokens": 4000, "mixture": mixture}, ["a", "b", "c"], 2, 4)
    dealt = stage.dealt(np.arange(stage.rows + 1))
    assert dealt[-1].tolist() == stage.shares.tolist() == [200, 500, 1300]
    assert (np.diff(dealt, axis=0).sum(axis=1) == 1).all()
    exact = np.outer(np.arange(stage.rows + 1), [0.1, 0.25, 0.65])
    assert np.abs(dealt - exact).max() <= 1


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
@pytest.mark.parametrize("tags", [[], ["en", "fr"]])
def test_counts_equal_what_the_rows_hold(store_folder, packing, tags):
    plan = make_plan(store_folder, packing=packing, language_tags=tags)
    assert plan.num_symbols == plan.boundary + 1 + len(tags)
    found = {"units": 0, "boundary": 0, "tag": 0, "padding": 0}
    for step in range(plan.num_steps):
        counts = plan.count(step)
        assert sum(counts.values()) == step * 32 * 12
        assert counts.pop("en") + counts.pop("fr") == found["units"]
        assert counts == {k: found[k] for k in found if k != "units"}
        for row in plan.rows(step):
            empty = 0
            if packing == "best_fit":
                empty = len(row) - 1 - np.flatnonzero(row != 30)[-1]
            found["padding"] += empty
            found["boundary"] += (row == plan.boundary).sum() - empty
            found["tag"] += (row > plan.boundary).sum()
            found["units"] += (row < plan.boundary).sum()
    assert (found["tag"] > 0) == bool(tags)
    assert (found["padding"] > 0) == (packing == "best_fit")
    statistics = plan.statistics(16)
    assert sum(s["rows"] for s in statistics.values()) == 16 * 12
    assert statistics["en"]["switches"] == 0
    assert statistics["interleaved"]["switches"] > 0


@pytest.mark.parametrize("block", [7, 2048])
def test_passes_are_counted_to_the_token(
    store_folder, caplog, monkeypatch, block
):
    """Within the first block of stories, too, and over many."""
    monkeypatch.setattr(packing, "BLOCK", block)
    stages = [{"tokens": 32 * 12 * 20, "mixture": {"en": 1}}]
    plan = make_plan(store_folder, stages)
    pass_tokens = UnitStore(store_folder).info["counts"]["en"]["units"] + 40
    found = [plan.statistics(step)["en"]["passes"] for step in range(21)]
    expected = np.arange(21) * 32 * 12 / pass_tokens
    assert found == pytest.approx(expected, abs=1e-6)
    assert 0 < found[1] < 1 < found[-1]
    with caplog.at_level(logging.INFO):
        plan.log_summary()
    assert f"source en: 240 rows, {found[-1]:.3f} passes over 40" in caplog.text


@pytest.mark.parametrize("name", ["concatenate", "best_fit"])
def test_passes_of_what_is_drawn_anew(store_folder, name):
    """An epoch of interleaved stories ends where the next one begins."""
    packed = make_plan(store_folder, packing=name).sources["interleaved"]
    for epoch in (1, 2):
        before = packed.rows_before(epoch)
        assert packed.passes(before) <= epoch < packed.passes(before + 1)


def test_a_budget_in_steps(store_folder):
    """The same run as one whose tokens make these steps."""
    steps = [{"steps": 10, **STAGES[0]}, {"steps": 6, **STAGES[1]}]
    for stage in steps:
        del stage["tokens"]
    plan, other = make_plan(store_folder, steps), make_plan(store_folder)
    assert plan.first_steps.tolist() == other.first_steps.tolist()
    assert all((plan.rows(k) == other.rows(k)).all() for k in range(16))
    assert plan.identity["stages"] == steps
    assert other.identity["stages"] == STAGES


def test_identity_knows_the_aligned_share(store_folder):
    found = []
    for changes in ({}, {"aligned_share": 1.0}, {"aligned_share": 0.5}):
        sources = dict(SOURCES)
        sources["interleaved"] = {**sources["interleaved"], **changes}
        stores = open_stores(sources, store_folder.parent, store_folder.name)
        plan = TokenPlan(stores, sources, STAGES, 32, 12, 7)
        found.append(plan.identity)
    assert found[0] == found[1] != found[2]


def test_stores_beside_each_other(store_folder, tmp_path):
    """A source of another corpus, in one language alone."""
    other = tmp_path / "more" / "train"
    write_store(other, languages=("en",), stories=30, seed=5)
    sources = {
        **SOURCES,
        "more": {"languages": ["en"], "units_folder": str(tmp_path / "more")},
    }
    stages = [{"tokens": 32 * 12 * 8, "mixture": {"more": 1, "interleaved": 1}}]
    link = tmp_path / "units"
    link.mkdir()
    (link / "train").symlink_to(store_folder)
    stores = open_stores(sources, link, "train")
    assert stores["en"] is stores["interleaved"] is not stores["more"]
    plan = TokenPlan(stores, sources, stages, 32, 12, 7)
    assert plan.rows_of(8) == {"interleaved": 48, "more": 48}
    assert "units_folder" not in plan.identity["sources"]["more"]
    assert plan.identity["stores"]["more"] == stores["more"].info["identity"]
    write_store(tmp_path / "b", languages=("en",), identity="codebook-b")
    stores["more"] = UnitStore(tmp_path / "b")
    with pytest.raises(ValueError, match="expected one tokenizer"):
        TokenPlan(stores, sources, stages, 32, 12, 7)


def digest(plan, steps, world_size):
    """Hash the global batches as the ranks see them, put in rank order."""
    state = hashlib.sha256()
    for step in steps:
        for rank in range(world_size):
            state.update(plan.rows(step, rank, world_size).tobytes())
    return state.hexdigest()


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_world_size_changes_nothing(store_folder, packing):
    """Check 12: any ranks, and 2 then 3, 4 then 1, see the same batches."""
    one = digest(make_plan(store_folder, packing=packing), range(16), 1)
    for world_size in (2, 3, 4):
        plan = make_plan(store_folder, packing=packing)
        assert digest(plan, range(16), world_size) == one
    whole = make_plan(store_folder, packing=packing)
    for first, second in ((2, 3), (4, 1)):
        assert digest(whole, range(7), first) == digest(whole, range(7), 1)
        resumed = make_plan(store_folder, packing=packing)
        rest = digest(resumed, range(7, 16), second)
        assert rest == digest(whole, range(7, 16), 1)


def test_batch_that_ranks_cannot_divide(store_folder):
    with pytest.raises(ValueError, match="12, which 5 ranks cannot divide"):
        make_plan(store_folder).rows(0, rank=0, world_size=5)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"tokens": 0, "mixture": {"en": 1}}, "1 of 1: tokens is 0; .*above 0"),
        ({"tokens": NAN, "mixture": {"en": 1}}, "tokens is nan"),
        ({"tokens": True, "mixture": {"en": 1}}, "tokens is True"),
        ({"tokens": "abc", "mixture": {"en": 1}}, "tokens is 'abc'"),
        ({"tokens": 1e13, "mixture": {"en": 1}}, "Split it into several"),
        ({"steps": 0, "mixture": {"en": 1}}, "steps is 0; .*integer"),
        ({"steps": 1.5, "mixture": {"en": 1}}, "steps is 1.5"),
        ({"steps": 5, "tokens": 5, "mixture": {"en": 1}}, "either tokens or"),
        ({"mixture": {"en": 1}}, "either tokens or steps"),
        ({"tokens": 5, "mixture": "en"}, "mixture is 'en'"),
        ({"tokens": 5, "mixture": {"it": 1}}, "names it; .* en, fr"),
        ({"tokens": 5, "mixture": {"en": 0}}, "sum of its weights is 0"),
        ({"tokens": 5, "mixture": {"en": NAN}}, "weight of 'en' is nan"),
        ({"tokens": 5, "mixture": {"en": -1, "fr": 2}}, "'en' is -1; .* 0"),
        ({"tokens": 5, "mixture": {"en": 1}, "epochs": 3}, "epochs"),
        ("en", "is 'en'; expected a mapping"),
    ],
)
def test_refused_stages(store_folder, stage, message):
    with pytest.raises(ValueError, match=message):
        make_plan(store_folder, [stage])


def test_step_outside_the_run(store_folder):
    with pytest.raises(IndexError, match="run of 16 steps"):
        make_plan(store_folder).rows(16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": []}, "'stages' is empty"),
        ({"stages": "en"}, "stages is 'en'; expected a list"),
        ({"seed": -1}, "seed is -1"),
        ({"row_length": 1}, "row_length is 1; .* at least 2"),
        ({"row_length": 32.0}, "row_length is 32.0; expected an integer"),
        ({"rows_per_step": 0}, "rows_per_step is 0"),
        ({"language_tags": "en"}, "language_tags is 'en'; expected a list"),
        (source("en", languages="en"), "is 'en'; .*list"),
        ({"sources": {**SOURCES, "en": None}}, "'en' is None; .* mapping"),
        (source("fr", **MIXED, span=0), "span is 0"),
        (source("fr", **MIXED, shuffle_alignment=0), "alignment is 0; .*True"),
        ({"packing": "tight"}, "packing is 'tight'; .* best_fit"),
        ({"row_length": 7, "packing": "best_fit"}, "Set row_length to 8"),
        ({"language_tags": ["en"]}, "'fr' has fr, .* no tag"),
        ({"language_tags": ["en", "fr", "en"]}, "names one twice"),
        (source("fr", languages=["it"]), r"asks .* \['it'\]; .* holds en, fr"),
        (source("en", languages=["en"], p=0.5), r"Source 'en' .*'p'"),
    ],
)
def test_refused_configurations(store_folder, settings, message):
    with pytest.raises(ValueError, match=message):
        make_plan(store_folder, **settings)


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_validation_rows(store_folder, tmp_path, packing):
    plan = make_plan(store_folder, packing=packing)
    valid = UnitStore(write_store(tmp_path / "valid", stories=9, seed=3))
    rows = plan.valid_rows(dict.fromkeys(SOURCES, valid), 4)
    assert [*rows] == [*SOURCES]
    assert {found.shape for found in rows.values()} == {(4, 32)}
    most = plan.valid_rows(dict.fromkeys(SOURCES, valid), 10_000)
    units = valid.info["counts"]["en"]["units"] + 9
    assert (most["en"][:4] == rows["en"]).all()
    if packing == "concatenate":
        assert len(most["en"]) == units // 32
        few = UnitStore(write_store(tmp_path / "few", stories=1))
        plan = make_plan(store_folder, row_length=100)
        with pytest.raises(ValueError, match="fewer than 100 tokens"):
            plan.valid_rows(dict.fromkeys(SOURCES, few), 4)


def test_damaged_store_is_not_trained_on(tmp_path):
    folder = write_store(tmp_path / "store", stories=9)
    path = folder / "units-00001.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"units-00001\.arrow differs"):
        UnitStore(folder)
