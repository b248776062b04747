"""The module ``alignment``, its files, its table and its figure."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from alignment_example import VOCABULARY, write_corpus
from cloze_example import export, tiny_model
from processes import ROOT, kill, run, start, wait_until
from sklearn.metrics.pairwise import cosine_similarity

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.alignment.evaluate import evaluate_alignment
from speechbrain_slm.evaluation.alignment.figure import draw_alignment
from speechbrain_slm.evaluation.alignment.hidden_states import POOLINGS
from speechbrain_slm.evaluation.alignment.metrics import PairSums
from speechbrain_slm.evaluation.alignment.pairs import units_of
from speechbrain_slm.evaluation.alignment.report import (
    alignment_table,
    read_alignment,
)
from speechbrain_slm.utils.hashing import sha256_file

pytestmark = pytest.mark.long

ALIGN_RANKS = Path(__file__).with_name("align_ranks.py")
NAME = "alignment.json"
SIZES = ("gallery", "max_retrieval", "pairs_per_shard")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return export(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def evaluate(model_folder, corpus):
    def evaluate(output, model=model_folder, corpus=corpus, **options):
        options = {"languages": ["en", "fr"], "pairs_per_shard": 4, **options}
        options.setdefault("manifest", corpus / "manifest.parquet")
        return evaluate_alignment(model, corpus / "store", output, **options)

    return evaluate


@pytest.fixture
def copy(tmp_path, finished):
    return shutil.copytree(finished[0], tmp_path / "copy")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, evaluate):
    """Folder of a finished evaluation, and what it returned."""
    folder = tmp_path_factory.mktemp("alignment")
    return folder, evaluate(folder)


def test_results_say_what_they_are(finished, model_folder, corpus):
    folder, results = finished
    assert json.loads((folder / NAME).read_text()) == results
    store = UnitStore(corpus / "store")
    assert results["model"] == sha256_file(model_folder / "model.safetensors")
    assert results["tokenizer"] == store.identity == "codebook-a"
    assert results["units"] == store.info["identity"]
    assert [
        (record["voice"], record["pooling"], record["layer"])
        for record in results["records"]
    ] == [
        (voice, pooling, layer)
        for voice in ("same", "different")
        for pooling in POOLINGS
        for layer in range(3)
    ]
    (summary,) = results["languages"]
    assert {record["n"] for record in results["records"]} == {summary["paired"]}
    assert not results["retrieval_capped"]


@torch.no_grad()
def mean_states(model, store, rows, side):
    """States of the mean pooling, one sequence at a time: [L + 1, N, D]."""
    language = "en" if side == "source" else "fr"
    found = []
    for row in rows:
        place = row[f"{side}_story"], row[f"{side}_sentence"], language
        ids = torch.tensor([[VOCABULARY, *units_of(store, *place).tolist()]])
        layers = model(ids, output_hidden_states=True).hidden_states
        found.append([layer[0, 1:].mean(0) for layer in layers])
    return np.array(found).transpose(1, 0, 2)


@pytest.mark.parametrize("voice", ["same", "different"])
def test_records_are_those_of_the_pairs(finished, corpus, voice):
    """From pairs.parquet alone, without shards, sums or batches."""
    folder, results = finished
    rows = [
        row
        for row in pq.read_table(folder / "pairs.parquet").to_pylist()
        if row["same_voice"] == (voice == "same")
    ]
    store = UnitStore(corpus / "store")
    sides = [
        mean_states(tiny_model(), store, rows, side)
        for side in ("source", "target", "mismatch")
    ]
    for record in results["records"]:
        if (record["voice"], record["pooling"]) != (voice, "mean"):
            continue
        source, target, mismatch = (side[record["layer"]] for side in sides)
        matrix = cosine_similarity(source, target)
        right = np.diagonal(matrix)
        wrong = np.diagonal(cosine_similarity(source, mismatch))
        sums = PairSums()
        sums.add(source, target, mismatch)
        found = [record[name] for name in ("cosine", "mismatched", "cka")]
        expected = [right.mean(), wrong.mean(), sums.summary()["cka"]]
        assert found == pytest.approx(expected, abs=1e-5)
        p1 = [
            (matrix.argmax(axis=axis) == np.arange(len(rows))).mean()
            for axis in (1, 0)
        ]
        found = record["retrieval"]
        assert [found["p1_forward"], found["p1_backward"]] == pytest.approx(p1)
        assert found["mexa"] <= min(p1)


def test_the_manifest_says_who_speaks_where_several_do(tmp_path, evaluate):
    corpus = write_corpus(tmp_path / "corpus", several=True)
    evaluate(tmp_path, corpus=corpus, pairs_per_shard=100)
    pairs = pq.read_table(tmp_path / "pairs.parquet")
    for side in ("source", "target", "mismatch"):
        assert set(pairs[f"{side}_speaker"].to_pylist()) == {"alto", "bass"}
    with pytest.raises(ValueError, match=r"several speakers .* the manifest"):
        evaluate(tmp_path / "none", corpus=corpus, manifest=None)


def test_batches_and_shards_change_nothing(tmp_path, finished, evaluate):
    again = evaluate(tmp_path, pairs_per_shard=1000, batch_tokens=1)
    for records in zip(finished[1]["records"], again["records"], strict=True):
        one, two = (
            {k: v for k, v in record.items() if isinstance(v, float)}
            for record in records
        )
        assert one == pytest.approx(two, abs=1e-5)


def test_what_is_complete_is_reused(finished, evaluate):
    folder, results = finished
    files = [path for path in folder.rglob("*") if path.is_file()]
    times = {path: path.stat().st_mtime_ns for path in files}
    assert evaluate(folder) == results
    assert times == {path: path.stat().st_mtime_ns for path in files}


def test_a_resumed_run_computes_what_is_missing(copy, finished, evaluate):
    (copy / NAME).unlink()
    parts = sorted((copy / "parts").glob("states-*.npy"))
    assert len(parts) > 8
    for part in parts[2:5]:
        part.unlink()
    kept = {part: part.stat().st_mtime_ns for part in parts if part.exists()}
    evaluate(copy)
    assert (copy / NAME).read_bytes() == (finished[0] / NAME).read_bytes()
    assert kept == {part: part.stat().st_mtime_ns for part in kept}


def test_after_a_kill_two_ranks_give_the_same_file(
    tmp_path, finished, model_folder, corpus
):
    arguments = [ALIGN_RANKS, model_folder, corpus, tmp_path]
    process = start([sys.executable, *map(str, arguments), "0.5"])
    parts = tmp_path / "parts"
    wait_until(lambda: len(list(parts.glob("states-*.npy"))) > 1, process)
    kill(process)
    assert not (tmp_path / NAME).exists()
    there = {path: path.stat().st_mtime_ns for path in parts.glob("states-*")}
    assert len(there) < len(list((finished[0] / "parts").glob("states-*")))
    torchrun = ["-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc_per_node=2", *map(str, arguments), "0"]
    code, text = run([sys.executable, *torchrun])
    assert code == 0, text
    assert there == {path: path.stat().st_mtime_ns for path in there}
    assert (tmp_path / NAME).read_bytes() == (finished[0] / NAME).read_bytes()


def test_the_matrix_of_similarities_is_capped(copy, finished, evaluate):
    results = evaluate(copy, max_retrieval=10)
    assert results["retrieval_capped"]
    both = results["records"], finished[1]["records"]
    for record, whole in zip(*both, strict=True):
        assert record["n_retrieval"] == 10
        assert record["retrieval"]["chance"] == pytest.approx(1 / 10)
        # Only retrieval looks at some pairs; the rest looks at all.
        assert record["n"] == whole["n"] > 10
        assert record["cka"] == whole["cka"]


def test_states_of_others_are_refused(tmp_path, copy, finished, evaluate):
    other = export(tmp_path / "other", tiny_model(seed=5))
    with pytest.raises(ValueError, match=r"another configuration \(model: exp"):
        evaluate(copy, other)
    with pytest.raises(ValueError, match=r"configuration \(poolings: exp"):
        evaluate(copy, poolings=["last"])
    assert json.loads((copy / NAME).read_text()) == finished[1]


@pytest.mark.parametrize("damage", [slice(-9, None), slice(-1001, -1000)])
def test_a_damaged_part_is_named(copy, evaluate, damage):
    (copy / NAME).unlink()
    part = copy / "parts" / "states-00003.npy"
    content = bytearray(part.read_bytes())
    del content[damage]
    part.write_bytes(content)
    with pytest.raises(ValueError, match=r"00003\.npy is damaged: it differs"):
        evaluate(copy)
    assert not (copy / NAME).exists()


def test_another_tokenizer_is_refused_first(tmp_path, evaluate):
    model = export(tmp_path / "model", identity="codebook-b")
    with pytest.raises(ValueError, match=r"codebook-b.*codebook-a"):
        evaluate(tmp_path / "out", model)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": ["en", "de"]}, "holds nothing in 'de'"),
        ({"poolings": ["max"]}, "pooling is 'max'; expected mean or "),
        ({"poolings": []}, "poolings is empty"),
        *(({name: 0}, f"{name} is 0; expected .* at least") for name in SIZES),
    ],
)
def test_bad_settings_leave_nothing(tmp_path, evaluate, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_stories_without_texts(tmp_path, evaluate):
    results = evaluate(tmp_path, manifest=None, level="story")
    (summary,) = results["languages"]
    assert summary["voices"] == ["same"]
    assert {record["voice"] for record in results["records"]} == {"same"}
    assert {record["n"] for record in results["records"]} == {60}


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("plot_alignment").main


def test_figure_and_table_of_runs(tmp_path, finished, evaluate, tool, capsys):
    folder, results = finished
    other = tmp_path / "other"
    evaluate(other, export(tmp_path / "model", tiny_model(seed=5)))
    figure = tmp_path / "figure.png"
    capsys.readouterr()
    tool([f"one={folder}", f"two={other}", "--output", str(figure)])
    assert figure.read_bytes()[1:4] == b"PNG"
    text = capsys.readouterr().out
    table, summary = text.rstrip().split("\n\n")
    assert len(table.splitlines()) == 2 + 2 * 2 * 3
    assert summary.startswith("en and fr: 25 of 25 parallel sentences are pa")
    for one in results["records"]:
        if one["pooling"] == "last":
            row = f"| en to fr | {one['voice']} | {one['layer']} | one "
            assert f"{row}| {one['n']} | {one['cosine']:.3f} | " in table
            found = one["retrieval_matched"]
            assert f" | {found['chance']:.2f} | {found['mexa']:.2f} | " in table


def test_every_pair_of_languages_is_named(tmp_path, evaluate, caplog):
    corpus = write_corpus(tmp_path, languages=("de", "en", "fr"))
    caplog.set_level("INFO")
    languages = ["en", "fr", "de"]
    results = evaluate(tmp_path / "out", corpus=corpus, languages=languages)
    pairs = ["en and fr", "en and de", "fr and de"]
    for pair in pairs:
        assert f"{pair}: 25 of 25 parallel sentences are paired" in caplog.text
    lines = alignment_table({"one": results}, "last").splitlines()
    found = [line.split(" | ")[0].strip("| ") for line in lines[2:-4]]
    assert found == [
        name for name in ("en to fr", "en to de", "fr to de") for _ in range(6)
    ]
    assert [line.split(":")[0] for line in lines[-3:]] == pairs
    table = alignment_table({"one": results}, "last", ["fr", "de"])
    assert "en to" not in table
    assert "| fr to de |" in table


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("cosine", "0.5"),
        ("n", -1),
        ("retrieval_matched", []),
    ],
)
def test_results_of_another_shape_are_named(tmp_path, finished, place, value):
    results = json.loads((finished[0] / NAME).read_text())
    results["records"][2][place] = value
    (tmp_path / NAME).write_text(json.dumps(results))
    message = rf"alignment\.json: records\[2\]\.{place} is .*; expected"
    with pytest.raises(ValueError, match=message):
        read_alignment(tmp_path)


def test_a_name_is_no_formula_and_no_row(tmp_path, finished):
    results = finished[1]
    runs = {"$\\frac": results, "a|b\n| c <i>": results}
    draw_alignment(runs, tmp_path / "a.png")
    lines = alignment_table(runs, "last").splitlines()
    assert r"a\|b \| c &lt;i>" in lines[3]
    assert len(lines) == 2 + 12 + 2


def test_bad_runs_are_refused(tmp_path, finished, tool):
    folder = finished[0]
    (tmp_path / NAME).write_text('{"format": "other"}')
    for wrong, message in (
        ([f"one={folder}", f"one={folder}"], "two runs have one name"),
        ([str(folder)], "expected NAME=DIR"),
        ([f"one={tmp_path / 'none'}"], "run the alignment recipe to its end"),
        ([f"one={tmp_path}"], "is not what the alignment"),
        ([f"one={folder}", "--languages", "en", "de"], "no records of en and"),
    ):
        with pytest.raises((OSError, ValueError), match=message):
            tool([*wrong, "--output", str(tmp_path / "figure.png")])
    assert not (tmp_path / "figure.png").exists()


def test_runs_over_other_pairs_do_not_stand_together(tmp_path, finished):
    results = finished[1]
    other = {**results, "pairs": "0" * 64}
    with pytest.raises(ValueError, match="two cannot stand beside one: pairs"):
        draw_alignment({"one": results, "two": other}, tmp_path / "a.png")
    with pytest.raises(ValueError, match="no records of en and de; there are"):
        draw_alignment({"one": results}, tmp_path / "a.png", ["en", "de"])
    with pytest.raises(ValueError, match="no records of pooling 'max'"):
        alignment_table({"one": results}, "max")
    assert not (tmp_path / "a.png").exists()
