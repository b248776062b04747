"""A stories table with one more language, whatever happens on the way."""

import csv
import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speechbrain_slm.stories.translation import (
    Checks,
    Story,
    TranslationError,
    parallel,
)
from speechbrain_slm.stories.translation.parallel import ParallelFile
from speechbrain_slm.stories.translation.tables import (
    check_tables,
    translate_table,
)
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.ledger import TooManyLeftOut
from speechbrain_slm.utils.tables import STORIES_KEY, stories_table
from speechbrain_slm.utils.user_tables import iterate_rows


def fake(text):
    return f"fr {text[::-1]}"


class Reverser:
    """Translates, and goes wrong as it is told."""

    def __init__(self, fault=lambda story: None, name="a", dies_after=None):
        self.identity = {"type": "reverser", "name": name}
        self.fault = fault
        self.dies_after = dies_after
        self.asked = []

    def usage(self):
        return {}

    def translate(self, shards, check):
        for number, shard in enumerate(shards):
            if number == self.dies_after:
                raise KeyboardInterrupt
            self.asked += [story.story_id for story in shard]
            yield [self._story(story) for story in shard]

    def _story(self, story):
        texts = [fake(text) for text in story.sentences]
        return {
            None: texts,
            "error": TranslationError("refused"),
            "fewer": texts[1:],
            "more": [*texts, "fr de plus"],
            "empty": ["", *texts[1:]],
            "copy": list(story.sentences),
            "none": [None, *texts[1:]],
        }[self.fault(story)]


FAULTS = ["error", "fewer", "more", "empty", "copy", "none"]


def fails(*names):
    """Be the fault of a back-end that fails at stories of these names alone."""
    return lambda story: "error" if story.story_id.endswith(names) else None


def write_stories(path, count=40, seed=0, **columns):
    generator = random.Random(seed)
    text = "Sentence {} of story {}: {}, which is all of it.".format
    rows = [
        {
            "story_id": f"story-{number:03d}",
            "sentence": sentence,
            "speaker": f"speaker-{number % 3}",
            "en": text(sentence, number, generator.random()),
            **columns,
        }
        for number in range(count)
        for sentence in range(generator.randint(1, 6))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name in rows[0] if name not in STORIES_KEY]
    # Pages end in the middle of stories.
    pq.write_table(stories_table(rows, names), path, row_group_size=7)
    return rows


def translate(folder, translator, name="out", **settings):
    return translate_table(
        folder / "in.parquet",
        folder / name / "text" / "in.parquet",
        "en",
        "fr",
        translator,
        folder / name / "parts",
        **{"stories_per_shard": 3, "max_rejected": 1.0, **settings},
    )


def read(folder, name="out"):
    text = folder / name / "text"
    rows = pq.read_table(text / "in.parquet").to_pylist()
    lines = (text / "in.left_out.jsonl").read_text().splitlines()
    return rows, [json.loads(line) for line in lines]


def files(folder, name="out"):
    text = folder / name / "text"
    return {path.name: path.read_bytes() for path in sorted(text.iterdir())}


@pytest.mark.parametrize("seed", range(8))
def test_sentences_stay_paired_whatever_fails(tmp_path, seed):
    """Faults at random: whole stories, each pair right, the rest listed."""
    rows = write_stories(tmp_path / "in.parquet", seed=seed)
    generator = random.Random(seed)
    faults = {
        row["story_id"]: generator.choice([*FAULTS, *[None] * 8])
        for row in rows
    }
    one = Reverser(lambda story: faults[story.story_id])
    translate(tmp_path, one, stories_per_shard=generator.randint(1, 50))
    found, ledger = read(tmp_path)
    good = [row for row in rows if faults[row["story_id"]] is None]
    assert found == [{**row, "fr": fake(row["en"])} for row in good]
    bad = list(dict.fromkeys(r["story_id"] for r in rows if r not in good))
    assert [entry["story_id"] for entry in ledger] == bad
    for entry in ledger:
        assert entry["language"] == "fr"
        assert entry["action"] == "dropped"
        assert entry["reason"]


def test_killed_runs_end_as_one_that_is_not(tmp_path):
    write_stories(tmp_path / "in.parquet")
    fault = fails("7")
    translate(tmp_path, Reverser(fault), "whole")
    asked = []
    for dies_after in (1, 4, 3, 2):
        one = Reverser(fault, dies_after=dies_after)
        with pytest.raises(KeyboardInterrupt):
            translate(tmp_path, one)
        asked += one.asked
        assert not (tmp_path / "out" / "text").exists()
    for _ in range(2):  # the second one has nothing to do
        one = Reverser(fault)
        translate(tmp_path, one)
        asked += one.asked
        assert len(asked) == len(set(asked)) == 40
        assert files(tmp_path) == files(tmp_path, "whole")


