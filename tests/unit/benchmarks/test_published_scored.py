"""From the layouts, spoken by the offline TTS, to accuracies."""

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from cloze_example import export
from processes import load_script

from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze
from speechbrain_slm.speech.tts import Voice
from speechbrain_slm.speech.tts.nanotts import NanoTTS
from speechbrain_slm.units.assembly import assemble_stores
from speechbrain_slm.units.extraction import extract_utterances
from speechbrain_slm.units.fitting import fit_tokenizer
from speechbrain_slm.units.manifest import map_manifest
from speechbrain_slm.units.rejects import leave_out_rejects
from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans

RECIPE = Path(__file__).parents[3] / "recipes/ZeroSpeech"
SPEAKERS = {
    "anna": {"en": Voice("en-US"), "fr": Voice("fr-FR")},
    "bruno": {"en": Voice("en-GB"), "fr": Voice("fr-FR", pitch=0.75)},
}


mini_corpus = load_script(RECIPE / "mini_corpus.py")
prepare = load_script(RECIPE / "zerospeech_prepare.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zerospeech")
    assert mini_corpus.speak_mini_corpus(folder, NanoTTS(), SPEAKERS) == 72
    return folder


@pytest.fixture(scope="module")
def prepared(data):
    folders = {
        "sWUGGY": data / "lexical/dev",
        "sBLIMP": data / "syntactic/dev",
        "CSZS": data / "fr_en/test",
    }
    prepare.prepare_zerospeech(folders, data / "prepared")
    return data / "prepared"


@pytest.fixture(scope="module")
def results(prepared, tmp_path_factory):
    """Fit the mini tokenizer, extract, and score by a model of no training."""
    folder = tmp_path_factory.mktemp("results")
    table = map_manifest(
        prepared / "speech.parquet", ["en", "fr-en"], folder / "speech.arrow"
    )
    tokenizer = fit_tokenizer(
        MelKMeans(num_clusters=30),
        {"train": table},
        folder / "tokenizer",
        seconds=60,
        seed=0,
    )
    utterances = folder / "utterances"
    extract_utterances([table], tokenizer, utterances)
    kept = leave_out_rejects({"speech": table}, utterances, folder, 0)
    assemble_stores(kept, tokenizer, folder)
    model = export(folder / "model", identity=tokenizer.identity)
    return evaluate_cloze(
        model, folder / "speech", prepared / "items.parquet", folder / "scores"
    ), pq.read_table(folder / "scores/scores.parquet")


def test_voices_of_a_pair_count_once(results):
    results, scores = results
    records = {
        record["metric"]: record
        for record in results["records"]
        if record["scoring"] == "whole_mean"
    }
    counts = {one: (r["n"], r["direction"]) for one, r in records.items()}
    assert counts.pop("CSZS") == (6, "fr-en")
    assert counts == dict.fromkeys(("sWUGGY", "sBLIMP"), (10, "en"))
    assert len(scores) == 20 + 10 + 6
    words = scores.filter(pc.equal(scores["benchmark"], "sWUGGY"))
    voices = words.group_by("group").aggregate([("whole_mean", "mean")])
    mean = pc.mean(voices["whole_mean_mean"]).as_py()
    assert records["sWUGGY"]["accuracy"] == pytest.approx(100 * mean)


def test_subsets_are_scored_beside_all(results):
    subsets = {
        (record["metric"], record["subset"]): record["n"]
        for record in results[0]["subsets"]
        if record["scoring"] == "whole_mean"
    }
    assert subsets == {
        ("sWUGGY", "in-vocabulary"): 6,
        ("sWUGGY", "out-of-vocabulary"): 4,
        ("sBLIMP", "subject_verb_agreement"): 4,
        ("sBLIMP", "determiner_noun_agreement"): 3,
        ("sBLIMP", "anaphor_agreement"): 3,
    }


def test_a_prepared_folder_is_a_pure_function_of_the_audio(data, prepared):
    before = {path: path.read_bytes() for path in prepared.glob("*.parquet")}
    assert len(before) == 2
    again = mini_corpus.speak_mini_corpus(data, NanoTTS(), SPEAKERS)
    folders = {"sWUGGY": data / "lexical/dev", "CSZS": None, "sBLIMP": None}
    prepare.prepare_zerospeech(folders, data / "part")
    part = pq.read_table(data / "part/speech.parquet")
    whole = pq.read_table(prepared / "speech.parquet")
    assert again == 72
    assert part.equals(whole.slice(0, len(part)))
    assert {path: path.read_bytes() for path in before} == before


def test_what_is_asked_for_must_be_there(data, tmp_path):
    with pytest.raises(ValueError, match="found sSIMI; expected some of sWUG"):
        prepare.prepare_zerospeech({"sSIMI": data}, tmp_path)
    with pytest.raises(ValueError, match="none has a folder"):
        prepare.prepare_zerospeech({"sWUGGY": None}, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gold.csv does not exist"):
        prepare.prepare_zerospeech({"sWUGGY": data / "fr_en"}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_published_benchmark_is_not_overwritten(tmp_path):
    gold = tmp_path / "lexical/dev/gold.csv"
    gold.parent.mkdir(parents=True)
    gold.write_text("id,filename\n")
    with pytest.raises(FileExistsError, match="not that of the mini corpus"):
        mini_corpus.speak_mini_corpus(tmp_path, NanoTTS(), SPEAKERS)
    assert gold.read_text() == "id,filename\n"
    assert not list(tmp_path.rglob("*.wav"))
