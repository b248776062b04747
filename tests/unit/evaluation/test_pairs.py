import collections

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from alignment_example import text_of, units_said, write_corpus

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.alignment.pairs import (
    PAIRS,
    SIDES,
    parallel_pairs,
    read_spoken,
    units_of,
)
from speechbrain_slm.utils.tables import MANIFEST, write_table

EN_FR = ["en", "fr"]


def make(folder, **options):
    """Write a corpus; return its store, texts and speakers."""
    write_corpus(folder, **options)
    spoken = read_spoken(folder / "manifest.parquet")
    return UnitStore(folder / "store"), *spoken


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make(tmp_path_factory.mktemp("corpus"))[:2]


def places(row):
    """Return (story, sentence, language) of each side of a row."""
    languages = row["source_language"], *[row["target_language"]] * 2
    return [
        (row[f"{side}_story"], row[f"{side}_sentence"], language)
        for side, language in zip(SIDES, languages, strict=True)
    ]


def described(row, texts):
    """Return (number of the text, speaker, length) of each side of a row."""
    numbers = [int(texts[place].split()[1]) for place in places(row)]
    return [
        (number, row[f"{side}_speaker"], row[f"{side}_units"])
        for side, number in zip(SIDES, numbers, strict=True)
    ]


@pytest.mark.parametrize("several", [False, True])
def test_pairs_are_translations_and_mismatches_are_matched(tmp_path, several):
    store, texts, speakers = make(tmp_path, several=several)
    told = {"texts": texts, "speakers": speakers}
    pairs, (summary,) = parallel_pairs(store, EN_FR, **told)
    assert pairs.schema == PAIRS
    said = collections.defaultdict(set)
    for place, text in texts.items():
        if place[2] == "fr":
            said[speakers[place]].add(int(text.split()[1]))
    for row in pairs.to_pylist():
        sides = source, target, mismatch = described(row, texts)
        for place, side in zip(places(row), sides, strict=True):
            units = units_of(store, *place)
            assert side[1:] == (speakers[place], len(units))
            expected = units_said(side[0], place[2], side[1])
            assert units.tolist() == expected.tolist()
        assert source[0] == target[0]
        assert row["same_voice"] == (source[1] == target[1])
        # Of another text, by the same voice, and none of these is nearer.
        assert mismatch[0] != target[0]
        assert mismatch[1] == target[1]
        nearest = min(
            abs(len(units_said(number, "fr", target[1])) - target[2])
            for number in said[target[1]] - {target[0]}
        )
        assert abs(mismatch[2] - target[2]) == nearest
    assert summary["voices"] == ["same", "different"]
    assert summary["paired"] + summary["left_out"] == summary["items"]
    # 0 to 24 are all said somewhere.
    assert summary["items"] == 25
    assert summary["paired"] > 20


def test_a_text_counts_once_and_voices_have_the_same_items(corpus):
    store, texts = corpus
    pairs, (summary,) = parallel_pairs(store, EN_FR, texts=texts)
    sides = collections.defaultdict(list)
    for row in pairs.to_pylist():
        number = described(row, texts)[0][0]
        sides[row["same_voice"]].append((row["item"], number))
    assert list(sides) == [True, False]
    assert sides[True] == sides[False]
    numbers = [number for _, number in sides[True]]
    assert len(set(numbers)) == len(numbers) == summary["paired"]


def test_mismatches_are_spread_over_equals(corpus):
    store, texts = corpus
    drawn = set()
    for seed in range(3):
        pairs, _ = parallel_pairs(store, EN_FR, texts=texts, seed=seed)
        drawn.add(tuple(pairs["mismatch_story"].to_pylist()))
    assert len(drawn) == 3


def test_pairs_do_not_depend_on_the_shards_of_the_store(tmp_path, corpus):
    store, texts = corpus
    other, *_ = make(tmp_path, shards=5)
    assert other.story_ids != store.story_ids
    one, two = (
        parallel_pairs(part, EN_FR, texts=texts, seed=4)[0]
        for part in (store, other)
    )
    assert one == two


def test_without_texts_equal_units_are_one_item(corpus, caplog):
    store, texts = corpus
    pairs, (summary,) = parallel_pairs(store, EN_FR)
    assert summary["voices"] == ["same"]
    assert not summary["texts_known"]
    assert "0 pair(s) in different voice, which is left out" in caplog.text
    assert pairs["same_voice"].unique().to_pylist() == [True]
    seen = [described(row, texts)[0][:2] for row in pairs.to_pylist()]
    assert len(seen) == len(set(seen)) > 40
    for row in pairs.to_pylist():
        assert row["source_story"] == row["target_story"]
        _, target, mismatch = described(row, texts)
        assert target[0] != mismatch[0]


def test_one_voice_alone_keeps_every_item_that_has_it(corpus):
    store, texts = corpus
    same, different, both = (
        parallel_pairs(store, EN_FR, voices=v, texts=texts)[1][0]["paired"]
        for v in (["same"], ["different"], ["same", "different"])
    )
    assert both <= different
    assert both <= same == 25


def test_several_speakers_never_pass_for_one_voice(tmp_path):
    store, texts, speakers = make(tmp_path, several=True)
    with pytest.raises(ValueError, match=r"'story-000' .* give the manifest"):
        parallel_pairs(store, EN_FR, texts=texts)
    told = {"texts": texts, "speakers": speakers}
    with pytest.raises(ValueError, match=r"alto, bass; set 'level' to sent"):
        parallel_pairs(store, EN_FR, "story", **told)
    lacking = {key: speakers[key] for key in speakers if key[0] > "story-003"}
    with pytest.raises(ValueError, match=r"'story-000' .* does not name"):
        parallel_pairs(store, EN_FR, texts=texts, speakers=lacking)