def test_array_jobs_share_the_work(tmp_path):
    rows = write_stories(tmp_path / "in.parquet")
    one = Reverser()
    for job in range(3):
        assert translate(tmp_path, one, job=job, num_jobs=3) is None
    assert not (tmp_path / "out" / "text").exists()
    assert len(one.asked) == len(set(one.asked)) == 40
    last = Reverser()
    assert translate(tmp_path, last) == {"stories": 40, "left_out": 0}
    assert last.asked == []
    expected = [{**row, "fr": fake(row["en"])} for row in rows]
    assert read(tmp_path) == (expected, [])


def test_other_settings_are_refused(tmp_path):
    write_stories(tmp_path / "in.parquet")
    translate(tmp_path, Reverser())
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"translator\.name: expected 'b'"):
        translate(tmp_path, Reverser(name="b"))
    with pytest.raises(ValueError, match=r"checks\.copy_letters"):
        translate(tmp_path, Reverser(), checks=Checks(copy_letters=3))
    write_stories(tmp_path / "in.parquet", seed=1)
    with pytest.raises(ValueError, match="sha256"):
        translate(tmp_path, Reverser())
    assert files(tmp_path) == before


def test_too_many_rejects_leave_no_table_and_are_tried_again(tmp_path):
    write_stories(tmp_path / "in.parquet")
    with pytest.raises(TooManyLeftOut, match=r"1 of 40 .* 1 x refused"):
        translate(tmp_path, Reverser(fails("007")), max_rejected=0.01)
    assert list(files(tmp_path)) == ["in.left_out.refused.jsonl"]
    mended = Reverser()
    translate(tmp_path, mended, max_rejected=0.01)
    assert mended.asked == ["story-006", "story-007", "story-008"]
    translate(tmp_path, Reverser(), "whole")
    assert files(tmp_path) == files(tmp_path, "whole")


def test_a_back_end_that_fails_always_is_stopped_early(tmp_path):
    write_stories(tmp_path / "in.parquet", count=200)
    one = Reverser(lambda story: "error")
    with pytest.raises(TooManyLeftOut, match="of the first 51 stories"):
        translate(tmp_path, one, max_rejected=0.01)
    assert len(one.asked) == 51
    mended = Reverser()
    translate(tmp_path, mended, max_rejected=0.01)
    assert len(mended.asked) == 200


def test_parts_of_another_run_are_never_sealed(tmp_path):
    """Of other settings, of other text, or damaged since they were made."""
    write_stories(tmp_path / "in.parquet")
    translate(tmp_path, Reverser())
    translate(tmp_path, Reverser(name="b"), "b")
    part, next_one = sorted((tmp_path / "out" / "parts").glob("part-*"))[3:5]
    whole = part.read_bytes()
    table = pq.read_table(part)
    column = pa.array([["fr x"]] * len(table), pa.list_(pa.string()))
    table = table.set_column(1, "sentences", column)
    pq.write_table(table, tmp_path / "changed.parquet")
    other = tmp_path / "b" / "parts" / part.name
    for content, message in (
        (whole[:50], f"{part.name} is damaged"),
        (next_one.read_bytes(), "is not of these stories"),
        (other.read_bytes(), "with another configuration"),
        ((tmp_path / "changed.parquet").read_bytes(), "has not the sum"),
    ):
        part.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            translate(tmp_path, Reverser())
    part.unlink()
    assert translate(tmp_path, Reverser())["stories"] == 40


def test_a_column_that_is_there(tmp_path):
    rows = write_stories(tmp_path / "in.parquet", fr="déjà")
    with pytest.raises(ValueError, match="has a column 'fr' already"):
        translate(tmp_path, Reverser())
    with pytest.raises(ValueError, match=r"no column.* de to leave out"):
        translate(tmp_path, Reverser(), leave_out=["de"])
    translate(tmp_path, Reverser(), leave_out=["fr", "speaker"])
    found, _ = read(tmp_path)
    assert found[0].keys() == {"story_id", "sentence", "en", "fr"}
    assert [row["fr"] for row in found] == [fake(row["en"]) for row in rows]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 0, "A."), ("a", 2, "B.")], "sentence 2 where 1"),
        ([("a", 0, "A."), ("b", 0, "B."), ("a", 0, "C.")], "together"),
        ([("a", 0, "A."), ("a", 1, " ")], "row 1: column 'en' has no"),
        ([("a", 0, None)], "row 0: no 'en'"),
        ([], "no story"),
    ],
)
def test_bad_tables_are_refused(tmp_path, rows, message):
    schema = stories_table([], ["en"]).schema
    rows = [dict(zip(schema.names, row, strict=True)) for row in rows]
    table = pa.Table.from_pylist(rows, schema)
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(ValueError, match=message):
        translate(tmp_path, Reverser())


