"""The report, opened in a browser; and what it says of how it was made."""

import json

import pytest
from browser import Browser, chromium
from processes import ROOT
from report_example import (
    make_alignment,
    make_continuations,
    make_manifest,
    make_run,
)

from speechbrain_slm.utils.atomic import write_json

FAULTS = ("Runtime.exceptionThrown", "Log.entryAdded")
SETTINGS = """\
# Resolved from /home/anna/slm/recipes/TinyStories/LM/hparams/mini.yaml
units_folder: "/home/anna/my units/train" # see https://a.org/b/c
"""
# Of every text, the contrast with what lies behind it, by WCAG's formula.
CONTRAST = """
(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => {
    const [r, g, b] = rgb(text).slice(0, 3).map((x) => x / 255)
      .map((x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if ((rgb(colour)[3] ?? 1) > 0) return colour;
    }
  };
  const found = [];
  for (const one of document.body.querySelectorAll("*")) {
    const style = getComputedStyle(one);
    const own = [...one.childNodes].some(
      (n) => n.nodeType === 3 && n.data.trim());
    const drawn = one.matches("svg .mark");
    if (!(own || drawn) || one.matches("script, desc, title")) continue;
    const colour = drawn || one.matches("svg *") ? style.fill : style.color;
    const pair = [light(colour), light(behind(one))].sort((a, b) => a - b);
    if (pair[1] / pair[0] < 4.5)
      found.push([one.tagName, one.textContent, colour, pair[1] / pair[0]]);
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory, store_folder):
    """A report with all that it can show."""
    folder = tmp_path_factory.mktemp("page")
    wins = {"en_fr": 303, "interleaved": 400}
    runs = [make_run(folder, name, cross) for name, cross in wins.items()]
    aligned = [
        f"{name}={make_alignment(folder / 'alignment' / name, cross / 2000)}"
        for name, cross in wins.items()
    ]
    said = [
        f"{name}={make_continuations(folder / 'continuation' / name)}"
        for name in wins
    ]
    lm = folder / "LM" / "en_fr"
    (lm / "hyperparams.yaml").write_text(SETTINGS)
    told = "Python 3.11.7 (main)\n/home/anna/bin/python\n\ntorch==2.14.1\n"
    told += "\nGit revision: abc\nCUDA: none\nCommand: python recipes/x.py "
    told += "/home/anna/slm/recipes/y.yaml --output_folder /home/anna/out/LM\n"
    (lm / "env.log").write_text(told)
    more = ["--manifest", make_manifest(folder), "--units", store_folder]
    more += ["--alignment", *aligned, "--continuation", *said]
    spoken = {"kind": "held_out", "language": "en", "speaker": "<i>alto"}
    spoken |= {"utterances": 9, "words": 54, "original": 3.7}
    spoken |= {"resynthesized": 12.5}
    write_json(folder / "vocoder" / "results.json", {"results": [spoken]})
    more += ["--vocoder", folder / "vocoder", "--output_folder", folder]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        import report

        report.main(["--runs", *runs, *map(str, more)])
    return folder / "report.html"


def test_the_page_says_how_it_was_made_and_no_place_of_the_disk(page):
    text = page.read_text()
    assert "anna" not in text
    assert str(page.parent) not in text
    for told in (
        "python recipes/x.py recipes/y.yaml --output_folder …/LM<",
        "# Resolved from recipes/TinyStories/LM/hparams/mini.yaml",
        "units_folder: &#34;…/train&#34; # see https://a.org/b/c",
        "Python 3.11.7; torch 2.14.1; Git revision: abc; CUDA: none.",
        "<td>&lt;i&gt;alto</td>",
        "Il 0 &amp; &lt;i&gt;dort&lt;/i&gt;</span>",
        "nearest to: L&#39;été &lt;b&gt;vient&lt;/b&gt;.</small>",
    ):
        assert told in text


def sorted_by(browser, table, column):
    """Return a column's cells, and its aria-sort."""
    return browser.run(
        f"""(() => {{
          const table = document.querySelectorAll("table.sortable")[{table}];
          return [[...table.tBodies[0].rows].map(
            (row) => row.cells[{column}].dataset.value
              ?? row.cells[{column}].textContent),
            table.tHead.rows[0].cells[{column}].getAttribute("aria-sort")];
        }})()"""
    )


def check_sorting(browser):
    """By a click, and by keys alone."""
    button = 'document.querySelectorAll("table.sortable th button")[2]'
    before, _ = sorted_by(browser, 0, 2)
    for order in ("ascending", "descending"):
        browser.run(f"{button}.click()")
        found, told = sorted_by(browser, 0, 2)
        assert told == order
        expected = sorted(map(float, before), reverse=order == "descending")
        assert list(map(float, found)) == expected
    browser.run(f"{button}.focus()")
    browser.press("Tab", 9)
    browser.press("Enter", 13, "\r")
    found, told = sorted_by(browser, 0, 3)
    assert told == "ascending"
    assert list(map(float, found)) == sorted(map(float, found))
    assert sorted_by(browser, 0, 2)[1] == "none"
    # Of the button that has the keyboard now, one sees it.
    seen = "getComputedStyle(document.activeElement).outlineStyle"
    assert browser.run(seen) == "solid"


