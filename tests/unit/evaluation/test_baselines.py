import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from alignment_example import TOKENIZER
from cloze_example import DIRECTIONS, VOCABULARY, write_items

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.cloze.accuracy import direction_of
from speechbrain_slm.evaluation.cloze.baselines import evaluate_baseline
from speechbrain_slm.evaluation.cloze.conventions import LIKELIHOODS
from speechbrain_slm.models.ngram import UnitNgram
from speechbrain_slm.utils.store import StoreWriter
from speechbrain_slm.utils.tables import ITEMS


def stories(store):
    """Return the units of every story in every language."""
    return [
        np.concatenate(store.story(name, language)).tolist()
        for language in store.languages
        for name in store.story_ids.to_pylist()
    ]


@pytest.fixture
def evaluated(tmp_path, store_folder):
    """Evaluate, and return the results and the rows of the scores."""
    items = write_items(tmp_path / "items.parquet")

    def evaluate(kind, **options):
        folder = tmp_path / "-".join(map(str, (kind, *options.values())))
        where = store_folder, store_folder, items, folder
        results = evaluate_baseline(kind, *where, **options)
        return results, pq.read_table(folder / "scores.parquet").to_pylist()

    return evaluate


def test_a_bag_is_a_weighted_cosine(evaluated, store_folder):
    results, rows = evaluated("bag")
    assert results["scoring"] == "cosine"
    assert {r["scoring"] for r in results["records"]} == {"cosine"}
    store = UnitStore(store_folder)
    known = stories(store)
    having = Counter(unit for story in known for unit in set(story))
    idf = [
        1 + math.log((1 + len(known)) / (1 + having[unit]))
        for unit in range(VOCABULARY)
    ]
    for row in rows[::7]:
        sides = (
            (row["prompt"], row["prompt_language"]),
            (row["right"], row["ending_language"]),
        )
        one, other = (
            np.bincount(np.concatenate(store.story(*side)), None, VOCABULARY)
            * idf
            for side in sides
        )
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert row["right_cosine"] == pytest.approx(cosine, abs=1e-12)


@pytest.mark.parametrize("kind", ["unigram", "ngram"])
def test_counts_have_the_likelihoods_of_a_model(evaluated, store_folder, kind):
    results, rows = evaluated(kind, order=3)
    assert {r["scoring"] for r in results["records"]} == {*LIKELIHOODS}
    store, end = UnitStore(store_folder), [VOCABULARY]
    known = [np.array([*end, *story, *end]) for story in stories(store)]
    model = UnitNgram(known, {"unigram": 1, "ngram": 3}[kind], VOCABULARY + 1)
    for row in rows[::9]:
        prompt = store.story(row["prompt"], row["prompt_language"])
        ending = store.story(row["wrong"], row["ending_language"])
        alone = model.log_probs([np.concatenate([end, *ending])])[0]
        whole = model.log_probs([np.concatenate([end, *prompt, *ending])])[0]
        after = whole[-len(alone) :]
        for name, expected in {
            "whole_mean": whole.mean(),
            "ending_sum": after.sum(),
            "ending_first_5": after[:5].mean(),
            "normalised": after.sum() - alone.sum(),
        }.items():
            found = row[f"wrong_{name}"]
            assert found == pytest.approx(expected, abs=1e-9)
    if kind == "unigram":  # knows nothing of what came before
        ties = [r["ties"] for r in results["records"][5 :: len(LIKELIHOODS)]]
        assert ties == [10] * 8


def test_what_decides_the_scores_decides_the_identity(evaluated):
    how = [
        {"kind": "ngram", "order": 2},
        {"kind": "ngram", "order": 3},
        {"kind": "ngram_interleaved", "order": 3},
        {"kind": "ngram_interleaved", "order": 3, "switch_probability": 1},
        {"kind": "unigram"},
        {"kind": "bag"},
    ]
    models = {evaluated(**options)[0]["model"] for options in how}
    assert len(models) == len(how)
    # What a kind does not read makes no other model of it.
    one, other = (evaluated("unigram", order=order)[0] for order in (2, 3))
    assert one == other


def test_interleaved_stories_tell_what_comes_in_another_language(tmp_path):
    writer = StoreWriter(tmp_path / "store", TOKENIZER, "manifest", 1)
    rows = []
    for number in range(5):
        # In English 0 and then 5, or 1 and then 6; in French 10 and then 15.
        for language, first in (("en", number), ("fr", 10 + number)):
            both = np.array([first]), np.array([first + 5])
            told = {f"story {number}, {copy}": both for copy in range(12)}
            told |= {f"prompt {number}": both[:1], f"end {number}": both[1:]}
            rows += [(n, language, "alto", list(u)) for n, u in told.items()]
    writer.write(0, rows)
    writer.finish()
    parts = "prompt {}", "end {}", "end {}"
    items = [
        [f"{n}", "sSC", *pair, *map(str.format, parts, (n, n, (n + 1) % 5))]
        for pair in DIRECTIONS
        for n in range(5)
    ]
    table = pa.table(list(map(list, zip(*items, strict=True))), schema=ITEMS)
    where = (
        *[tmp_path / "store"] * 2,
        write_items(tmp_path / "i.parquet", table),
    )
    found = {}
    for kind in ("ngram", "ngram_interleaved"):
        results = evaluate_baseline(kind, *where, tmp_path / kind, order=2)
        for record in results["records"]:
            if record["scoring"] == "ending_sum":
                found[kind, record["direction"]] = record["accuracy"]
    for pair in DIRECTIONS:
        direction = direction_of(*pair)
        same = len(set(pair)) == 1
        assert found["ngram", direction] == (100 if same else 50)
        assert found["ngram_interleaved", direction] == 100