def test_no_table_and_no_column(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"in\.parquet does not exist"):
        translate(tmp_path, Reverser())
    pq.write_table(pa.table({"a": [1]}), tmp_path / "in.parquet")
    with pytest.raises(ValueError, match=r"missing column.*story_id"):
        translate(tmp_path, Reverser())


def write_parallel(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    lines = ["\t".join(map(str, row.values())) for row in rows]
    lines.insert(0, "\t".join(rows[0]))
    if path.suffix == ".jsonl":
        lines = map(json.dumps, rows)
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("suffix", [".jsonl", ".tsv", ".parquet"])
@pytest.mark.parametrize("checked", [True, False])
def test_a_parallel_file(tmp_path, suffix, checked):
    rows = write_stories(tmp_path / "in.parquet")
    by_story = {}
    for row in rows:
        entry = {key: row[key] for key in ("story_id", "sentence", "en")}
        entry["fr"] = f'"{fake(row["en"])}'
        by_story.setdefault(row["story_id"], []).append(entry)
    gone, short, late, other, *_ = (
        name for name, story in by_story.items() if len(story) > 1
    )
    del by_story[gone], by_story[short][-1], by_story[late][0]
    by_story[other][1]["en"] = "Another text stood here."
    expected = {
        gone: "does not have it",
        short: "came back for",
        late: "sentence 1 where 0",
    }
    if checked:
        expected[other] = "sentence 1 has another source"
    # In another order than the table's.
    order = list(by_story)
    random.Random(0).shuffle(order)
    path = tmp_path / f"parallel{suffix}"
    write_parallel(path, [row for name in order for row in by_story[name]])
    translate(tmp_path, ParallelFile(path, "fr", "en" if checked else None))
    found, ledger = read(tmp_path)
    reasons = {entry["story_id"]: entry["reason"] for entry in ledger}
    assert reasons.keys() == expected.keys()
    assert all(expected[name] in reasons[name] for name in expected)
    good = [row for row in rows if row["story_id"] not in expected]
    assert found == [{**r, "fr": f'"{fake(r["en"])}'} for r in good]


def test_integer_ids_are_their_digits(tmp_path):
    """As pandas writes them, in either table."""
    rows = write_stories(tmp_path / "in.parquet", count=3)
    rows = [{**r, "story_id": int(r["story_id"][-3:])} for r in rows]
    text = "Ah bon, dit-il, et puis il s'en alla."
    keys = ("story_id", "sentence")
    french = [{**{key: r[key] for key in keys}, "fr": text} for r in rows]
    write_parallel(tmp_path / "in.parquet", rows)
    for name in ("fr.parquet", "fr.jsonl"):
        write_parallel(tmp_path / name, french)
        one = ParallelFile(tmp_path / name, "fr")
        assert translate(tmp_path, one, f"of {name}")["left_out"] == 0
        names = [row["story_id"] for row in read(tmp_path, f"of {name}")[0]]
        assert names == [str(row["story_id"]) for row in rows]


def test_a_quoted_tsv_is_read_as_its_writer_meant_it(tmp_path):
    stories = [Story("a", ["A.", "B."]), Story("e\u0301", ["C."])]
    said = ["Il se tait.", 'Elle dit "arr\u00eate", puis part.', '"Oh !"']
    rows = [["a", 0], ["a", 1], ["\u00e9", 0]]
    rows = [[*row, text] for row, text in zip(rows, said, strict=True)]
    with open(tmp_path / "fr.tsv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([["story_id", "sentence", "fr"], *rows])
    one = ParallelFile(tmp_path / "fr.tsv", "fr")
    assert next(one.translate([stories], Checks())) == [said[:2], said[2:]]


def test_a_line_that_is_no_row_costs_its_story(tmp_path):
    line = '{{"story_id": "{0}", "sentence": {1}, "fr": "{0} {1}"}}'.format
    lines = [line(name, n) for name in "abc" for n in range(2)]
    lines[3] = '{"story_id": "b", "sente'
    path = tmp_path / "fr.jsonl"
    path.write_text("\n".join(lines))
    stories = [Story(name, ["A.", "B."]) for name in "abc"]
    found = next(ParallelFile(path, "fr").translate([stories], Checks()))
    assert found[::2] == [["a 0", "a 1"], ["c 0", "c 1"]]
    assert "row 3: not valid JSON" in str(found[1])
    path.write_text("\n".join(lines), encoding="utf-16")
    with pytest.raises(ValueError, match=r"fr\.jsonl: expected text in UTF-8"):
        next(ParallelFile(path, "fr").translate([stories], Checks()))


def test_a_parallel_file_that_is_replaced_is_not_read(tmp_path, monkeypatch):
    """What the identity says is what is looked up."""
    path, new = tmp_path / "fr.jsonl", tmp_path / "new.jsonl"
    row = {"story_id": "a", "sentence": 0, "fr": "Un."}
    write_parallel(path, [row])
    one = ParallelFile(path, "fr")
    stories = [Story("a", ["One."])]
    assert one.identity["sha256"] == sha256_file(path)
    write_parallel(new, [{**row, "fr": "Deux."}])
    new.replace(path)
    assert next(one.translate([stories], Checks())) == [["Un."]]

    # Nor is one that is replaced, or written to, at that moment.
    for act, message in (
        (lambda: path.write_text(path.read_text() + " "), "was changed"),
        (lambda: Path(shutil.copy(path, new)).replace(path), "was replaced"),
    ):

        def rows(path, columns, act=act):
            yield from iterate_rows(path, columns)
            act()

        monkeypatch.setattr(parallel, "iterate_rows", rows)
        with pytest.raises(ValueError, match=f"{message} while it was read"):
            _ = ParallelFile(path, "fr").identity


def test_a_table_that_is_replaced_while_it_is_translated(tmp_path):
    path, new = tmp_path / "in.parquet", tmp_path / "new.parquet"
    rows = write_stories(path)
    others = write_stories(new, seed=1)

    # The run goes on with the table that its identity names.
    def meanwhile(act):
        def fault(story):
            if story.story_id == "story-005":
                act()

        return Reverser(fault)

    translate(tmp_path, meanwhile(lambda: new.replace(path)))
    assert read(tmp_path)[0] == [{**r, "fr": fake(r["en"])} for r in rows]
    with pytest.raises(ValueError, match="sha256"):
        translate(tmp_path, Reverser())
    translate(tmp_path, Reverser(), "other")
    found, _ = read(tmp_path, "other")
    assert found == [{**r, "fr": fake(r["en"])} for r in others]
    # One that is written to is told.
    content = path.read_bytes()
    one = meanwhile(lambda: path.write_bytes(content + b" "))
    with pytest.raises(ValueError, match="was changed while it was read"):
        translate(tmp_path, one, "third")
    assert not (tmp_path / "third" / "text" / "in.parquet").exists()


def test_another_recipe_s_table_is_not_replaced(tmp_path):
    write_stories(tmp_path / "in.parquet")
    path = tmp_path / "out" / "text" / "in.parquet"
    rows = write_stories(path, seed=2)
    one = Reverser()
    with pytest.raises(FileExistsError, match="was not made by it"):
        translate(tmp_path, one)
    assert pq.read_table(path).to_pylist() == rows
    assert not one.asked


def test_bad_parallel_files(tmp_path):
    (tmp_path / "a.txt").write_text("Bonjour.")
    with pytest.raises(ValueError, match=r"\.tsv, \.jsonl"):
        _ = ParallelFile(tmp_path / "a.txt", "fr").identity
    with pytest.raises(FileNotFoundError, match="does not exist"):
        _ = ParallelFile(tmp_path / "a.tsv", "fr").identity
    head = "story_id\tsentence\t"
    for name, content, message in (
        ("a.tsv", f"{head}de\na\t0\tA.\n", r"missing column.*fr"),
        ("b.tsv", f"{head}fr\nb\t0\n", "no line is a row; row 0"),
        ("c.tsv", f"{head}fr\na\t0\tA\nb\t0\tB\na\t1\tC\n", "'a' do not st"),
        (
            "d.jsonl",
            '{"story_id": "a", "sentence": 0\n',
            "row 0: not valid JSON",
        ),
    ):
        path = tmp_path / name
        path.write_text(content)
        one = ParallelFile(path, "fr")
        with pytest.raises(ValueError, match=message):
            next(one.translate([[Story("a", ["A."])]], Checks()))


def test_tables_whose_names_would_meet_are_refused():
    for paths in ([], ["a/train.parquet", "b/train.parquet"]):
        with pytest.raises(ValueError, match="each of another name"):
            check_tables(paths)
