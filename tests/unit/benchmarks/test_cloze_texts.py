"""Cloze benchmarks from text files: readers, tables, off-topic endings."""

import csv
import json
from collections import Counter
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from processes import load_script

from speechbrain_slm.benchmarks.cloze_files import load_natural, read_cloze
from speechbrain_slm.benchmarks.cloze_texts import (
    LEDGER,
    ClozeItem,
    draw_topics,
    shared_words,
    topic_words,
    whole_table,
    write_cloze,
)
from speechbrain_slm.speech import merging
from speechbrain_slm.utils.tables import (
    ITEMS,
    ITEMS_KEY,
    STORIES,
    STORIES_KEY,
    read_table,
    write_table,
)

ROOT = Path(__file__).parents[3]
QUIZ = "RandomFifthSentenceQuiz"
COLUMNS = ["InputStoryid", *(f"InputSentence{n}" for n in range(1, 5))]
COLUMNS += [f"{QUIZ}1", f"{QUIZ}2", "AnswerRightEnding"]
LANGUAGES = ["en", "fr"]


HUB = ["story_id", *(f"input_sentence_{n}" for n in range(1, 5))]
HUB += ["sentence_quiz1", "sentence_quiz2", "answer_right_ending"]


def save(path, items, language, columns=COLUMNS, names=COLUMNS, **changes):
    """Write items as StoryCloze is published; every second answer is 2."""
    rows = []
    for number, item in enumerate(items):
        endings, answer = [item.right[language], item.wrong[language]], 1
        if number % 2:
            endings, answer = endings[::-1], 2
        row = [item.item_id, *item.prompt[language], *endings, answer]
        row = {**dict(zip(COLUMNS, row, strict=True)), **changes}
        named = dict(zip(COLUMNS, names, strict=True))
        rows.append({named[name]: row[name] for name in columns})
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        with open(path, "w", newline="", encoding="utf-8-sig") as file:
            separator = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)
    return path


def only(items, language):
    """Keep one language of items."""
    return [
        ClozeItem(name, *({language: part[language]} for part in parts))
        for name, *parts, _, _ in items
    ]


@pytest.fixture(scope="module")
def natural():
    return load_natural()