def test_a_story_that_lost_a_sentence_is_left_out(corpus, caplog):
    """The manifest's numbers are not those of the sentences that are left."""
    store, texts = corpus
    more = {("story-007", 4, language): "more" for language in ("en", "fr")}
    pairs, _ = parallel_pairs(store, EN_FR, "story", ["same"], texts | more)
    assert len(pairs) == 59
    for side in SIDES:
        assert "story-007" not in pairs[f"{side}_story"].to_pylist()
    assert "1 stories have fewer sentences than in the manifest" in caplog.text


def test_whole_stories(corpus):
    store, texts = corpus
    pairs, (summary,) = parallel_pairs(
        store, EN_FR, "story", voices=["same"], texts=texts
    )
    assert summary["paired"] == 60
    for row in pairs.to_pylist():
        assert row["source_story"] == row["target_story"]
        assert row["mismatch_story"] != row["target_story"]
        assert row["target_sentence"] == -1
        units = units_of(store, row["target_story"], -1, "fr")
        assert len(units) == row["target_units"]


def test_a_text_with_two_translations_is_never_its_own_rival(tmp_path):
    """Sentences 0 and 1 are one text in English and two in French."""

    def translate(number, language):
        return 0 if language == "en" and number == 1 else number

    store, texts, _ = make(tmp_path, translate=translate)
    pairs, (summary,) = parallel_pairs(store, EN_FR, texts=texts)
    assert (summary["items"], summary["ambiguous"]) == (24, 1)
    said = {
        described(row, texts)[side][0]
        for row in pairs.to_pylist()
        for side in (1, 2)
    }
    assert len(said & {0, 1}) == 1


def test_every_pair_of_languages(tmp_path):
    store, texts, _ = make(tmp_path, languages=("de", "en", "fr"))
    pairs, summaries = parallel_pairs(store, ["fr", "de", "en"], texts=texts)
    expected = [["fr", "de"], ["fr", "en"], ["de", "en"]]
    assert [summary["languages"] for summary in summaries] == expected
    found = pairs.group_by(["source_language", "target_language"]).aggregate([])
    assert len(found) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": ["en", "de"]}, "holds nothing in 'de', only en, fr"),
        ({"languages": ["en"]}, "expected two or more"),
        ({"languages": ["en", "en"]}, "all different"),
        ({"level": "word"}, "level is 'word'; expected sentence or story"),
        ({"voices": []}, "voices are"),
        ({"voices": ["mine"]}, r"voices are \['mine'\]"),
        ({"voices": ["different"], "texts": None}, "0 in different voice"),
    ],
)
def test_bad_settings_are_refused(corpus, options, message):
    store, texts = corpus
    settings = {"languages": EN_FR, "texts": texts, **options}
    with pytest.raises(ValueError, match=message):
        parallel_pairs(store, **settings)


def test_fewer_than_two_items_are_refused(tmp_path):
    store, texts, _ = make(tmp_path, sentences=1)
    with pytest.raises(ValueError, match=r"of 1 parallel items .* 0 can be"):
        parallel_pairs(store, EN_FR, texts=texts)


def test_a_manifest_of_something_else_is_refused(corpus):
    store, texts = corpus
    lacking = {key: texts[key] for key in texts if key[0] != "story-007"}
    with pytest.raises(ValueError, match="no text for story 'story-007', sen"):
        parallel_pairs(store, EN_FR, texts=lacking)


def test_a_manifest_need_not_have_texts(tmp_path):
    row = ("s", 0, "en", "alto", "a.flac", 1, 16000, "0" * 64)
    table = pa.Table.from_pylist(
        [dict(zip(MANIFEST.names, row, strict=True))], schema=MANIFEST
    )
    write_table(tmp_path / "plain.parquet", table)
    assert read_spoken(tmp_path / "plain.parquet")[0] is None
    table = table.append_column("text", pa.array([text_of(3, "en")]))
    write_table(tmp_path / "texts.parquet", table)
    texts, speakers = read_spoken(tmp_path / "texts.parquet")
    assert texts == {("s", 0, "en"): "en 3"}
    assert speakers == {("s", 0, "en"): "alto"}


def without_text(folder, keep):
    """Empty the column 'text' but for some rows."""
    table = pq.read_table(folder / "manifest.parquet")
    place = table.column_names.index("text")
    texts = [
        text if keep(number) else (None, "", " ")[number % 3]
        for number, text in enumerate(table["text"].to_pylist())
    ]
    path = folder / "changed.parquet"
    table = table.set_column(place, "text", pa.array(texts, pa.string()))
    write_table(path, table)
    return path


def test_an_empty_text_is_none(tmp_path):
    folder = write_corpus(tmp_path)
    store = UnitStore(folder / "store")
    texts, speakers = read_spoken(without_text(folder, lambda number: False))
    assert texts is None
    settings = {"voices": ["same"], "speakers": speakers}
    pairs, _ = parallel_pairs(store, EN_FR, texts=texts, **settings)
    assert len(pairs)
    texts, _ = read_spoken(without_text(folder, lambda number: number != 17))
    with pytest.raises(ValueError, match="no text for story 'story-002', sent"):
        parallel_pairs(store, EN_FR, texts=texts)
