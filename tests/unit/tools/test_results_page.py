"""The page of results: planted numbers in, known tables out."""

import re
import shutil

import pytest
from cloze_example import write_items
from processes import ROOT
from small_results_example import small_result, sums_of, write_small

from speechbrain_slm.evaluation.cloze.items import read_items
from speechbrain_slm.utils.atomic import read_json, write_json

RECIPE = ROOT / "recipes" / "TinyStories"
# Run -> shares of right items of three seeds: monolingual, cross-lingual.
PLANTED = {
    "en_fr": [(0.90, 0.48), (0.90, 0.50), (0.90, 0.52)],
    "interleaved": [(0.90, 0.80), (0.90, 0.84), (0.90, 0.88)],
    "interleaved_ft": [(0.50, 0.50), (0.50, 0.54), (0.50, 0.52)],
    "switch0": [(0.90, 0.48), (0.90, 0.50), (0.90, 0.52)],
    "shuffled": [(0.90, 0.80), (0.90, 0.80)],
}


@pytest.fixture(scope="module", autouse=True)
def tool():
    """Import the tool from its folder, as Python runs a script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        import results_page

        yield results_page


def page(tool, folder):
    """Draw a copy of the page from a folder's results, and return it."""
    path = folder / "RESULTS.md"
    if not path.exists():
        shutil.copy(RECIPE / "RESULTS.md", path)
    tool.main(["--results", str(folder / "results"), "--output", str(path)])
    return path.read_text(encoding="utf-8")


def block(text, name):
    """Return the lines of a table, as lists of cells."""
    found = re.search(f"<!-- table: {name} -->\n(.*?)<!-- end -->", text, re.S)
    lines = found[1].splitlines()
    return [re.split(r" \| ", line.strip("| ")) for line in lines]


def plant(folder, planted=PLANTED, **further):
    for name, seeds in planted.items():
        for seed, shares in enumerate(seeds, start=1):
            write_small(folder, small_result(name, seed, shares, **further))


@pytest.fixture(scope="module")
def drawn(tool, tmp_path_factory):
    """A folder with planted results, and the page that shows them."""
    folder = tmp_path_factory.mktemp("page")
    plant(folder / "results")
    for name, gain in (("en_fr", 0.0), ("interleaved", 0.1)):
        for step, times in ((200, 0), (400, 2), (800, 3)):
            share = round(0.5 + gain * times, 4)
            content = small_result(
                name, 1, (0.9, share), step=step, aligned=0.1 + 0.2 * share
            )
            write_small(folder / "results", content)
    return folder, page(tool, folder)


def test_the_main_table_shows_what_was_planted(drawn):
    rows = {row[0]: row for row in block(drawn[1], "main") if len(row) > 2}
    header, found = rows["run"], rows["`interleaved`"]
    cell = dict(zip(header, found, strict=True))
    assert (cell["seeds"], cell["M tokens"]) == ("3", "0.81 EN")
    # Deviation of 80, 84, 88; the interval of the mean of three over groups.
    assert re.fullmatch(
        r"84\.0 ± 4\.0 \[8\d\.\d, 8\d\.\d\]", cell["sSC cross-lingual"]
    )
    interval = cell["sTC EN>FR"].split("[")[1]
    low, high = map(float, interval.strip("]").split(", "))
    assert 80 < low < 84 < high < 88
    assert rows["groups"][2] == "40"
    name = "`en_fr`, 360M, reported by a digest of the paper"
    paper = dict(zip(header, rows[name], strict=True))
    assert paper["sTC FR>EN"] == "57.34"
    assert paper["sTC cross-lingual"] == "56.46"  # of 55.58 and 57.34


def test_missing_runs_and_seeds_are_named(drawn):
    text = drawn[1]
    assert ["Missing: `en`, `fr`."] in block(text, "main")
    gone = [row for row in block(text, "controls") if "Missing:" in row[0]]
    assert "`half`, `tenth`, `hundredth`, `span2`, `span3`" in gone[0][0]
    assert "`switch0`" not in gone[0][0]
    gone = [row for row in block(text, "scaling") if "Missing:" in row[0]]
    assert "`en_fr-small-x0.5`" in gone[0][0]
    assert block(text, "main")[-1] == ["No results yet."]  # of whisper
    assert ["No snapshots of interleaved-shuffled."] in block(text, "curves")
    rows = {row[0]: row for row in block(text, "controls") if len(row) > 2}
    assert rows["`shuffled`"][1] == "2"
    assert rows["`switch0`"][6] == "+0.0 [+0.0, +0.0]"