@pytest.mark.parametrize("names", [COLUMNS, HUB], ids=["first", "hub"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_published_files_give_the_items_back(natural, tmp_path, suffix, names):
    files = {
        key: save(tmp_path / f"{key}{suffix}", natural, key, names=names)
        for key in LANGUAGES
    }
    assert read_cloze(files) == (natural, [])
    assert read_cloze({"fr": files["fr"]})[0] == only(natural, "fr")


def test_json_lines(natural, tmp_path):
    path = tmp_path / "en.jsonl"
    rows = [
        {
            "id": item.item_id,
            "prompt": list(item.prompt["en"]),
            "right": item.right["en"],
            "wrong": item.wrong["en"],
        }
        for item in natural
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_cloze({"en": path}) == (only(natural, "en"), [])
    # As other programs write it: a mark, CRLF, and U+2028 as it is.
    rows[0]["right"] = "One\u2028line."
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert read_cloze({"en": path})[0][0].right == {"en": "One\u2028line."}


def test_whole_stories_are_translated_and_read_back(natural, tmp_path):
    """A translator adds a column and may leave stories out."""
    table = whole_table(only(natural, "en"), ["en"])
    counts = Counter(table["story_id"].to_pylist())
    assert counts == dict.fromkeys((item.item_id for item in natural), 6)
    french = whole_table(natural, LANGUAGES)["fr"]
    table = table.append_column("fr", french).slice(6)
    path = tmp_path / "whole.parquet"
    write_table(path, table)
    files = dict.fromkeys(LANGUAGES, path)
    assert read_cloze(files) == (natural[1:], [])


def test_what_a_language_lacks_is_left_out_of_all(natural, tmp_path):
    items = natural[:4]
    no_text = items[2]._replace(wrong={**items[2].wrong, "fr": " "})
    files = {
        "en": save(tmp_path / "en.csv", items, "en"),
        "fr": save(tmp_path / "fr.tsv", [items[0], items[1], no_text], "fr"),
    }
    kept, ledger = read_cloze(files)
    assert kept == items[:2]
    reasons = ("a sentence is empty", "the item is not there in 'fr'")
    assert ledger == [
        dict(story_id=n.item_id, action="dropped", language="fr", reason=reason)
        for n, reason in zip(items[2:], reasons, strict=True)
    ]
    write_cloze(tmp_path, natural, LANGUAGES, 0, ["a"], ledger)
    lines = (tmp_path / LEDGER).read_text().splitlines()
    assert list(map(json.loads, lines)) == ledger


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.csv", {"columns": COLUMNS[:-1]}, "winter 2018 test set"),
        ("a.csv", {"columns": COLUMNS[1:]}, r"missing column\(s\) InputStory"),
        ("a.csv", {"AnswerRightEnding": 3}, "row 0: .* is '3'; expected 1 or"),
        ("a.csv", {"InputStoryid": "x"}, "row 1: the item's name is 'x'"),
        ("a.csv", {"InputSentence2": "a\nb"}, "row 0: a line break in InputS"),
        ("a.tsv", {"InputSentence2": "a\nb"}, "found 3 fields .* has 8; mend"),
        ("a.txt", {}, r"expected one of \.parquet, \.arrow, \.csv"),
    ],
)
def test_refused_files(natural, tmp_path, name, options, message):
    path = save(tmp_path / name, natural[:2], "en", **options)
    with pytest.raises(ValueError, match=message) as error:
        read_cloze({"en": path})
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", f"{','.join(COLUMNS)}\nx,1,2\n", "row 0: found 3 fields"),
        ("a.csv", f'{",".join(COLUMNS)}\nx,"1,2\n', "line 2: unexpected end"),
        ("a.jsonl", "{", "lines is a row; row 0: not valid"),
        ("a.jsonl", "\n", r"missing column\(s\) id"),
        ("a.jsonl", '{"id": 1, "prompt": "a"}', r"missing column\(s\) right"),
        ("a.jsonl", '{"id": 1, "prompt": "ab", %s, "wrong": "d"}', "an object"),
        ("a.jsonl", '{"id": 1, "prompt": ["a"], %s, "wrong": 1}', "an object"),
    ],
)
def test_refused_text(tmp_path, name, text, message):
    text = text.replace("%s", '"right": "c"')
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_cloze({"en": path})


def test_files_that_lack_or_disagree_are_refused(natural, tmp_path):
    with pytest.raises(FileNotFoundError, match="'en'"):
        read_cloze({"en": tmp_path / "no.csv"})
    with pytest.raises(ValueError, match="found none"):
        read_cloze({})
    english = save(tmp_path / "en.csv", natural[:2], "en")
    french = save(tmp_path / "fr.csv", natural[:2], "fr", AnswerRightEnding="2")
    with pytest.raises(ValueError, match="right ending 2; expected 4 and 1"):
        read_cloze({"en": english, "fr": french})


def test_a_story_without_a_prompt_is_refused(tmp_path):
    path = tmp_path / "whole.parquet"
    table = {"story_id": ["a", "a"], "sentence": [0, 1], "en": ["b", "c"]}
    write_table(path, pa.table(table))
    with pytest.raises(ValueError, match="'a' has 2 sentence"):
        read_cloze({"en": path})
    with pytest.raises(ValueError, match=r"missing column\(s\) fr"):
        read_cloze({"fr": path})


