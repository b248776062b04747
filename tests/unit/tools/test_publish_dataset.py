import contextlib
import io
import runpy
from collections import Counter

import pyarrow.parquet as pq
import pytest
import yaml
from processes import ROOT
from units_example import write_corpus, write_manifest

datasets = pytest.importorskip("datasets")

TOOL = ROOT / "tools" / "publish_dataset.py"


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    # Its siblings are beside it, as when it is run.
    monkeypatch.syspath_prepend(str(TOOL.parent))
    write_corpus(tmp_path / "in")
    (tmp_path / "sources.md").write_text("Texts: noise, CC0.")
    (tmp_path / "plan.json").write_text('{"tts": "noise"}')
    return tmp_path


def run(arguments):
    """Run the tool; return its exit code and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_path(str(TOOL))["main"](list(map(str, arguments)))
        except SystemExit as error:
            return 1, str(error)
    return 0, said.getvalue()


def publish(folder, *options, splits=("train",)):
    manifests = [f"{split}={folder}/in/{split}.parquet" for split in splits]
    options += ("--sources", folder / "sources.md")
    options += ("--made_by", folder / "plan.json", "--rows_per_shard", "30")
    options += ("--name", "Noise", "--license", "cc0-1.0")
    return run([folder / "out", *options, "--manifests", *manifests])


def test_bytes_load_as_the_hub_loads_them(corpus, caplog):
    write_corpus(corpus / "in", stories=2, split="valid")
    # Its logger has handlers of its own, and tells the root nothing.
    datasets.utils.logging.enable_propagation()
    code, text = publish(corpus, splits=("train", "valid"))
    assert code == 0, text
    assert "train: 72 rows, 72 audio files compared" in text
    assert "Ignoring part of dataset_info" not in caplog.text
    shards = sorted(path.name for path in (corpus / "out" / "data").iterdir())
    assert shards == [
        *(f"train-{shard:05d}-of-00003.parquet" for shard in range(3)),
        "valid-00000-of-00001.parquet",
    ]
    loaded = datasets.load_dataset(
        str(corpus / "out"), cache_dir=str(corpus / "cache")
    )
    assert {k: len(v) for k, v in loaded.items()} == {"train": 72, "valid": 12}
    assert loaded["train"].features["audio"] == datasets.Audio(16000)
    manifest = pq.read_table(corpus / "in" / "train.parquet")
    assert loaded["train"]["sha256"][:] == manifest["sha256"].to_pylist()
    text = (corpus / "out" / "README.md").read_text()
    card = yaml.safe_load(text.split("---\n")[1])
    assert (card["license"], card["language"]) == ("cc0-1.0", ["en", "fr"])
    splits = card["dataset_info"]["splits"]
    assert [one["num_examples"] for one in splits] == [72, 12]
    assert "Texts: noise, CC0." in text
    assert '{"tts": "noise"}' in text
    assert not (corpus / "out" / ".lock").exists()


def test_hours_are_those_of_the_sentences(corpus):
    path = corpus / "in" / "train.parquet"
    rows, expected = pq.read_table(path).to_pylist(), Counter()
    for row in rows:
        row["speaker"] = ("alto", "bass", "tenor")[row["sentence"]]
        # Hours, of which the card shows two decimals.
        row["num_samples"] *= 10000
        hours = row["num_samples"] / row["sample_rate"] / 3600
        for name in (row["speaker"], "train | 72"):
            expected[name, row["language"]] += hours
    write_manifest(path, rows)
    import dataset_card

    hours = dataset_card.corpus_hours({"train": path})
    table = dataset_card._hours_table(hours, ["en", "fr"])
    for name in ("alto", "bass", "tenor", "train | 72"):
        cells = [f"{expected[name, one]:.2f}" for one in ("en", "fr")]
        assert f"| {name} | {' | '.join(cells)} |" in table


def test_paths_hold_each_file_once(corpus):
    code, text = publish(corpus, "--audio", "paths")
    assert code == 0, text
    manifest = pq.read_table(corpus / "in" / "train.parquet")
    files = [p for p in (corpus / "out" / "audio").rglob("*") if p.is_file()]
    assert len(files) == len(set(manifest["sha256"].to_pylist())) < 72
    data = datasets.load_dataset(str(corpus / "out"), streaming=True)
    for row in data["train"]:
        assert (corpus / "out" / row["audio"]).is_file()


def test_a_stopped_run_goes_on(corpus):
    assert publish(corpus)[0] == 0
    shards = sorted((corpus / "out" / "data").iterdir())
    before = {path: path.read_bytes() for path in shards}
    kept = shards[0].stat().st_mtime_ns
    shards[1].unlink()
    (shards[0].parent / ".tmp-00001234-train.parquet").write_bytes(b"PAR1 torn")
    (corpus / "out" / "README.md").unlink()
    code, text = publish(corpus)
    assert code == 0, text
    assert {path: path.read_bytes() for path in shards} == before
    assert shards[0].stat().st_mtime_ns == kept
    assert not list((corpus / "out").rglob(".*"))


def test_a_folder_of_something_else_is_refused(corpus):
    (corpus / "out").mkdir()
    (corpus / "out" / "thesis.tex").write_text("mine")
    code, text = publish(corpus)
    assert code == 1
    assert "thesis.tex" in text
    assert [p.name for p in (corpus / "out").glob("[!.]*")] == ["thesis.tex"]
    (corpus / "out" / "thesis.tex").unlink()
    assert publish(corpus)[0] == 0
    code, text = publish(corpus, "--audio", "paths")
    assert code == 1
    assert "audio: expected 'paths', found 'bytes'" in text


def test_changed_audio_is_refused(corpus):
    path = sorted((corpus / "in" / "audio").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-1])
    code, text = publish(corpus)
    assert code == 1
    assert f"{path.name}: its SHA-256 is not the manifest's" in text
    assert not (corpus / "out" / "README.md").exists()


def test_damage_is_found_when_it_is_loaded(corpus):
    assert publish(corpus, "--audio", "paths")[0] == 0
    path = next(p for p in (corpus / "out" / "audio").rglob("*.flac"))
    path.write_bytes(b"other")
    code, text = publish(corpus, "--audio", "paths")
    assert code == 1
    assert "what was loaded is not the manifest's (audio)" in text


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("train", "expected SPLIT=FILE.parquet"),
        ("train=nowhere.parquet", "no such file"),
    ],
)
def test_bad_arguments(corpus, manifest, message):
    command = [corpus / "out", "--name", "x", "--license", "x"]
    command += ["--sources", corpus / "sources.md", "--manifests", manifest]
    code, text = run(command)
    assert code == 1
    assert message in text
    assert not (corpus / "out").exists()