def test_differences_are_tested_and_adjusted(drawn):
    lines = block(drawn[1], "differences")
    assert lines[0] == ["20 tests."]
    by = {(row[0], row[2]): row for row in lines if len(row) == 11}
    gain = by["`interleaved`", "sSC cross-lingual"]
    assert gain[3:5] == ["3", "40"]
    assert gain[5].startswith("+34.0 [+3")
    assert gain[6] == "+32.0, +34.0, +36.0"
    assert (gain[7], gain[10]) == ("40:0", "yes")
    # All 40 groups: 2 / 2^40, times the number of tests.
    assert float(gain[8]) == pytest.approx(2**-39, rel=0.05)
    assert float(gain[9]) == pytest.approx(20 * 2**-39, rel=0.05)
    same = by["`interleaved`", "sSC EN"]
    none = "+0.0, +0.0, +0.0"
    assert same[5:] == ["+0.0 [+0.0, +0.0]", none, "0:0", "1", "1", "no"]


def test_runs_are_compared_over_the_seeds_of_both(tool, drawn):
    results, _ = tool.read_all(drawn[0] / "results")
    import results_cells

    (one,) = results_cells.differences(
        results, "mfcc", "en_fr", ["shuffled"], [("sSC", "cross_lingual")]
    )
    assert (one["seeds"], one["apart"]) == (2, True)
    # 80 less 48 and 50: the third seed of en_fr has no partner.
    assert one["difference"] == pytest.approx(31)
    rows = [row for row in block(drawn[1], "curves") if row[0] == "`en_fr`"]
    # Snapshots are of one seed, and so is the last point.
    assert [row[2] for row in rows] == ["1", "1", "1", "1"]


def test_claims_are_judged(drawn):
    lines = block(drawn[1], "claims")
    # Two gains, the control and its twin; one gain, the losses, the other.
    told = "6 no, 2 no of 2 seed(s), 32 not measured, 4 yes."
    assert lines[0] == [f"Verdicts under `whole_mean`: {told}"]
    cells = {row[0]: row[1] for row in lines[4 : lines.index([""], 2)]}
    gain = "8 points or more above `en_fr` across languages, intervals apart"
    assert cells[f"`interleaved` is {gain}"].startswith("yes: sSC +34.0 [+3")
    # Two points are no eight, whatever the intervals.
    assert "no: sTC +2.0 [" in cells[f"`interleaved_ft` is {gain}"]
    loss = "`interleaved_ft` loses nothing to `en_fr` in one language"
    assert "no: sSC FR -40.0 [-4" in cells[f"{loss} beyond noise"]
    above = "is not above `en_fr` across languages"
    assert cells[f"`switch0` {above}"].startswith("yes: sSC +0.0 [")
    assert "; no of 2 seed(s): sTC +31.0" in cells[f"`shuffled` {above}"]
    voices = f"`interleaved` is {gain}, endings in another voice"
    assert cells[voices] == "(not measured)"


def test_curves_part_where_they_were_made_to(drawn):
    folder, text = drawn
    rows = {row[0]: row for row in block(text, "curves") if len(row) == 2}
    # 50 and 70 %, not 50 and 50 %: from step 400 on, 1,024 tokens each. What
    # has no snapshots, interleaved-shuffled, is said to part nowhere.
    assert rows["sSC cross-lingual"][1:] == ["0.41"]
    assert rows["sSC monolingual"][1:] == ["never"]
    # The last model's alignment is not above, so alignment never parts.
    assert (
        rows["P@1, layer 2, against sSC cross-lingual"][1]
        == "accuracy alone parts"
    )
    assert "![curves-mfcc.svg](results/figures/curves-mfcc.svg)" in text
    figure = (folder / "results/figures/curves-mfcc.svg").read_text()
    assert figure.count("<polyline") == 2 * 6
    assert "sSC cross-lingual" in figure


