"""Check 18: cloze scores that nothing but the model and the units changes."""

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from alignment_example import TOKENIZER
from cloze_example import (
    VOCABULARY,
    export,
    items_table,
    shuffled,
    tiny_model,
    write_items,
)

from speechbrain_slm.evaluation.cloze.conventions import (
    LIKELIHOODS,
    OF_ENDINGS_ALONE,
)
from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze
from speechbrain_slm.utils.store import StoreWriter
from speechbrain_slm.utils.tables import ITEMS


def run(folder, model, store, table, **options):
    """Evaluate in ``folder`` and return results and per-item scores."""
    folder.mkdir(exist_ok=True)
    items = write_items(folder / "items.parquet", table)
    results = evaluate_cloze(model, store, items, folder, **options)
    return results, pq.read_table(folder / "scores.parquet")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return export(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def reference(tmp_path_factory, model_folder, store_folder):
    folder = tmp_path_factory.mktemp("reference")
    return run(folder, model_folder, store_folder, items_table())


@pytest.fixture
def again(tmp_path, model_folder, store_folder):
    """Evaluate other items, or with other options."""
    return partial(run, tmp_path, model_folder, store_folder)


def assert_close(found, expected, order=None):
    for side in ("right", "wrong"):
        for convention in LIKELIHOODS:
            name = f"{side}_{convention}"
            values = expected[name].to_numpy()
            values = values if order is None else values[order]
            other = found[name].to_numpy()
            # What is left of two sums has the roundings of both.
            close = 3e-5 if convention in OF_ENDINGS_ALONE else 1e-5
            np.testing.assert_allclose(other, values, 0, close, err_msg=name)


def swapped(table):
    """Name the columns of the right ending after the wrong one's, and back."""
    other = {"right": "wrong", "wrong": "right"}
    names = (name.partition("_") for name in table.column_names)
    return ["".join((other.get(a, a), *rest)) for a, *rest in names]


@pytest.mark.parametrize("sequences", [1, 8])
def test_batch_size_changes_nothing(again, reference, sequences):
    results, scores = reference
    lengths = [
        1 + row["prompt_units"] + row[f"{side}_units"]
        for row in scores.to_pylist()
        for side in ("right", "wrong")
    ]
    batch_tokens = 1 if sequences == 1 else 8 * max(lengths)
    found, found_scores = again(items_table(), batch_tokens=batch_tokens)
    assert_close(found_scores, scores)
    assert found["records"] == results["records"]


def test_order_of_items_changes_nothing(again, reference):
    results, scores = reference
    table, order = shuffled(items_table())
    found, found_scores = again(table)
    assert found_scores["item_id"] == table["item_id"]
    assert_close(found_scores, scores, order)
    assert found["records"] == results["records"]


def test_swapped_choices_give_the_complement(again, reference):
    results, scores = reference
    table = items_table()
    table = table.rename_columns(swapped(table))
    found, found_scores = again(table)
    assert_close(found_scores.rename_columns(swapped(found_scores)), scores)
    for one, other in zip(results["records"], found["records"], strict=True):
        assert one["accuracy"] + other["accuracy"] == pytest.approx(100)


def test_equal_units_tie_whatever_their_batch(tmp_path, model_folder):
    """Endings of equal units under two names; nothing else is equal."""
    writer = StoreWriter(tmp_path / "store", TOKENIZER, "manifest", 1)
    generator = np.random.default_rng(0)
    rows, items = [], []
    for number in range(30):
        units = generator.integers(0, VOCABULARY, 9)
        other = generator.integers(0, VOCABULARY, 4)
        names = [f"{number}.{role}" for role in ("prompt", "right", "wrong")]
        rows += [
            (name, "en", "alto", [said])
            for name, said in zip(names, (units, other, other), strict=True)
        ]
        items.append([str(number), "sSC", "en", "en", *names])
    writer.write(0, rows)
    writer.finish()
    columns = list(map(list, zip(*items, strict=True)))
    table = pa.table(columns, schema=ITEMS)
    store = tmp_path / "store"
    results, _ = run(tmp_path, model_folder, store, table, batch_tokens=28)
    for record in results["records"]:
        assert record["accuracy"] == 50.0
        assert record["ties"] == record["n"] == 30


def test_a_model_that_knows_nothing_scores_one_half(tmp_path, store_folder):
    model = tiny_model()
    torch.nn.init.zeros_(model.lm_head.weight)
    folder = export(tmp_path / "model", model)
    results, _ = run(tmp_path, folder, store_folder, items_table())
    for record in results["records"]:
        if record["scoring"].endswith(("_mean", "normalised")):
            assert record["accuracy"] == 50.0


def test_nan_raises_and_names_the_item(tmp_path, store_folder):
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    folder = export(tmp_path / "model", model)
    with pytest.raises(ValueError, match=r"item 'test-\d{3}' \(s.C, .*finite"):
        run(tmp_path / "out", folder, store_folder, items_table())
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize("role", ["prompt", "right", "wrong"])
def test_a_missing_choice_raises_and_names_the_item(
    tmp_path, model_folder, store_folder, role
):
    items = write_items(tmp_path / "items.parquet", **{role: "story-999"})
    message = rf"'test-000' \(sSC, en\): its {role}.*'story-999'"
    with pytest.raises(ValueError, match=message):
        evaluate_cloze(model_folder, store_folder, items, tmp_path)
    assert not (tmp_path / "results.json").exists()