@pytest.fixture(scope="module")
def written(natural, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cloze")
    write_cloze(folder, natural, LANGUAGES, 3, ["anna", "bruno", "clara"])
    return folder


def told(folder):
    """Story -> its rows."""
    table = read_table(folder / "text" / "cloze.parquet", STORIES, STORIES_KEY)
    stories = {}
    for row in table.to_pylist():
        stories.setdefault(row["story_id"], []).append(row)
    return stories


def test_tables(natural, written):
    stories = told(written)
    assert len(stories) == 4 * len(natural)
    tellers = set()
    for item in natural:
        prompt, right, wrong, topic = (
            stories[f"{item.item_id}.{part}"]
            for part in ("prompt", "right", "wrong", "topic")
        )
        for language in LANGUAGES:
            texts = [row[language] for row in prompt + right + wrong]
            endings = item.right[language], item.wrong[language]
            assert texts == [*item.prompt[language], *endings]
        (voice,) = {row["speaker"] for row in prompt + right + wrong + topic}
        tellers.add(voice)
    assert tellers == {"anna", "bruno", "clara"}
    items = read_table(written / "items.parquet", ITEMS, ITEMS_KEY)
    kinds = items.select(["benchmark", "prompt_language", "ending_language"])
    expected = product(("sSC", "sTC"), LANGUAGES, LANGUAGES)
    counts = Counter(tuple(row.values()) for row in kinds.to_pylist())
    assert counts == dict.fromkeys(expected, len(natural))
    wrong = {"sSC": ".wrong", "sTC": ".topic"}
    for row in items.to_pylist():
        assert {row["prompt"], row["right"], row["wrong"]} <= set(stories)
        assert row["wrong"].endswith(wrong[row["benchmark"]])


def test_off_topic_endings_share_nothing(natural, written):
    stories = told(written)
    by_ending = {item.right["en"]: item for item in natural}
    for item in natural:
        topic = stories[f"{item.item_id}.topic"][0]
        other = by_ending[topic["en"]]
        assert other != item
        assert topic["fr"] == other.right["fr"]
        for language in LANGUAGES:
            assert not topic_words(item.prompt[language], language) & (
                topic_words([topic[language]], language)
            )


def test_topic_words():
    """Names, stop words, elisions and inflected forms."""
    for language, text, words in (
        ("en", "Yesterday Will saw the planets.", {"Will", "yeste", "plane"}),
        ("fr", "L'oiseau d'Anna n'est pas là.", {"oisea", "anna"}),
        ("de", "Gestern kamen Sie.", {"geste", "kamen"}),
    ):
        assert topic_words([text], language) == words


@pytest.mark.parametrize(
    ("endings", "expected"),
    [
        # Right in English and French, then wrong.
        (("Léo was sad.", "Léo pleurait.", "Mia sang.", "Mia rit."), "names"),
        # Both endings name him.
        (("Leo was sad.", "Léo pleurait.", "Leo sang.", "Léo rit."), "none"),
        # Sounds of the prompt, though not of the ending, in English.
        (("It was loud.", "Un violon !", "It slept.", "Il dort."), "cognates"),
        (("The ball!", "Le ballon !", "It slept.", "Il dort."), "cognates"),
        # The wrong ending has it, too.
        (("A ball fell.", "Le ballon !", "The ball.", "Un ballon."), "none"),
        (("The color.", "La couleur.", "It slept.", "Il dort."), "none"),
    ],
)
def test_shared_words(endings, expected):
    right, wrong = (
        dict(zip(LANGUAGES, endings[part : part + 2], strict=True))
        for part in (0, 2)
    )
    prompt = {"en": ("Leo had a violin.",), "fr": ("Léo jouait.",)}
    names = {"en": ("Leo",), "fr": ("Léo",)}
    item = ClozeItem("a", prompt, right, wrong, names=names)
    assert shared_words(item, wrong, LANGUAGES) == expected
    assert shared_words(item._replace(names=None), wrong, LANGUAGES) == ""


def simple(name, prompt, right):
    return ClozeItem(name, {"en": (prompt,)}, {"en": right}, {"en": "No."})


def test_an_item_without_an_off_topic_ending_is_not_in_stc(tmp_path):
    items = [
        simple("a", "Kim ate an apple.", "Kim enjoyed it."),
        simple("b", "Lou bought a boat.", "Lou sailed."),
        simple("c", "Kim and Lou met.", "Lou waved."),
    ]
    assert draw_topics(items, ["en"], 0)[2] is None
    write_cloze(tmp_path, items, ["en"], 0, ["anna"])
    rows = pq.read_table(tmp_path / "items.parquet").to_pylist()
    names = ["".join(map(row.get, ("benchmark", "item_id"))) for row in rows]
    assert names == ["sSCa", "sSCb", "sSCc", "sTCa", "sTCb"]
    assert "c.topic" not in told(tmp_path)
    (line,) = (tmp_path / LEDGER).read_text().splitlines()
    assert json.loads(line)["story_id"] == "c"
    # The speech has a ledger of its own, in the same folder.
    assert LEDGER != merging.LEDGER


def test_nothing_to_write_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"en\.csv: found no item"):
        write_cloze(tmp_path, [], ["en"], 0, ["a"], sources=["en.csv"])
    alike = [simple("a", "Kim.", "Kim ate."), simple("b", "Kim.", "Kim sat.")]
    with pytest.raises(ValueError, match="none is off its topic"):
        write_cloze(tmp_path, alike, ["en"], 0, ["a"])
    with pytest.raises(ValueError, match="found xx, without stop words"):
        draw_topics(alike, ["xx"], 0)
    assert list(tmp_path.iterdir()) == []