def test_the_same_results_give_the_same_bytes(tool, drawn):
    folder, text = drawn
    path = folder / "results" / "figures" / "curves-mfcc.svg"
    figure = path.read_bytes()
    mark = "Written by hand, \\1 and all."
    (folder / "RESULTS.md").write_text(f"{mark}\n{text}", encoding="utf-8")
    assert page(tool, folder) == f"{mark}\n{text}"
    assert path.read_bytes() == figure


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 0}, "is of version 0; expected version 1"),
        ({"seed": 2}, "says that it is mfcc/en_fr-2.json"),
        ({"seed": 1.5}, "seed is 1.5; expected an integer"),
        ({"groups": {"sSC": "others"}}, "the groups of sSC are not those of"),
        (
            {"credit_sums": {"whole_mean": {"sSC en": sums_of(0.8)}}},
            "'sSC en' have the mean 80.0, its accuracy is 90.0",
        ),
    ],
)
def test_files_that_contradict_are_refused(tool, tmp_path, change, words):
    plant(tmp_path / "results", {"a": [(0.9, 0.5)], "en_fr": [(0.9, 0.5)]})
    path = tmp_path / "results" / "mfcc" / "en_fr-1.json"
    write_json(path, {**small_result("en_fr", 1, (0.9, 0.5)), **change})
    with pytest.raises(ValueError, match=re.escape(words)):
        page(tool, tmp_path)
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert text == (RECIPE / "RESULTS.md").read_text(encoding="utf-8")


def test_a_page_without_its_marks_is_refused(tool, tmp_path):
    (tmp_path / "results").mkdir()
    path = tmp_path / "RESULTS.md"
    path.write_text("<!-- table: main -->\nno end\n", encoding="utf-8")
    words = "1 marks of tables, of which these end: none"
    with pytest.raises(ValueError, match=words):
        page(tool, tmp_path)
    assert path.read_text() == "<!-- table: main -->\nno end\n"


def test_baselines_stand_beside_the_controls(tool, tmp_path, store_folder):
    root, results = tmp_path / "root", tmp_path / "results"
    for folder in ("units/mfcc", "synthesis"):
        (root / folder).mkdir(parents=True)
    for name in ("train", "cloze"):
        (root / "units/mfcc" / name).symlink_to(store_folder)
    items = write_items(root / "synthesis" / "items.parquet")
    import mini_baselines
    import results_credits

    for kind in ("bag", "interleaved-ngram"):
        small = mini_baselines.score(kind, "mfcc", root)
        write_small(results, small)
    groups = results_credits.groups_of(read_items(items))
    write_json(results / "mfcc" / "groups.json", groups)
    lines = block(page(tool, tmp_path), "controls")
    rows = {row[0]: row for row in lines if len(row) > 2}
    for kind in ("bag", "interleaved-ngram"):
        found = read_json(root / "cloze/mfcc" / kind / "0" / "results.json")
        cells = rows[f"`{kind}`"]
        assert cells[1] == "1"
        for metric, cell in zip(("sSC", "sTC"), cells[2:4], strict=True):
            (accuracy,) = (
                one["accuracy"]
                for one in found["cross_lingual"]
                if (one["metric"], one["scoring"]) == (metric, found["scoring"])
            )
            assert cell.startswith(f"{accuracy:.1f} [")


@pytest.mark.long
def test_the_committed_page_is_what_the_results_say(tool, tmp_path):
    shutil.copytree(RECIPE / "results", tmp_path / "results")
    figures = {
        path.name: path.read_bytes()
        for path in (tmp_path / "results").glob("figures/*.svg")
    }
    shutil.rmtree(tmp_path / "results" / "figures", ignore_errors=True)
    text = page(tool, tmp_path)
    # Run `python tools/results_page.py` where these differ.
    assert text == (RECIPE / "RESULTS.md").read_text(encoding="utf-8")
    drawn = (tmp_path / "results").glob("figures/*.svg")
    assert {path.name: path.read_bytes() for path in drawn} == figures