def check_figures(browser):
    """A browser has a name for each figure, and its values."""
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    images = [
        one
        for one in nodes
        if not one["ignored"] and one["role"]["value"] in ("image", "img")
    ]
    drawn = """document.querySelectorAll('svg:not([aria-hidden="true"])')"""
    # Intervals of 10 rows, 3 of losses, 3 measures in 2 voices.
    assert len(images) == browser.run(f"{drawn}.length") == 10 + 3 + 6
    for one in images:
        name = one["name"]["value"]
        told = one.get("description", {}).get("value", "")
        assert "en_fr" in name + told, one
    players = "[...document.querySelectorAll('audio')]"
    names = browser.run(f"{players}.map((one) => one.ariaLabel)")
    # Of 2 stories: in 4 directions a prompt, an ending and what 2 runs say,
    # and 2 wrong endings.
    assert len(names) == len(set(names)) == 2 * (4 * 4 + 2)


@pytest.mark.long
@pytest.mark.skipif(not chromium(), reason="there is no Chromium on the PATH")
def test_in_a_browser(page):
    with Browser() as browser:
        browser.resize(1200)
        browser.open(page)
        # The first key leads past the navigation.
        browser.press("Tab", 9)
        browser.press("Enter", 13, "\r")
        assert browser.run("document.activeElement.id") == "main"
        players = "[...document.querySelectorAll('audio')]"
        browser.wait(f"{players}.every((one) => one.readyState > 0)")
        lengths = browser.run(f"{players}.map((one) => one.duration)")
        assert min(lengths) > 0
        check_sorting(browser)
        check_figures(browser)
        browser.run(
            "for (const one of document.querySelectorAll('details'))"
            "one.open = true;"
        )
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            assert browser.run(CONTRAST) == []
        # Of a phone; tables scroll, the page does not.
        browser.resize(360, mobile=True)
        width = "document.documentElement.scrollWidth"
        assert browser.run(f"[innerWidth, {width}]") == [360, 360]
        faults = [one for one in browser.events if one["method"] in FAULTS]
        assert faults == []
        assert "Runtime.consoleAPICalled" not in {
            one["method"] for one in browser.events
        }


def test_continuations_that_do_not_belong(page, tmp_path):
    """They are refused, and what is wrong is named."""
    folder = page.parent
    run = f"en_fr={folder / 'LM/en_fr'}:{folder / 'cloze/en_fr'}"
    more = ["--manifest", folder / "cloze.parquet", "--output_folder", tmp_path]

    def report(*continuations):
        from report import main

        given = ["--continuation", *continuations]
        main(["--runs", run, *given, *map(str, more)])

    outside = make_continuations(tmp_path / "outside", audio="../a.flac")
    with pytest.raises(ValueError, match=r"'\.\./a\.flac' lies outside"):
        report(f"en_fr={outside}")
    (outside / "continuations.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"not what results\.json beside it"):
        report(f"en_fr={outside}")
    for wrong in ("en_fr", "other=x"):
        with pytest.raises(ValueError, match="expected NAME=FOLDER, with a na"):
            report(wrong)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("values", [[3.0], [0.0, 1e-320], [-8.0, 1e9]])
def test_an_axis_holds_its_values(page, values):
    from report_figures import ticks

    found = ticks(values)
    assert found[0] <= min(values)
    assert max(values) <= found[-1]
    assert 2 <= len(found) <= 8
    with pytest.raises(ValueError, match=r"-1e\+308 to 1e\+308 cannot be dr"):
        ticks([-1e308, 1e308])


def test_what_is_heard_of_a_prompt_and_who_says_nothing(page, tmp_path):
    from report_audio import as_flac, read_samples, spoken_stories
    from report_continued import Continued

    folder = make_continuations(
        tmp_path / "said", audio=None, seconds=0.0, prompt_languages=["en"]
    )
    path = folder / "results.json"
    info = json.loads(path.read_text())
    info |= {"prompts": {"last_sentences": 1}, "items": "identity"}
    path.write_text(json.dumps(info))
    continued = Continued(["en_fr"], {"en_fr": folder})
    manifest = page.parent / "cloze.parquet"
    (story,) = spoken_stories(manifest, 1, continued.stories())
    (row,) = (
        row for key, row in continued.rows(story).items() if key[:3] == "en:"
    )
    prompt, _, said = row
    last = story.spoken["prompt", "en"][1]
    heard = read_samples(manifest.parent / last["audio"])
    assert prompt.flac == as_flac(*heard)
    assert (said.title, said.flac) == ("says nothing", "")
