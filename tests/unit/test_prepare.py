"""The text and the cloze items of the bundled grammar."""

import runpy
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speechbrain_slm.stories.grammar.grammar import StoryGrammar
from speechbrain_slm.utils import tables
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.ownership import mark_of
from speechbrain_slm.utils.speakers import draw_speaker

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes/TinyStories/grammar_prepare.py"
prepare_grammar = runpy.run_path(str(SCRIPT))["prepare_grammar"]
LANGUAGES = ["en", "fr"]
SETTINGS = {
    "languages": LANGUAGES,
    "plots": 4,
    "characters": 8,
    "things": 4,
    "seed": 5,
    "speakers": ["anna", "bruno", "clara"],
}
SIZES = {"train": 60, "valid": 20, "cloze": 40}
# A manifest, as the synthesis marks it.
SPOKEN = pa.table({"a": [1]}).replace_schema_metadata(mark_of("synthesis"))
PARTS = ("prompt", "right", "wrong", "topic")


def prepare(folder, **changes):
    numbers = {f"num_{split}": count for split, count in SIZES.items()}
    return prepare_grammar(folder, **{**SETTINGS, **numbers, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def stories(folder):
    """Split -> story -> its rows, in order."""
    read = {split: {} for split in SIZES}
    for split, stories in read.items():
        path = folder / "text" / f"{split}.parquet"
        table = tables.read_table(path, tables.STORIES, tables.STORIES_KEY)
        for row in table.to_pylist():
            stories.setdefault(row["story_id"], []).append(row)
    return read


def text(rows, language):
    return [row[language] for row in rows]


def test_every_story_has_its_sentences_and_one_speaker(stories):
    parts = {"train": 1, "valid": 1, "cloze": len(PARTS)}
    for split, count in SIZES.items():
        teller = {}
        assert len(stories[split]) == count * parts[split]
        for name, rows in stories[split].items():
            assert [row["sentence"] for row in rows] == list(range(len(rows)))
            for language in LANGUAGES:
                assert all(line.strip() for line in text(rows, language))
            assert text(rows, "en") != text(rows, "fr")
            # One speaker tells all parts of a cloze story.
            voices = {row["speaker"] for row in rows}
            teller.setdefault(name.partition(".")[0], set()).update(voices)
        assert all(len(voices) == 1 for voices in teller.values())
        assert set.union(*teller.values()) == set(SETTINGS["speakers"])


def test_splits_share_no_story(stories):
    told = {split: set() for split in SIZES}
    for split in SIZES:
        for name, rows in stories[split].items():
            if split != "cloze" or name.endswith(".prompt"):
                told[split].add(tuple(text(rows, "en")))
    whole = told["train"] | told["valid"]
    assert not told["train"] & told["valid"]
    # A cloze story is in two parts; neither its beginning is told in training.
    assert not told["cloze"] & {story[:-1] for story in whole}
    names = [set(stories[split]) for split in SIZES]
    assert not set.intersection(*names)


def test_parts_of_a_cloze_story(stories):
    grammar = StoryGrammar.load(
        **{key: SETTINGS[key] for key in ("plots", "characters", "things")}
    )
    tests = grammar.generate(
        SIZES["cloze"], "test", SETTINGS["seed"], LANGUAGES
    )
    cloze = stories["cloze"]
    for story in tests:
        prompt, right, wrong, topic = (
            cloze[f"{story.story_id}.{part}"] for part in PARTS
        )
        assert len(right) == len(wrong) == len(topic) == 1
        for language in LANGUAGES:
            told = text(prompt, language) + text(right, language)
            assert tuple(told) == tuple(story.sentences[language])
            assert text(wrong, language) == [story.wrong_ending[language]]
        # Several stories may end in the same words.
        assert any(
            other.thing != story.thing
            and not set(other.characters) & set(story.characters)
            and all(
                text(topic, language) == [other.sentences[language][-1]]
                for language in LANGUAGES
            )
            for other in tests
        )


def test_each_sentence_has_its_speaker_but_for_items(folder, tmp_path):
    prepare(tmp_path, speaker_per="sentence")
    for split in SIZES:
        name = f"text/{split}.parquet"
        before, after = (
            pq.read_table(path / name) for path in (folder, tmp_path)
        )
        assert after.equals(before) == (split == "cloze")
        assert after.drop(["speaker"]) == before.drop(["speaker"])
        for row in after.to_pylist() if split != "cloze" else ():
            place = row["story_id"], SETTINGS["speakers"], row["sentence"]
            assert row["speaker"] == draw_speaker(SETTINGS["seed"], *place)


def test_every_item_is_in_the_table(stories, folder):
    """Which items these are, the tests of the cloze texts say."""
    path = folder / "items.parquet"
    items = tables.read_table(path, tables.ITEMS, tables.ITEMS_KEY)
    assert len(items) == SIZES["cloze"] * 2 * 4
    for role in ("prompt", "right", "wrong"):
        assert set(items[role].to_pylist()) <= set(stories["cloze"])


def test_a_pure_function_of_its_arguments(folder, tmp_path):
    files = ["items.parquet", *(f"text/{split}.parquet" for split in SIZES)]
    paths = prepare(tmp_path / "again").values()
    assert [*paths] == [tmp_path / "again" / name for name in files[1:]]
    prepare(tmp_path / "other", seed=6)
    for name in files:
        digest = sha256_file(folder / name)
        assert sha256_file(tmp_path / "again" / name) == digest
        if name != "items.parquet":
            assert sha256_file(tmp_path / "other" / name) != digest


EVIDENCE = {
    "grouped": True,
    "held_out_plots": ["fever", "storm_night"],
    "speakers": ["anna", "bruno"],
    "num_voices": 15,
    "new_speakers": ["clara", "david"],
}
SUFFIXES = {"": 40, "-plots": 40, "-voices": 15, "-speakers": 15}


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    """The items, and the rows of each cloze story."""
    folder = tmp_path_factory.mktemp("evidence")
    prepare(folder, **EVIDENCE)
    told = {}
    for row in pq.read_table(folder / "text/cloze.parquet").to_pylist():
        told.setdefault(row["story_id"], []).append(row)
    return pq.read_table(folder / "items.parquet").to_pylist(), told


def test_further_items_are_told_as_they_say(evidence):
    items, told = evidence
    teller = {name: rows[0]["speaker"] for name, rows in told.items()}
    counts, plots = {}, {}
    for item in items:
        benchmark, _, kind = item["benchmark"].partition("-")
        counts[item["benchmark"]] = counts.get(item["benchmark"], 0) + 1
        plots.setdefault(kind, set()).add(item["group"].split()[0])
        prompt, *endings = (
            teller[item[k]] for k in ("prompt", "right", "wrong")
        )
        assert benchmark in ("sSC", "sTC")
        # Whichever ending is right, nothing in the voice says so.
        assert endings[0] == endings[1]
        assert (prompt == endings[0]) == (kind != "voices")
        group = "new_speakers" if kind == "speakers" else "speakers"
        assert {prompt, *endings} <= {*EVIDENCE[group]}
    assert counts == {
        f"{name}{suffix}": 4 * number
        for suffix, number in SUFFIXES.items()
        for name in ("sSC", "sTC")
    }
    assert plots.pop("plots") == {*EVIDENCE["held_out_plots"]}
    assert not {*EVIDENCE["held_out_plots"]} & set.union(*plots.values())
    # The same stories, so that the scores can be compared in pairs.
    for suffix in ("-voices", "-speakers"):
        for number in range(15):
            name = f"test-{number:06d}"
            for part in ("prompt", "right", "wrong"):
                one, two = (
                    told[f"{name}.{part}"],
                    told[f"{name}{suffix}.{part}"],
                )
                for language in LANGUAGES:
                    assert text(one, language) == text(two, language)


def test_all_plots_are_those_that_are_not_held_out(tmp_path):
    held_out = EVIDENCE["held_out_plots"]
    prepare(tmp_path, plots=None, held_out_plots=held_out, grouped=True)
    items = pq.read_table(tmp_path / "items.parquet").to_pylist()
    plots = {
        item["group"].split()[0]
        for item in items
        if not item["benchmark"].endswith("-plots")
    }
    known = {plot.name for plot in StoryGrammar.load().plots}
    assert plots <= known - {*held_out}
    assert len(plots) > len(held_out)


def test_the_first_items_are_those_of_others(evidence, tmp_path):
    prepare(tmp_path, speakers=EVIDENCE["speakers"])
    table = pq.read_table(tmp_path / "items.parquet")
    # Nobody who does not ask for groups gets the columns.
    assert table.column_names == tables.ITEMS.names
    first = [
        {key: item[key] for key in tables.ITEMS.names}
        for item in evidence[0]
        if item["benchmark"] in ("sSC", "sTC")
    ]
    assert first == table.to_pylist()


def test_groups_and_subsets(evidence):
    items, told = evidence
    tests = StoryGrammar.load(
        **{key: SETTINGS[key] for key in ("plots", "characters", "things")}
    ).generate(SIZES["cloze"], "test", SETTINGS["seed"], LANGUAGES)
    stories = {story.story_id: story for story in tests}
    for item in items:
        if item["benchmark"] not in ("sSC", "sTC"):
            continue
        story = stories[item["item_id"]]
        assert item["group"].split() == [
            *(story.plot, *sorted(story.characters), story.thing)
        ]
        # Names differ in accents alone; sTC's endings share none.
        right = " ".join(map(told[item["right"]][0].get, LANGUAGES))
        letters = unicodedata.normalize("NFD", right)
        named = story.characters[0] in letters.replace("\u0301", "")
        is_topic = item["benchmark"] == "sTC"
        assert (item["subset"] == "names") == (named and is_topic)
    assert {item["subset"] for item in items} == {"names", "cognates", "none"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out_plots": ["paint"]}, "held_out_plots has paint"),
        ({"new_speakers": ["anna"]}, "new_speakers has anna"),
        ({"speakers": ["bruno"]}, "needs another one than its prompt"),
        ({"num_voices": 0}, "they would tell nothing"),
    ],
)
def test_items_that_would_not_be_what_they_say(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, **{**EVIDENCE, **changes})
    assert not [*tmp_path.iterdir()]


KILLED = """
import os, sys
sys.path[:0] = sys.argv[1:4]
from processes import die_at_call
from test_prepare import prepare

for target, folder in enumerate(sys.argv[4:], start=1):
    child = os.fork()
    if child == 0:
        die_at_call(target, "fsync", "replace", "unlink")
        prepare(folder, seed=6, num_cloze=30)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
MANIFESTS = {
    "train.parquet": ("text/train.parquet",),
    "valid.parquet": ("text/valid.parquet",),
    "cloze.parquet": ("text/cloze.parquet", "items.parquet"),
}


def speak(folder, copy):
    """Copy what was prepared, with a manifest of each split."""
    shutil.copytree(folder, copy)
    for name in MANIFESTS:
        tables.write_table(copy / name, SPOKEN)
    return copy


def test_a_kill_leaves_no_manifest_beside_other_stories(folder, tmp_path):
    """Each manifest that is there is of the text and items that are there."""
    old = {
        name: (folder / name).read_bytes()
        for names in MANIFESTS.values()
        for name in names
    }
    runs = [speak(folder, tmp_path / f"{number:02d}") for number in range(24)]
    paths = [Path(__file__).parent, ROOT / "tests", ROOT, *runs]
    command = [sys.executable, "-c", KILLED, *map(str, paths)]
    codes = subprocess.check_output(command, text=True).split()
    assert codes.count("-9") >= 15
    assert codes[-1] == "0"
    left = set()
    for run in runs:
        for manifest, names in MANIFESTS.items():
            if (run / manifest).exists():
                left.add(manifest)
                assert all((run / n).read_bytes() == old[n] for n in names)
    # The first kills come before anything is changed; but pathlib of Python
    # 3.10 has an unlink of its own, at which nothing is killed.
    gone = set() if sys.version_info >= (3, 11) else {"train.parquet"}
    assert left | gone == set(MANIFESTS)
    assert not [name for name in MANIFESTS if (runs[-1] / name).exists()]


@pytest.fixture
def spoken(folder, tmp_path):
    return speak(folder, tmp_path / "copy")


def test_manifests_of_the_same_stories_stay(spoken):
    for count, left in ((60, [*MANIFESTS]), (50, [*MANIFESTS][1:])):
        prepare(spoken, num_train=count)
        assert [n for n in MANIFESTS if (spoken / n).exists()] == left


@pytest.mark.parametrize("damage", [None, b"torn"])
def test_text_that_is_gone_or_damaged_is_made_again(spoken, damage):
    text = spoken / "text" / "train.parquet"
    content = text.read_bytes()
    text.unlink()
    if damage is not None:
        text.write_bytes(damage)
    prepare(spoken)
    assert text.read_bytes() == content
    assert not (spoken / "train.parquet").exists()


@pytest.mark.parametrize(
    "name", ["train.parquet", "text/valid.parquet", "items.parquet"]
)
def test_a_table_of_another_is_neither_removed_nor_replaced(tmp_path, name):
    path = tmp_path / name
    tables.write_table(path, pa.table({"story_id": ["mine"]}))
    content = path.read_bytes()
    with pytest.raises(FileExistsError, match=f"{name} stands where"):
        prepare(tmp_path)
    assert path.read_bytes() == content
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]


def test_one_language(tmp_path):
    prepare(tmp_path, languages=["fr"])
    columns = pq.read_schema(tmp_path / "text" / "train.parquet").names
    assert columns == [*tables.STORIES_KEY, "speaker", "fr"]
    items = pq.read_table(tmp_path / "items.parquet")
    assert len(items) == 2 * SIZES["cloze"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "maxi"}, "source is 'maxi'; expected mini"),
        ({"num_train": 10**6}, r"1000000"),
        ({"plots": 1000}, "1000"),
        ({"languages": ["en", "xx"]}, "'xx'"),
        ({"speaker_per": "word"}, "speaker_per is 'word'"),
    ],
)
def test_refused_and_nothing_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []
