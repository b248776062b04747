import itertools
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from cloze_example import items_table, shuffled, write_items
from conftest import TOKENIZER

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.cloze.items import make_pairs, read_items
from speechbrain_slm.utils.store import StoreWriter

ROW = {
    "item_id": "a",
    "benchmark": "sSC",
    "prompt_language": "en",
    "ending_language": "fr",
    "prompt": "one",
    "right": "two",
    "wrong": "three",
}


def reader(context=None, tags=None):
    """What a scorer says of its model: two boundaries, this context."""
    return SimpleNamespace(
        context=context,
        language_tags=tags or {},
        count_symbols=lambda length: length + 2,
    )


def items(*rows):
    columns = {**ROW, "group": "a", "subset": ""}
    return pa.Table.from_pylist([{**columns, **row} for row in rows])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Stories of 5, 3, 4 and 9 units; the last begins like the first."""
    folder = tmp_path_factory.mktemp("store") / "cloze"
    own = {"identity": "a", "vocabulary_size": 101, "deduplicated": False}
    writer = StoreWriter(folder, TOKENIZER | own, "manifest", 1)
    stories = {
        "one": range(1, 6),
        "two": range(10, 13),
        "three": range(20, 24),
        "joined": [1, 2, 3, 4, 5, 60, 61, 62, 63],
        "other": [1, 2, 3, 4, 6, 70],
    }
    rows = [
        (name, language, "alto", [[unit + shift for unit in units]])
        for name, units in stories.items()
        for language, shift in (("en", 0), ("fr", 30))
    ]
    writer.write(0, rows)
    writer.finish()
    return UnitStore(folder)


def lists(pairs):
    return [tuple(part.tolist() for part in pair) for pair in pairs.pairs]


def test_csv_with_holes(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text(
        "item_id,benchmark,prompt_language,ending_language,prompt,right,wrong,"
        "group,subset\n"
        "1,sBLIMP,en,en,,r1,w1,7,\n"
        "2,sBLIMP,en,en,,r2,w2,,anaphor\n"
    )
    table = read_items(path)
    assert table["prompt"].to_pylist() == ["", ""]
    assert table["group"].to_pylist() == ["7", "2"]
    assert table["subset"].to_pylist() == ["", "anaphor"]
    # And without the columns that need not be.
    table = read_items(write_items(tmp_path / "items.parquet"))
    assert table["group"] == table["item_id"]
    assert set(table["subset"].to_pylist()) == {""}


def test_two_equal_endings_are_refused(tmp_path):
    path = write_items(tmp_path / "items.parquet", wrong="story-010")
    with pytest.raises(ValueError, match=r"parquet: item 'test-000' \(sS"):
        read_items(path)
    path = write_items(tmp_path / "items.parquet", wrong="")
    with pytest.raises(ValueError, match="row 0: column 'wrong' is empty"):
        read_items(path)


def test_pairs_do_not_depend_on_the_order_of_items(store_folder):
    store, table = UnitStore(store_folder), items_table()
    table = table.append_column("group", table["item_id"])
    other, order = shuffled(table)
    one, two = (make_pairs(t, store, reader()) for t in (table, other))
    assert lists(one) == lists(two)
    for side in ("right", "wrong"):
        np.testing.assert_array_equal(two.index[side], one.index[side][order])
    prompts = [prompt for prompt, _ in lists(one)]
    # Each prompt's pairs stand together.
    changes = sum(a != b for a, b in itertools.pairwise(prompts))
    assert changes + 1 == len(set(map(tuple, prompts)))


@pytest.mark.parametrize(
    ("row", "plain", "tagged"),
    [
        (
            {"prompt": "", "prompt_language": "fr"},
            ([], [40, 41, 42]),
            ([], [100, 40, 41, 42]),
        ),
        (
            {},
            ([1, 2, 3, 4, 5], [40, 41, 42]),
            ([99, 1, 2, 3, 4, 5], [100, 40, 41, 42]),
        ),
    ],
)
def test_tags_where_a_language_begins(store, row, plain, tagged):
    for tags, expected in ((None, plain), ({"en": 99, "fr": 100}, tagged)):
        pairs = make_pairs(items(row), store, reader(tags=tags))
        assert lists(pairs)[pairs.index["right"][0]] == expected


def test_truncation_gives_both_endings_one_prompt(store):
    # 5 + 4 + 2 boundaries are 11 symbols; with 2 tags 13.
    fits = make_pairs(items({}), store, reader(11), too_long="truncate")
    assert not fits.truncated.any()
    cut = make_pairs(items({}, ROW), store, reader(9), too_long="truncate")
    assert cut.truncated.tolist() == [True, True]
    assert {tuple(prompt) for prompt, _ in lists(cut)} == {(3, 4, 5)}
    model = reader(11, {"en": 99, "fr": 100})
    tagged = make_pairs(items({}), store, model, too_long="truncate")
    assert {tuple(prompt) for prompt, _ in lists(tagged)} == {(99, 3, 4, 5)}


def test_too_long_is_refused(store):
    message = r"item 'a' \(sSC, en>fr\): it has 2 symbols more .* of 9; set too"
    with pytest.raises(ValueError, match=message):
        make_pairs(items({}), store, reader(9))
    for context in (6, 5):
        with pytest.raises(ValueError, match="endings alone are too long"):
            make_pairs(items({}), store, reader(context), too_long="truncate")


def test_endings_encoded_with_their_prompt(store):
    row = {"ending_language": "en", "right": "joined", "wrong": "other"}
    pairs = make_pairs(items(row), store, reader(), endings="together")
    found = lists(pairs)
    assert found[pairs.index["right"][0]] == ([1, 2, 3, 4, 5], [60, 61, 62, 63])
    # The last frame of its prompt heard what follows.
    assert found[pairs.index["wrong"][0]] == ([1, 2, 3, 4, 6], [70])
    assert pairs.changed.tolist() == [True]
    same = {**row, "prompt": "one", "wrong": "joined", "right": "other"}
    assert make_pairs(items(same), store, reader(), "together").changed.all()


def test_together_refuses_what_it_cannot_split(store, store_folder):
    table = items({"ending_language": "en"})
    with pytest.raises(ValueError, match=r"'two' has 3 units .* alone 5"):
        make_pairs(table, store, reader(), "together")
    with pytest.raises(ValueError, match="de-duplicated"):
        make_pairs(items({}), UnitStore(store_folder), reader(), "together")


@pytest.mark.parametrize("option", ["endings", "too_long"])
def test_unknown_options(store, option):
    with pytest.raises(ValueError, match=f"{option} is 'both'; expected "):
        make_pairs(items({}), store, reader(), **{option: "both"})
