"""Continuations: which prompts, that they are the same, what is written."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cloze_example import BOUNDARY, export, write_items
from conftest import write_store
from tiny_models import randomize, save_text_lm
from transformers import AutoModelForCausalLM

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.generation.recognizer import Said
from speechbrain_slm.evaluation.generation.results import compare, read_results
from speechbrain_slm.evaluation.generation.text_lm import TextLM
from speechbrain_slm.inference import continuation, continuation_maker
from speechbrain_slm.inference.continuation import continue_prompts
from speechbrain_slm.inference.continuation_maker import ContinuationMaker
from speechbrain_slm.inference.encoding import Encoder
from speechbrain_slm.inference.speech_lm import SpeechLM
from speechbrain_slm.inference.story_prompts import story_prompts
from speechbrain_slm.models.generation import generate_units
from speechbrain_slm.utils.audio import read_audio
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.pieces import read_piece
from speechbrain_slm.utils.tables import MANIFEST, write_table

SAMPLING = {"max_units": 6, "top_k": 5, "stop_at_boundary": True}
TAGS = {"en": BOUNDARY + 1, "fr": BOUNDARY + 2}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return export(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(name="go_on")
def _go_on(model_folder, store_folder, tmp_path):
    def run(name="out", **options):
        told = {
            "prompts": {"num_prompts": 4},
            "sampling": SAMPLING,
            "prompts_per_shard": 5,
            **options,
        }
        folder = tmp_path / name
        folders = model_folder, store_folder, store_folder, folder
        continue_prompts(*folders, **told)
        return read_results(folder)

    return run


def whole(store, story, language):
    return np.concatenate(store.story(story, language)).tolist()


def test_prompts_of_every_direction(store_folder, tmp_path):
    store = UnitStore(store_folder)
    prompts = story_prompts(store, num_prompts=3)
    directions = ["en", "fr", "en>fr", "fr>en"]
    assert [one.direction for one in prompts[::3]] == directions
    names = [one.story_id for one in prompts[:3]]
    assert [one.story_id for one in prompts] == names * 4
    crossed = prompts[6]
    told = {one: store.story(names[0], one) for one in ("en", "fr")}
    # The last sentence of a story is for the model to find.
    expected = [*told["en"][:-2], told["fr"][-2]]
    assert crossed.units.tolist() == np.concatenate(expected).tolist()
    assert crossed.languages == ["en"] * (len(expected) - 1) + ["fr"]
    assert (crossed.asked, crossed.steered_by) == ("fr", "last_sentence")
    assert (prompts[0].steered_by, prompts[0].tag) == ("free", None)
    # The prompts of items are taken whole.
    items = write_items(tmp_path / "items.parquet")
    prompts = story_prompts(store, items, directions=["fr"])
    assert [one.story_id for one in prompts] == [
        f"story-{number:03d}" for number in range(10)
    ]
    assert prompts[0].units.tolist() == whole(store, "story-000", "fr")


def test_only_the_last_sentences_are_heard(store_folder):
    store = UnitStore(store_folder)
    how = {"num_prompts": 3, "directions": ["en", "en>fr"]}
    for n in (1, 2):
        some = story_prompts(store, last_sentences=n, **how)
        for one, full in zip(some, story_prompts(store, **how), strict=True):
            assert one.languages == full.languages[-n:]
            told = [
                store.story(one.story_id, language)[place]
                for place, language in zip(
                    range(-n - 1, -1), one.languages, strict=True
                )
            ]
            assert one.units.tolist() == np.concatenate(told).tolist()


def test_tags_stand_where_a_language_begins(store_folder):
    store = UnitStore(store_folder)
    how = {"num_prompts": 1, "tags": TAGS, "directions": ["en>fr"]}
    (prompt,) = story_prompts(store, steering="tag", **how)
    assert prompt.symbols.tolist() == [TAGS["en"], *prompt.units]
    assert prompt.tag == TAGS["fr"]
    (prompt,) = story_prompts(store, steering="last_sentence", **how)
    last = len(store.story(prompt.story_id, "fr")[-2])
    units = prompt.units.tolist()
    expected = [TAGS["en"], *units[:-last], TAGS["fr"], *units[-last:]]
    assert prompt.symbols.tolist() == expected
    assert prompt.tag is None


def manifest_of(path, store):
    """Say that every unit takes 0.1 s."""
    rows = [
        (
            story,
            n,
            language,
            "alto",
            "x.wav",
            1600 * len(units),
            16000,
            "0" * 64,
        )
        for story in store.story_ids.to_pylist()
        for language in store.languages
        for n, units in enumerate(store.story(story, language))
    ]
    rows = [dict(zip(MANIFEST.names, row, strict=True)) for row in rows]
    write_table(path, pa.Table.from_pylist(rows, schema=MANIFEST))
    return path


def prefixes(lengths):
    lengths = list(lengths)[:-1]
    return [lengths[:n] for n in range(len(lengths))]


def test_the_first_seconds_of_a_prompt(store_folder, tmp_path):
    store = UnitStore(store_folder)
    manifest = manifest_of(tmp_path / "manifest.parquet", store)
    how = {"manifest": manifest, "steering": "free", "num_prompts": 4}
    for prompt in story_prompts(store, prompt_seconds=0.7, **how):
        units = whole(store, prompt.story_id, prompt.asked)
        assert prompt.units.tolist() == units[:7]
        # A sentence that is not begun is not told.
        lengths = map(len, store.story(prompt.story_id, prompt.asked))
        begun = sum(sum(all_before) < 7 for all_before in prefixes(lengths))
        assert len(prompt.texts) == len(prompt.languages) == begun
    # Of a codec, whole frames.
    for prompt in story_prompts(store, prompt_seconds=0.7, codebooks=3, **how):
        units = whole(store, prompt.story_id, prompt.asked)
        assert prompt.units.tolist() == units[:6]
    long = story_prompts(store, prompt_seconds=1e4, **how)
    longest = story_prompts(store, **how)
    for one, other in zip(long, longest, strict=True):
        assert one.units.tolist() == other.units.tolist()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"steering": "tag"}, "has no language tags"),
        ({"prompt_seconds": 3}, "cuts prompts at their end"),
        ({"steering": "free", "prompt_seconds": 3}, "expected a manifest"),
        ({"directions": ["en>de"]}, "directions names en>de"),
        ({"steering": "free", "directions": ["en>fr"]}, "there are en, fr"),
    ],
)
def test_prompts_that_cannot_be(store_folder, options, match):
    with pytest.raises(ValueError, match=match):
        story_prompts(UnitStore(store_folder), **options)


def test_the_same_seed_gives_the_same(go_on, model_folder, tmp_path):
    info, rows = go_on()
    assert len(rows) == 16
    again = go_on("again", prompts_per_shard=3)[1]
    assert again == rows
    assert go_on("other", seed=5)[1] != rows
    # Alone, by the seed that is written down.
    row = next(row for row in rows if row["direction"] == "en>fr")
    slm = SpeechLM.from_pretrained(model_folder, "cpu")
    prompt = np.array(row["prompt_units"])
    (units,) = generate_units(
        *(slm.model, [prompt]),
        seeds=[row["seed"]],
        boundary=BOUNDARY,
        temperature=0.8,
        **SAMPLING,
    )
    assert units.tolist() == row["units"]
    measures = {one["measure"] for one in info["records"]}
    assert {"in_language", "units", "distinct_2"} <= measures
    assert not measures & {"same_plot", "in_language_heard", "gen_ppl"}
    # A second sample of each is another one.
    two = go_on("two", samples=2)[1]
    assert [row for row in two if row["sample"] == 0] == rows
    # And what is there is not made again.
    path = tmp_path / "out" / "results.json"
    before = path.stat().st_mtime_ns
    go_on()
    assert path.stat().st_mtime_ns == before
    # But where it is damaged.
    (tmp_path / "out" / "continuations.parquet").write_bytes(b"")
    assert go_on()[1] == rows


def test_units_of_which_nothing_tells_the_language(
    model_folder, store_folder, voice, tmp_path, caplog
):
    # A corpus of one language, say.
    taught = write_store(tmp_path / "one", ("en",))
    how = {"prompts": {"num_prompts": 3}, "sampling": SAMPLING}
    folders = model_folder, store_folder, taught, tmp_path / "out"
    continue_prompts(*folders, **how)
    info, rows = read_results(tmp_path / "out")
    assert (
        "needs several, of two languages" in info["unit_classifier"]["absent"]
    )
    assert "No language of units is measured" in caplog.text
    names = ("unit_language", "unit_probability", "language", "in_language")
    assert all(row[name] is None for row in rows for name in names)
    assert all(row["audio"] or not row["units"] for row in rows)
    measures = {one["measure"] for one in info["records"]}
    assert {"units", "distinct_2", "seconds"} <= measures
    assert not any("in_language" in one for one in measures)


def test_a_stopped_run_goes_on(go_on, monkeypatch, tmp_path):
    expected = go_on("whole")
    made, rows_of = [], ContinuationMaker.rows

    def rows(maker, work):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(work)
        return rows_of(maker, work)

    monkeypatch.setattr(ContinuationMaker, "rows", rows)
    with pytest.raises(KeyboardInterrupt):
        go_on()
    parts = tmp_path / "out" / "parts" / "continuation"
    assert len(list(parts.glob("part-*.parquet"))) == 2
    kept = [
        row
        for path in sorted(parts.glob("part-*"))
        for row in (read_piece(path).table.to_pylist())
    ]
    made.clear()
    monkeypatch.setattr(ContinuationMaker, "rows", rows_of)
    info, found = go_on()
    assert (info, found) == expected
    assert [row["units"] for row in found[:10]] == [r["units"] for r in kept]
    assert not parts.exists() or not list(parts.glob("part-*"))


class Ear:
    """A recogniser that hears how many units there were."""

    identity = "ear"

    def __init__(self, source):
        assert source == "ear"

    def transcribe(self, waveforms, rate, language=None):
        assert rate == 8000
        return [Said("dog " * (len(w) // 800), "fr", 0.9) for w in waveforms]


@pytest.fixture(name="voice")
def _voice(monkeypatch):
    """A vocoder that says each unit for 0.1 s."""

    def decode(slm, units, speaker, language):
        known = language in ("en", "fr", "", None)
        assert (speaker, known) == ("alto", True)
        return [torch.full((800 * len(one),), 0.5) for one in units]

    told = {"sample_rate": 8000, "speakers": ["alto"], "identity": "voice"}
    vocoder = SimpleNamespace(**told)
    monkeypatch.setattr(SpeechLM, "vocoder", vocoder)
    load = SpeechLM.from_pretrained

    def from_pretrained(*options, **how):
        slm = load(*options, **how)
        slm.hparams.vocoder = vocoder
        return slm

    monkeypatch.setattr(SpeechLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(SpeechLM, "decode_batch", decode)
    monkeypatch.setattr(continuation, "Recognizer", Ear)


def test_what_is_spoken_is_written_down(go_on, voice, tmp_path):
    info, rows = go_on(recognizer="ear", num_spoken=3)
    spoken = [row for row in rows if row["transcript"] is not None]
    assert len(spoken) == 12
    for row in spoken:
        count = len(row["units"])
        assert row["transcript"].split() == ["dog"] * count
        assert row["language"] == row["heard_language"] == "fr"
        assert row["in_language_heard"] == (row["asked"] == "fr")
        assert row["seconds"] == pytest.approx(0.1 * count)
        assert (row["audio"] is None) == (count == 0)
        if count:
            sound = read_audio(tmp_path / "out" / row["audio"])
            assert sound.num_samples == 800 * count
    found = {(r["direction"], r["measure"]): r for r in info["records"]}
    assert found["fr>en", "in_language_heard"]["value"] == 0
    assert found["en>fr", "in_language_heard"]["n"] == 3
    # What another request has left is taken away.
    before = {path.name for path in (tmp_path / "out/audio").iterdir()}
    go_on(recognizer="ear", num_spoken=1)
    after = {path.name for path in (tmp_path / "out/audio").iterdir()}
    assert after < before


def test_another_request_leaves_the_audio_of_the_first(
    go_on, voice, monkeypatch, tmp_path
):
    told = go_on(recognizer="ear")
    sounds = {
        path.name: path.read_bytes()
        for path in (tmp_path / "out/audio").iterdir()
    }
    with monkeypatch.context() as stopped:
        stopped.setattr(continuation, "_judge", None)
        with pytest.raises(TypeError):
            go_on(recognizer="ear", seed=5)
    # Which is found again, with its own sounds.
    assert go_on(recognizer="ear") == told
    for name, content in sounds.items():
        assert (tmp_path / "out/audio" / name).read_bytes() == content


def test_perplexity_of_what_was_written_down(go_on, voice, tmp_path):
    text_lm = str(save_text_lm(tmp_path / "lm"))
    how = {"recognizer": "ear", "num_spoken": 2, "text_lm": text_lm}
    info, rows = go_on(**how)
    for row in rows:
        if row["transcript"] is None:
            assert row["nll"] is None
            continue
        count = len(row["prompt_units"]) + len(row["units"])
        assert row["whole_transcript"].split() == ["dog"] * count
        (loss,) = TextLM(text_lm).negative_log_likelihoods(["dog " * count])
        assert row["nll"] == pytest.approx(loss)
    found = [r for r in info["records"] if r["measure"] == "gen_ppl"]
    assert len(found) == 5
    assert all(1 < r["low"] <= r["value"] <= r["high"] for r in found)
    # Twice the perplexity is 100 percent more.
    go_on("two", **how)
    path = tmp_path / "two/continuations.parquet"
    worse = [r | {"nll": r["nll"] and r["nll"] + np.log(2)} for r in rows]
    schema = pq.read_schema(path)
    pq.write_table(pa.Table.from_pylist(worse, schema=schema), path)
    told = path.with_name("results.json")
    facts = json.loads(told.read_text()) | {"continuations": sha256_file(path)}
    told.write_text(json.dumps(facts))
    for record in compare(told.parent, tmp_path / "out", seed=0):
        if record["measure"] == "gen_ppl":
            assert record["difference"] == pytest.approx(100)
    # Another one that stands in its place is another judge.
    model = AutoModelForCausalLM.from_pretrained(text_lm)
    randomize(model, seed=1).save_pretrained(text_lm)
    again = [r for r in go_on(**how)[0]["records"] if r["measure"] == "gen_ppl"]
    assert [r["value"] for r in again] != [r["value"] for r in found]
    with pytest.raises(ValueError, match="text_lm_identity: expected"):
        compare(told.parent, tmp_path / "out", seed=0)


@pytest.mark.parametrize(("codebooks", "said"), [(1, [1, 2, 3]), (2, [1, 2])])
def test_a_tag_asks_for_a_language(
    codebooks, said, store_folder, tmp_path, monkeypatch
):
    folder = export(tmp_path / "tagged", language_tags=TAGS)
    read, tags = [], set(TAGS.values())

    def draw(model, prompts, **how):
        read.append((prompts, how["allow_tags"]))
        return [np.array([1, TAGS["fr"], 2, 3])] * len(prompts)

    monkeypatch.setattr(continuation_maker, "generate_units", draw)
    monkeypatch.setattr(Encoder, "codebooks", codebooks)
    folders = folder, store_folder, store_folder, tmp_path / "out"
    told = {"num_prompts": 2, "steering": "tag"}
    continue_prompts(*folders, told, SAMPLING, prompts_per_shard=6)
    _, rows = read_results(tmp_path / "out")
    # Tags are no units, wherever the model says them; of a codec, a frame
    # that is not whole is not kept.
    assert all(row["units"] == said for row in rows)
    # And the prompt is told as it was read.
    heard = [prompt.tolist() for prompts, _ in read for prompt in prompts]
    assert sorted(r["prompt_symbols"] for r in rows) == sorted(heard)
    # Two stories in en, fr, en>fr; then fr>en.
    ends = [[p[-1] for p in prompts] for prompts, _ in read]
    assert [ends[0], ends[2]] == [[TAGS["fr"]] * 2, [TAGS["en"]] * 2]
    assert not tags & {*ends[1]}
    assert [allowed for _, allowed in read] == [False, True, False]
    assert all(p[0] in tags for prompts, _ in read for p in prompts)


def test_what_cannot_be_measured(go_on):
    with pytest.raises(ValueError, match="the model has no vocoder"):
        go_on(recognizer="ear")
    with pytest.raises(ValueError, match="nothing is written down"):
        go_on(text_lm="lm")


def test_two_runs(go_on, tmp_path):
    go_on("one")
    go_on("two", seed=1986)
    folders = tmp_path / "one", tmp_path / "two"
    for record in compare(*folders, seed=0):
        assert record["difference"] == record["low"] == record["high"] == 0
        assert record["p"] == 1
    go_on("three", seed=4)
    with pytest.raises(ValueError, match="seed: expected 4, found 1986"):
        compare(tmp_path / "one", tmp_path / "three", seed=0)
    for name, recognizer in (("one", "small"), ("two", "base")):
        path = tmp_path / name / "results.json"
        info = json.loads(path.read_text())
        path.write_text(json.dumps({**info, "recognizer": recognizer}))
    with pytest.raises(ValueError, match="expected 'base', found 'sm"):
        compare(*folders, seed=0)
    path = tmp_path / "two" / "continuations.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(ValueError, match="is not what results"):
        compare(*folders, seed=0)
    (tmp_path / "two" / "results.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(FileExistsError, match="is of no continuation"):
        go_on("two")