def test_a_pure_function_of_its_arguments(natural, written, tmp_path):
    speakers = ["anna", "bruno", "clara"]
    names = ["items.parquet", "text/cloze.parquet"]
    write_cloze(tmp_path / "same", natural, LANGUAGES, 3, speakers[::-1])
    write_cloze(tmp_path / "other", natural, LANGUAGES, 4, speakers)
    for name in names:
        content = (written / name).read_bytes()
        assert (tmp_path / "same" / name).read_bytes() == content
    changed = (tmp_path / "other" / names[1]).read_bytes()
    assert changed != (written / names[1]).read_bytes()


@pytest.fixture(scope="module")
def recipe():
    return load_script(ROOT / "recipes/StoryCloze/storycloze_prepare.py")


def test_recipe(natural, recipe, tmp_path):
    """One language of the natural items, and the way through translation."""
    paths = recipe.prepare_cloze(tmp_path, None, ["fr"], 1, ["anna"])
    assert pq.read_schema(paths["cloze"]).names[2:] == ["speaker", "fr"]
    english = save(tmp_path / "en.csv", natural, "en")
    whole = tmp_path / "whole.parquet"
    recipe.main(["whole", "--files", f"en={english}", "--output", str(whole)])
    assert pq.read_table(whole).equals(whole_table(natural, ["en"]))
    ledger = tmp_path / "whole.left_out.jsonl"
    assert ledger.read_text() == ""
    few = save(tmp_path / "fr.csv", natural[2:], "fr")
    both = [f"en={english}", f"fr={few}"]
    recipe.main(["whole", "--files", *both, "--output", str(whole)])
    assert len(ledger.read_text().splitlines()) == 2
    recipe.main(["whole", "--files", f"en={english}", "--output", str(whole)])
    paths = recipe.prepare_cloze(
        tmp_path / "b", {"en": whole}, ["en"], 1, ["anna"]
    )
    assert set(told(tmp_path / "b")) == set(told(tmp_path))
    with pytest.raises(ValueError, match="there are files of en"):
        recipe.prepare_cloze(tmp_path, {"en": whole}, LANGUAGES, 1, ["anna"])
    # A file of a language that is not asked for is not passed over.
    files = {"en": english, "fr": few}
    with pytest.raises(ValueError, match="there are files of en, fr"):
        recipe.prepare_cloze(tmp_path, files, ["en"], 1, ["anna"])
    with pytest.raises(ValueError, match="natural items are in en and fr"):
        recipe.prepare_cloze(tmp_path, None, ["de"], 1, ["anna"])
