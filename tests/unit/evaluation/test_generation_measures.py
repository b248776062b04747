"""Measures of what a model says: repetition, language, story, perplexity."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import TOKENIZER, write_store
from tiny_models import save_text_lm
from transformers import AutoModelForCausalLM

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.evaluation.generation.known_stories import (
    StoryJudge,
    continues,
)
from speechbrain_slm.evaluation.generation.measures import auto_bleu, distinct_n
from speechbrain_slm.evaluation.generation.nearest import NearestSentence
from speechbrain_slm.evaluation.generation.results import summarise
from speechbrain_slm.evaluation.generation.text_lm import TextLM
from speechbrain_slm.evaluation.generation.unit_language import UnitLanguage
from speechbrain_slm.stories.grammar.grammar import StoryGrammar, topic_endings
from speechbrain_slm.utils.store import StoreWriter
from speechbrain_slm.utils.tables import MANIFEST, write_table


def test_auto_bleu_is_its_definition():
    sequence = np.random.default_rng(0).integers(0, 6, 40).tolist()
    shares = []
    for k in (1, 2, 3):
        grams = [tuple(sequence[i : i + k]) for i in range(40 - k + 1)]
        again = [grams[:i] + grams[i + 1 :] for i in range(len(grams))]
        pairs = zip(grams, again, strict=True)
        shares.append(np.mean([gram in others for gram, others in pairs]))
    for n in (1, 2, 3):
        expected = np.prod(shares[:n]) ** (1 / n)
        assert auto_bleu(sequence, n) == pytest.approx(expected)
    assert auto_bleu([1, 1, 1]) == 1
    assert auto_bleu([1, 2, 3]) == 0
    assert auto_bleu([1]) is None
    assert distinct_n([[1]], 2) is None


def levenshtein(one, other):
    row = list(range(len(other) + 1))
    for i, symbol in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, target in enumerate(other, 1):
            change = last + (symbol != target)
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, change)
    return row[-1]


def test_the_nearest_sentence_is_that_of_a_search():
    rng = np.random.default_rng(1)
    known = [rng.integers(0, 4, rng.integers(1, 9)) for _ in range(30)]
    nearest = NearestSentence(known)
    for _ in range(15):
        found = rng.integers(0, 4, rng.integers(1, 25))
        match = nearest(found)
        begins = [
            [levenshtein(one, found[:end]) for end in range(len(found) + 1)]
            for one in known
        ]
        shares = [min(b) / len(s) for b, s in zip(begins, known, strict=True)]
        assert match.distance == min(shares)
        assert match.number == shares.index(min(shares))
        assert match.end == begins[match.number].index(
            min(begins[match.number])
        )
    assert nearest([]) is None
    with pytest.raises(ValueError, match="some of them empty"):
        NearestSentence([[1], []])


def test_which_story_is_continued():
    stories = StoryGrammar.load(plots=8).generate(60, "test", seed=3)
    off_topic = topic_endings(stories, seed=0)
    for story, other in zip(stories, off_topic, strict=True):
        for own, asked in itertools.product(("en", "fr"), repeat=2):
            *prompt, right = story.sentences[own]
            prompt[-1] = story.sentences[asked][-2]
            right = story.sentences[asked][-1]
            found = continues(prompt, right)
            assert (found.plot, found.course, found.continues) == (1, 1, 1)
            assert found.names in (True, None)
            wrong = continues(prompt, story.wrong_ending[asked])
            assert (wrong.plot, wrong.course, wrong.continues) == (1, 0, 0)
            topic = stories[other].sentences[asked][-1]
            assert not continues(prompt, topic).continues
            # What has been told does not continue it.
            assert not continues(prompt, story.sentences[asked][0]).course
    assert continues(["Nobody knows this."], right) is None


def spell(text):
    """Say a sentence: a unit a letter."""
    return [ord(letter) % 97 for letter in text]


def test_what_is_said_is_found_and_judged(tmp_path):
    stories = StoryGrammar.load(plots=3).generate(12, "train", seed=1)

    def spoken(story):
        # Of the first story the audio of the first sentence was rejected.
        begin = int(story is stories[0])
        return {name: t[begin:] for name, t in story.sentences.items()}

    told = {"identity": "letters", "vocabulary_size": 97}
    writer = StoreWriter(tmp_path / "store", TOKENIZER | told, "m", 1)
    writer.write(
        0,
        [
            (story.story_id, language, "alto", list(map(spell, texts)))
            for story in stories
            for language, texts in spoken(story).items()
        ],
    )
    writer.finish()
    rows = [
        (story.story_id, n, language, "alto", "a.wav", 9, 9, "0" * 64, text)
        for story in stories
        for language, texts in story.sentences.items()
        for n, text in enumerate(texts)
    ]
    names = [*MANIFEST.names, "text"]
    table = [dict(zip(names, row, strict=True)) for row in rows]
    manifest = tmp_path / "manifest.parquet"
    write_table(manifest, pa.Table.from_pylist(table))
    judge = StoryJudge(UnitStore(tmp_path / "store"), manifest)
    story, other = next(
        (a, b)
        for a, b in itertools.combinations(stories[1:], 2)
        if a.plot != b.plot
    )
    *prompt, right = story.sentences["en"]
    texts = prompt, other.sentences["fr"][:-1]
    # With a slip, and something behind it.
    said = [*spell(right[:3]), 96, *spell(right[3:] + "Abc")]
    expected = {"nearest": right, "nearest_distance": 1 / len(right)}
    found = judge.judge(np.array(said), *texts)
    assert found.items() >= expected.items()
    assert (found["same_course"], found["continues"]) == (True, True)
    assert found["other_course"] is False
    # And as the recogniser may write it.
    heard = judge.judge(right.upper().replace(".", " !"), *texts)
    assert (heard["nearest"], heard["nearest_distance"]) == (right, 0)
    # Who says nothing continues nothing.
    silent = judge.judge(np.array([], int), *texts)
    assert (silent["nearest"], silent["continues"]) == (None, False)
    # A sentence that has moved up is not taken for the one before it.
    for text in stories[0].sentences["en"]:
        found = judge.judge(np.array(spell(text)), *texts)
        assert found["nearest"] == text or found["nearest_distance"] > 0
    table = [{**row, "text": "Something else."} for row in table]
    write_table(manifest, pa.Table.from_pylist(table))
    with pytest.raises(ValueError, match="none of its texts is a sentence"):
        StoryJudge(UnitStore(tmp_path / "store"), manifest)


def test_languages_of_units(tmp_path):
    # Both languages have the same units; only their order tells.
    store = UnitStore(write_store(tmp_path / "random", stories=60))
    assert 0.3 < UnitLanguage(store).accuracy < 0.7
    again = UnitLanguage(store, most=50)
    assert again.num_held_out == 20
    assert again([np.array([], int)]) == [("", 0.0)]
    with pytest.raises(ValueError, match="needs several, of two languages"):
        UnitLanguage(UnitStore(write_store(tmp_path / "one", ("en",))))


def rows(story, direction, *languages):
    return [
        {
            "story_id": story,
            "direction": direction,
            "units": [1, 2, 1],
            "in_language": language == "fr",
            "ended": True,
            "nll": 1.0,
        }
        for language in languages
    ]


def test_stories_count_once():
    told = [
        *rows("a", "en>fr", "fr", "en"),
        *rows("b", "en>fr", "fr"),
        *rows("a", "fr", "en"),
    ]
    records = summarise(told, seed=0)
    found = {(one["direction"], one["measure"]): one for one in records}
    share = found["en>fr", "in_language"]
    assert (share["n"], share["value"]) == (2, 75)
    assert (share["low"], share["high"]) == (50, 100)
    assert found["cross_lingual", "in_language"] == {
        **share,
        "direction": "cross_lingual",
    }
    assert found["fr", "gen_ppl"]["value"] == pytest.approx(np.e)
    # Of 3 units one is there again; of 2 pairs none.
    assert found["fr", "auto_bleu_2"]["value"] == 0
    assert found["fr", "distinct_1"]["value"] == pytest.approx(200 / 3)
    # What was not measured has no record.
    assert ("fr", "same_plot") not in found


def test_perplexity_of_a_transcript(tmp_path):
    text_lm = save_text_lm(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(text_lm).eval()
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        expected = model(ids, labels=ids).loss.item()
    texts = ["the dog ran home", "dog", ""]
    losses = TextLM(str(text_lm)).negative_log_likelihoods(texts)
    assert losses == [pytest.approx(expected), None, None]
    with pytest.raises(FileNotFoundError, match="hf download nowhere/lm"):
        TextLM("nowhere/lm")
