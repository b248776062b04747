import base64
import io
import itertools
import json
import os
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from processes import ROOT, run
from report_example import DIRECTIONS, TEXTS, make_manifest, make_run, record

from speechbrain_slm.utils.atomic import write_json
from speechbrain_slm.utils.tables import write_table


def report(*arguments):
    tool = ROOT / "tools" / "report.py"
    return run([sys.executable, tool, *map(str, arguments)])


class Page(HTMLParser):
    """What a page loads, says, and leaves open."""

    VOID = ("meta", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loads, self.said = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [v for k, v in attrs if k in ("src", "href", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a report of two runs, and what was printed."""
    folder = tmp_path_factory.mktemp("report")
    wins = {"en_fr": 303, "inter<leaved>": 400}
    runs = [make_run(folder, name, cross) for name, cross in wins.items()]
    more = ["--manifest", make_manifest(folder), "--output_folder", folder]
    code, text = report("--runs", *runs, *more)
    assert code == 0, text
    return folder, text


def test_records(made):
    records = json.loads((made[0] / "results.json").read_text())
    found = [(r["run"], r["metric"], r["direction"]) for r in records]
    runs, metrics = ("en_fr", "inter<leaved>"), ("sSC", "sTC")
    assert found == list(itertools.product(runs, metrics, DIRECTIONS))
    assert records[2] == {
        "run": "en_fr",
        **record("sSC", "en>fr", 303),
        "tokens": {"en": 1_000_000, "fr": 990_000},
    }


def test_markdown(made):
    lines = made[1].splitlines()
    assert lines[0] == "| metric | direction | n | en_fr | inter&lt;leaved> |"
    assert lines[4] == (
        "| sSC | en>fr | 600 | 50.5 [46.5, 54.5] | 66.7 [62.8, 70.3] |"
    )
    assert lines[6].startswith("| sSC | cross-lingual | 600 | 51.5 [")
    assert len([line for line in lines if line.startswith("|")]) == 12
    assert lines[-1].endswith("report.html")


def test_runs_that_count_otherwise_and_other_configurations(
    tmp_path, tool, capsys
):
    fewer = [record("sSC", one, 300, n=598) for one in DIRECTIONS]
    runs = [make_run(tmp_path, "one", 300, configuration="a1")]
    runs += [make_run(tmp_path, "two", 300, records=fewer, configuration="b2")]
    more = ["--manifest", make_manifest(tmp_path)]
    tool("--runs", *runs, *more, "--output_folder", tmp_path)
    assert "| sSC | en>fr | 598 to 600 |" in capsys.readouterr().out
    said = " ".join(Page((tmp_path / "report.html").read_text()).said)
    assert "598 to 600" in said
    for told in ("one, configuration a1", "two, configuration b2"):
        assert f"model {told}" in " ".join(said.split())


def test_page_is_whole_loads_nothing_and_escapes_what_it_shows(made):
    text = (made[0] / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    sounds = [load for load in page.loads if not load.startswith("#")]
    assert all(sound.startswith("data:audio/flac") for sound in sounds)
    for outside in ("http:", "https:", "url(", "@import", "{{", "{%"):
        assert outside not in text
    assert page.tags.count("script") == 1
    said = " ".join(page.said)
    assert all(words in said for words in ("inter<leaved>", *TEXTS.values()))
    assert "leaved" not in page.tags
    # Intervals that contain chance: en>fr, fr>en and their mean, of one run of
    # two, in two metrics.
    assert page.tags.count("abbr") == 2 * 3


def test_page_plays_what_was_recorded(made):
    folder, _ = made
    page = Page((folder / "report.html").read_text())
    sounds = [load for load in page.loads if not load.startswith("#")]
    assert page.tags.count("audio") == len(sounds) == 2 * 3 * 2
    content = base64.b64decode(sounds[0].partition(",")[2])
    samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    first, _ = soundfile.read(folder / "0-prompt-en-0.wav", dtype="int16")
    second, _ = soundfile.read(folder / "0-prompt-en-1.wav", dtype="int16")
    assert rate == 16000
    assert len(samples) == 800 + 4000 + 800
    assert (samples[:800] == first).all()
    assert (samples[-800:] == second).all()


def test_a_part_of_several_voices_names_them_in_order(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from report_audio import spoken_stories

    manifest = make_manifest(tmp_path, stories=1)
    rows = pq.read_table(manifest).to_pylist()
    for row in rows:
        row["speaker"] = "alto" if row["sentence"] else "bass"
        row["text"] = f"Sentence {row['sentence']}."
    schema = pq.read_schema(manifest)
    # The order of the rows is not that of the sentences.
    write_table(manifest, pa.Table.from_pylist(rows[::-1], schema=schema))
    (story,) = spoken_stories(manifest, 1)
    assert story.speaker == "bass, alto"
    assert {
        (part, clip.text)
        for part, clips in story.parts().items()
        for clip in clips
    } == {
        ("Prompt", "Sentence 0. Sentence 1."),
        ("Right ending", "Sentence 0."),
        ("Wrong ending (sSC)", "Sentence 0."),
    }


def test_curves_lie_inside_their_charts(made):
    text = (made[0] / "report.html").read_text()
    charts = text.partition('class="charts">')[2].partition("<table")[0]
    figures = charts.split("<figure>")[1:]
    assert len(figures) == 3
    for figure in figures:
        svg = figure[figure.index("<svg") : figure.index("</svg>") + 6]
        tree = ElementTree.fromstring(svg)
        curves = [
            np.array([p.split(",") for p in line.get("points").split()], float)
            for line in tree.iter("polyline")
        ]
        assert len(curves) == 2
        for curve in curves:
            assert (np.diff(curve[:, 0]) > 0).all()
            assert (curve >= 0).all()
            assert (curve <= (360, 220)).all()
            # A falling loss falls on the page: y grows downwards.
            assert curve[-1, 1] > curve[0, 1]


def test_the_same_inputs_give_the_same_bytes(made, tmp_path):
    folder, _ = made
    runs = [
        f"{name}={folder}/LM/{name}:{folder}/cloze/{name}"
        for name in ("en_fr", "inter<leaved>")
    ]
    manifest = ["--manifest", folder / "cloze.parquet"]
    more = *manifest, "--output_folder", tmp_path
    assert report("--runs", *runs, *more)[0] == 0
    for name in ("report.html", "results.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


@pytest.fixture
def tool(monkeypatch):
    """The report's main function, in this process."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import report

    return lambda *arguments: report.main(list(map(str, arguments)))


def test_bad_inputs_write_nothing(tmp_path, tool):
    one, broken, unfinished, torn = (
        make_run(tmp_path, name, 300)
        for name in ("one", "broken", "unfinished", "torn")
    )
    other = make_run(tmp_path, "other", 300, tokenizer="codebook-b")
    wrong_ties = make_run(tmp_path, "wrong_ties", 300, tie=0)
    old = make_run(tmp_path, "old", 300, version=1)
    log = tmp_path / "LM" / "broken" / "train_log.jsonl"
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    (tmp_path / "LM" / "unfinished" / "run.json").unlink()
    path = tmp_path / "cloze" / "torn" / "results.json"
    path.write_text(path.read_text()[:300])
    output = tmp_path / "output"
    for runs, message in (
        ([one, other], "tokenizer: expected 'codebook', found 'codebook-b'"),
        ([one, wrong_ties], "tie: expected 0.5, found 0"),
        ([one, old], "results.json is of version 1; expected version 2"),
        ([one, one], "a name stands twice"),
        (["one"], "expected NAME=LM_FOLDER:CLOZE_FOLDER"),
        ([broken], "train_log.jsonl, line 2: expected a JSON object"),
        ([unfinished], "run.json does not exist"),
        ([torn], f"{path} is not valid JSON"),
    ):
        with pytest.raises(ValueError, match=message):
            tool("--runs", *runs, "--output_folder", output)
    code, text = report("--runs", "one", "--output_folder", output)
    assert code == 1
    assert text.startswith("error: --runs 'one': expected NAME=")
    assert not output.exists()


def test_audio_that_differs_from_the_manifest_is_refused(tmp_path, tool):
    made = make_run(tmp_path, "one", 300)
    arguments = ["--runs", made, "--manifest", make_manifest(tmp_path)]
    arguments += ["--output_folder", tmp_path / "output"]
    clip = tmp_path / "0-right-fr-0.wav"
    soundfile.write(clip, np.zeros(700, np.int16), 16000)
    with pytest.raises(ValueError, match=r"700 samples at .* says 800"):
        tool(*arguments)
    clip.unlink()
    # A pipe that nobody writes to would be waited for.
    os.mkfifo(clip)
    with pytest.raises(ValueError, match=r"fr-0\.wav cannot be read: is a p"):
        tool(*arguments)
    assert not (tmp_path / "output").exists()


def change(path, **places):
    """Change a JSON file: key, or record__key for the first record."""
    content = json.loads(path.read_text())
    for place, value in places.items():
        kind, _, key = place.partition("__")
        target = content[kind][0] if key else content
        target[key or kind] = value
    path.write_text(json.dumps(content))


SCRIPT = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("name", "places", "message"),
    [
        ("results.json", {"records__n": SCRIPT}, r"records\[0\]\.n is '<scri"),
        ("results.json", {"records__accuracy": "70"}, "accuracy is '70'; exp"),
        ("results.json", {"records": {}}, r"records is {}; expected a list"),
        ("results.json", {"scoring": "other"}, "no record of the scoring 'ot"),
        ("results.json", {"model": ["x"]}, r"model is \['x'\]; expected text"),
        ("run.json", {"steps": SCRIPT}, "steps is '<script>"),
        ("run.json", {"tokens": {"en": "3"}}, r"tokens\.en is '3'; expected"),
        ("run.json", {"seconds": float("nan")}, "seconds is nan; expected a n"),
    ],
)
def test_what_is_no_number_is_named(tmp_path, tool, name, places, message):
    made = make_run(tmp_path, "one", 300)
    (path,) = tmp_path.rglob(name)
    change(path, **places)
    output = tmp_path / "output"
    with pytest.raises(ValueError, match=message):
        tool("--runs", made, "--output_folder", output)
    assert not output.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": 1, "loss": NaN}', "line 1: loss is nan; expected a number"),
        ('{"step": "1", "loss": 2}', "line 1: step is '1'; expected an int"),
        ('{"step": 1, "valid": {"a": 1e99}}', r"valid\.a is 1e\+99; expected"),
        ("[1]", r"its content is \[1\]; expected an object"),
    ],
)
def test_a_log_of_another_shape_is_named(tmp_path, tool, line, message):
    made = make_run(tmp_path, "one", 300)
    (tmp_path / "LM/one/train_log.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=rf"train_log\.jsonl, .*{message}"):
        tool("--runs", made, "--output_folder", tmp_path / "output")


def test_all_that_is_text_is_escaped(tmp_path, tool, capsys):
    """Whatever a file says, its words are words in the page."""
    made = make_run(tmp_path, "one", 300)
    places = dict.fromkeys(("tokenizer", "units", "items", "model"), SCRIPT)
    for kind in ("records", "cross_lingual"):
        places[f"{kind}__metric"] = SCRIPT
        places[f"{kind}__direction"] = f"a|b{SCRIPT}"
    change(tmp_path / "cloze/one/results.json", **places)
    log = tmp_path / "LM/one/train_log.jsonl"
    log.write_text(json.dumps({"step": 1, "valid": {SCRIPT: 1e-320}}) + "\n")
    change(tmp_path / "LM/one/run.json", tokens={SCRIPT: 3})
    output = tmp_path / "output"
    tool("--runs", made, "--output_folder", output)
    text = (output / "report.html").read_text()
    assert SCRIPT not in text
    assert text.count("<script") == 1
    assert Page(text).said.count(SCRIPT) >= 5
    printed = capsys.readouterr().out
    assert "<script" not in printed
    assert r"a\|b&lt;script" in printed


def test_all_right_is_drawn(tmp_path, tool):
    made = make_run(tmp_path, "one", 300)
    ends = dict.fromkeys(("ci_low", "ci_high", "chance"), 100.0)
    path = tmp_path / "cloze/one/results.json"
    results = json.loads(path.read_text())
    for one in results["records"] + results["cross_lingual"]:
        one.update(ends)
    write_json(path, results)
    tool("--runs", made, "--output_folder", tmp_path / "output")
