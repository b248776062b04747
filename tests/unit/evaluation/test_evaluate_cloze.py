"""The module ``cloze``; its integrity is tests/reliability/test_cloze.py."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from cloze_example import (
    DIRECTIONS,
    VOCABULARY,
    export,
    items_table,
    tiny_model,
    write_items,
)
from transformers import AutoModelForCausalLM

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.cloze.conventions import (
    LIKELIHOODS,
    OF_ENDINGS_ALONE,
)
from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze
from speechbrain_slm.evaluation.cloze.likelihood import LikelihoodScorer
from speechbrain_slm.utils.hashing import sha256_file


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return export(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model_folder, store_folder):
    """Folder of a finished evaluation, and what it returned."""
    folder = tmp_path_factory.mktemp("cloze")
    items = write_items(folder / "items.parquet")
    results = evaluate_cloze(model_folder, store_folder, items, folder)
    return folder, results


def test_results_say_what_they_are(finished, model_folder, store_folder):
    folder, results = finished
    assert json.loads((folder / "results.json").read_text()) == results
    store = UnitStore(store_folder)
    assert results["model"] == sha256_file(model_folder / "model.safetensors")
    assert results["tokenizer"] == store.identity == "codebook-a"
    assert results["units"] == store.info["identity"]
    assert results["items"] == sha256_file(folder / "items.parquet")
    assert results["scores"] == sha256_file(folder / "scores.parquet")
    main = [
        (record["metric"], record["direction"], record["n"])
        for record in results["records"]
        if record["scoring"] == results["scoring"]
    ]
    directions = "en", "fr", "en>fr", "fr>en"
    assert main == [(m, d, 10) for m in ("sSC", "sTC") for d in directions]


def test_a_copy_by_transformers_scores_the_same(
    finished, model_folder, store_folder, tmp_path
):
    """As after ``push_to_hub``: weights and config.json alone."""
    folder, results = finished
    copy, again = tmp_path / "copy", tmp_path / "again"
    AutoModelForCausalLM.from_pretrained(model_folder).save_pretrained(copy)
    items = folder / "items.parquet"
    # Its identity, too: results of the one are results of the other.
    assert evaluate_cloze(copy, store_folder, items, again) == results
    both = [pq.read_table(f / "scores.parquet") for f in (folder, again)]
    for name in (f"{s}_{c}" for s in ("right", "wrong") for c in LIKELIHOODS):
        one, other = (table[name].to_numpy() for table in both)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def check_scores(rows, store, scorer, tags):
    """Compare rows of scores.parquet with what each sequence scores."""
    for row in rows:
        languages = row["prompt_language"], row["ending_language"]
        prompt = np.concatenate(store.story(row["prompt"], languages[0]))
        assert row["prompt_units"] == len(prompt)
        before, after = ([tags[one]] if tags else [] for one in languages)
        switch = after if len(set(languages)) > 1 else []
        for side in ("right", "wrong"):
            ending = np.concatenate(store.story(row[side], languages[1]))
            assert row[f"{side}_units"] == len(ending)
            pair = [*before, *prompt], [*switch, *ending]
            for name, scores in scorer.score([pair]).items():
                found = row[f"{side}_{name}"]
                assert found == pytest.approx(scores[0], abs=1e-4)
        assert [*scorer.likelihoods] == [*LIKELIHOODS]
        for name in LIKELIHOODS:
            assert row[name] == (row[f"right_{name}"] > row[f"wrong_{name}"])


def test_scores_are_of_the_right_sequences(finished, store_folder):
    scorer = LikelihoodScorer(
        tiny_model(), VOCABULARY, VOCABULARY, endings_alone=True
    )
    rows = pq.read_table(finished[0] / "scores.parquet").to_pylist()
    assert len(rows) == 80
    check_scores(rows[::7], UnitStore(store_folder), scorer, {})


def test_tags_stand_where_training_has_them(tmp_path, store_folder):
    tags = {"fr": VOCABULARY + 1, "en": VOCABULARY + 2}
    model = tiny_model(tags=2)
    folder = export(tmp_path / "model", model, language_tags=tags)
    items = write_items(tmp_path / "items.parquet", items_table(2))
    evaluate_cloze(folder, store_folder, items, tmp_path)
    how: dict = {"language_tags": tags, "endings_alone": True}
    scorer = LikelihoodScorer(model, VOCABULARY, VOCABULARY, **how)
    rows = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert len(rows) == 16
    check_scores(rows, UnitStore(store_folder), scorer, tags)


@pytest.fixture
def scored(monkeypatch):
    """Counts the pairs of each call; stops at the calls that are named."""
    original = LikelihoodScorer.score
    calls = SimpleNamespace(counts=[], stop_at=None)

    def counting(self, pairs, names=None):
        calls.counts.append(len(pairs))
        if len(calls.counts) == calls.stop_at:
            raise KeyboardInterrupt
        return original(self, pairs, names)

    monkeypatch.setattr(LikelihoodScorer, "score", counting)
    return calls


@pytest.fixture
def folders(tmp_path, model_folder, store_folder):
    items = write_items(tmp_path / "items.parquet")
    return model_folder, store_folder, items, tmp_path / "out"


def test_each_sequence_is_scored_once_and_not_again(finished, folders, scored):
    """Stopped in its third part, it goes on with that one."""
    scored.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        evaluate_cloze(*folders, pairs_per_shard=50)
    assert not (folders[-1] / "results.json").exists()
    again = evaluate_cloze(*folders, pairs_per_shard=50)
    # 10 prompts, 4 directions; 3 endings serve the two benchmarks.
    assert scored.counts == [50, 50, 20, 20]
    assert sum(scored.counts[:3]) == 10 * len(DIRECTIONS) * 3
    assert again["records"] == finished[1]["records"]
    assert not (folders[-1] / "parts").exists()


def test_parts_of_others_are_not_taken(tmp_path, finished, folders, scored):
    other = export(tmp_path / "other", tiny_model(seed=5))
    scored.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        evaluate_cloze(other, *folders[1:], pairs_per_shard=50)
    assert len(list(folders[-1].glob("parts/*/*.parquet"))) == 1
    again = evaluate_cloze(*folders, pairs_per_shard=50)
    assert again["records"] == finished[1]["records"]


def test_a_further_likelihood_is_one_line(
    finished, folders, scored, monkeypatch, tmp_path
):
    """Parts without it are not taken; it is computed when it is asked for."""
    scored.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        evaluate_cloze(*folders, pairs_per_shard=50)
    monkeypatch.setitem(
        LIKELIHOODS, "ending_first", lambda _, ending, alone: ending[0]
    )
    found = evaluate_cloze(*folders, pairs_per_shard=50)
    assert scored.counts == [50, 50, 50, 50, 20]
    extra = [r for r in found["records"] if r["scoring"] == "ending_first"]
    known = [r for r in found["records"] if r not in extra]
    assert known == finished[1]["records"]
    assert len(extra) == len(known) / (len(LIKELIHOODS) - 1)
    scores = pq.read_table(folders[-1] / "scores.parquet")
    for row in scores.to_pylist()[::9]:
        assert row["right_ending_sum"] <= row["right_ending_first"] < 0
    # Results that were finished before it was there.
    old = shutil.copytree(finished[0], tmp_path / "old")
    folders = *folders[:2], old / "items.parquet", old
    assert evaluate_cloze(*folders) == finished[1]
    asked = evaluate_cloze(*folders, {"scoring": "ending_first"})
    assert asked["records"] == found["records"]


def test_what_is_complete_is_reused(tmp_path, copy, finished, store_folder):
    times = {p.name: p.stat().st_mtime_ns for p in copy.iterdir()}
    model = export(tmp_path / "same")
    again = evaluate_cloze(model, store_folder, copy / "items.parquet", copy)
    assert again == finished[1]
    assert times == {p.name: p.stat().st_mtime_ns for p in copy.iterdir()}


@pytest.fixture
def copy(tmp_path, finished):
    return shutil.copytree(finished[0], tmp_path / "copy")


@pytest.mark.parametrize("change", ["model", "items", "scoring", "scores"])
def test_what_changed_is_done_again(tmp_path, copy, finished, folders, change):
    options = {}
    model_folder, store_folder, *_ = folders
    if change == "model":
        model_folder = export(tmp_path / "other", tiny_model(seed=5))
    elif change == "items":
        write_items(copy / "items.parquet", items_table(count=9))
    elif change == "scoring":
        options["convention"] = {"scoring": "ending_mean"}
    else:
        (copy / "scores.parquet").write_bytes(b"torn")
    again = evaluate_cloze(
        model_folder, store_folder, copy / "items.parquet", copy, **options
    )
    assert (again == finished[1]) == (change == "scores")
    assert again["scores"] == sha256_file(copy / "scores.parquet")
    rows = 72 if change == "items" else 80
    assert len(pq.read_table(copy / "scores.parquet")) == rows


def test_any_set_of_languages(tmp_path, model_folder, three_languages):
    languages = ("de", "en", "fr")
    table = items_table(3, [(a, b) for a in languages for b in languages])
    items = write_items(tmp_path / "items.parquet", table)
    results = evaluate_cloze(model_folder, three_languages, items, tmp_path)
    assert len({record["direction"] for record in results["records"]}) == 9
    means = [
        r for r in results["cross_lingual"] if r["scoring"] == "whole_mean"
    ]
    assert [mean["n"] for mean in means] == [3, 3]


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({"identity": "codebook-b"}, r"codebook-b.*codebook-a"),
        ({"size": 29, "language_tags": {"en": 30}}, r"size 29.*size 30"),
        ({"language_tags": {"en": 31}}, r"item 'test-000' .*no tag for 'fr'"),
    ],
)
def test_other_units_are_refused(tmp_path, store_folder, units, message):
    items = write_items(tmp_path / "items.parquet")
    model = export(tmp_path / "model", **units)
    with pytest.raises(ValueError, match=message):
        evaluate_cloze(model, store_folder, items, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("convention", "message"),
    [
        ({"scoring": "whole"}, "scoring is 'whole'; expected whole_mean or "),
        ({"ties": 0}, "no key ties"),
        ({"tie": 1}, "tie is 1; expected 0.5 or 0"),
    ],
)
def test_a_convention_is_checked_first(tmp_path, convention, message):
    with pytest.raises(ValueError, match=message):
        evaluate_cloze("no", "such", "file", tmp_path, convention)


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        ({}, {"convention": {"start": "first_unit"}}, "start is 'first_unit'"),
        ({"prompt": ""}, {}, r"item 'test-000' \(sSC, en\) has no prompt"),
    ],
)
def test_without_an_ending_alone_there_is_no_normalised(
    tmp_path, model_folder, store_folder, changes, options, told, caplog
):
    """Where endings are together: test_joined_items."""
    items = write_items(tmp_path / "items.parquet", items_table(2), **changes)
    arguments = model_folder, store_folder, items, tmp_path
    with caplog.at_level("INFO"):
        found = evaluate_cloze(*arguments, **options)
    assert re.search(f"no column 'normalised', '.*': {told}", caplog.text)
    shown = {record["scoring"] for record in found["records"]}
    assert shown == {*LIKELIHOODS} - {*OF_ENDINGS_ALONE}
    names = pq.read_schema(tmp_path / "scores.parquet").names
    assert not any(name.endswith(OF_ENDINGS_ALONE) for name in names)
    wanted = options.get("convention", {}) | {"scoring": "normalised"}
    with pytest.raises(ValueError, match=f"alone behind a .*, but {told}"):
        evaluate_cloze(*arguments, convention=wanted)


def test_bad_items_are_refused(tmp_path, model_folder, store_folder):
    items = write_items(tmp_path / "items.parquet", right="story-999")
    ledger = str(store_folder.parent / "left_out.jsonl")
    with pytest.raises(ValueError, match=rf"rejected, {re.escape(ledger)} "):
        evaluate_cloze(model_folder, store_folder, items, tmp_path)
    pq.write_table(items_table(0), items)
    with pytest.raises(ValueError, match="table of items is empty"):
        evaluate_cloze(model_folder, store_folder, items, tmp_path)


def test_what_another_wrote_stays(folders):
    output = folders[-1]
    paid = output / "parts" / "train" / "part-00000000.parquet"
    named = output / "parts" / "part-00000000.parquet"
    for path in (paid, named):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"paid for")
    results = output / "results.json"
    results.write_text("{}")
    with pytest.raises(FileExistsError, match=r"results\.json stands where"):
        evaluate_cloze(*folders)
    assert results.read_text() == "{}"
    results.unlink()
    evaluate_cloze(*folders)
    assert results.is_file()
    assert sorted((output / "parts").rglob("*.*")) == [named, paid]


def test_complete_results_that_were_edited_are_named(
    copy, model_folder, store_folder
):
    path = copy / "results.json"
    results = json.loads(path.read_text())
    results["records"][0]["n"] = "many"
    path.write_text(json.dumps(results))
    arguments = model_folder, store_folder, copy / "items.parquet", copy
    with pytest.raises(ValueError, match=r"records\[0\]\.n is 'many'; expec"):
        evaluate_cloze(*arguments)


def test_results_of_another_configuration_are_not_taken(
    tmp_path, copy, finished, model_folder, store_folder
):
    """The same weights, read otherwise, are another model."""
    model = shutil.copytree(model_folder, tmp_path / "model")
    (model / "files.json").unlink()
    config = json.loads((model / "config.json").read_text())
    config["rms_norm_eps"] = 0.5
    (model / "config.json").write_text(json.dumps(config))
    found = evaluate_cloze(model, store_folder, copy / "items.parquet", copy)
    assert found["model"] == finished[1]["model"]
    assert found["configuration"] != finished[1]["configuration"]
    assert found["scores"] != finished[1]["scores"]
