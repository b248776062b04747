"""The natural cloze items: aligned, well written, and without a cue."""

import re
import unicodedata

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from speechbrain_slm.benchmarks.cloze_files import load_natural

ITEMS = load_natural()
LANGUAGES = ("en", "fr")
LETTERS = {
    "en": set("abcdefghijklmnopqrstuvwxyzé"),
    "fr": set("abcdefghijklmnopqrstuvwxyzàâçèéêëîïôûùœ"),
}
MARKS = {"en": " ,.:'-", "fr": " ,.:'-"}
NEGATIONS = {
    "en": "cannot neither never no nobody none nor not nothing without",
    "fr": "aucun aucune jamais n ne ni personne rien sans",
}
GOOD = {
    "en": """admired applause charmed clean clever congratulated danced
        delighted enjoyed finished friend happily hugged joy laughed medal
        perfect perfectly praised prize proud relieved safely smiling spotless
        thanked thanking warm won""",
    "fr": """admiré amie ami applaudi applaudissements charmé chaud dansé
        félicité fier fini gagné gaiement impeccables intacte joie médaille
        parfait parfaites parfaitement prix ravi remercié ri salué soulagée
        souriante terminé""",
}
BAD = {
    "en": """anger alone bare bitten black blame consoled crying defeat empty
        fainted hid hungry ignored limped lost missed owed rage rotten scolded
        screaming selling shrunken soaked stuck tears wrung""",
    "fr": """accuser bloqué boitant caché colère console consolé défaite
        devait évanouie faim furieuse grondé hurlé larmes noire nue perdu
        piqués pleurs pourri raté rétréci seul seule trempés vidé vide""",
}


def endings(side, language):
    return [getattr(item, side)[language] for item in ITEMS]


def words(text):
    return re.findall(r"[^\W\d_]+", text.lower())


def plain(text):
    """Take the accents off."""
    split = unicodedata.normalize("NFD", text)
    return "".join(mark for mark in split if not unicodedata.combining(mark))


def test_numbers_and_alignment():
    assert len(ITEMS) == 120
    assert len({item.item_id for item in ITEMS}) == 120
    for item in ITEMS:
        for part in (item.prompt, item.right, item.wrong):
            assert tuple(part) == LANGUAGES
        assert {len(item.prompt[key]) for key in LANGUAGES} == {4}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sentence_stands_twice(language):
    texts = [sentence for item in ITEMS for sentence in item.prompt[language]]
    texts += endings("right", language) + endings("wrong", language)
    assert len(texts) == len(set(texts)) == 720
    # Names vary: few people come up in two items.
    heroes = [
        max(re.findall(r"\b[A-Z]\w+", plain(item.right["en"])), key=len)
        for item in ITEMS
    ]
    assert len(set(heroes)) > 100


@pytest.mark.parametrize("language", LANGUAGES)
def test_spelling(language):
    allowed = LETTERS[language] | set(MARKS[language])
    for item in ITEMS:
        endings = item.right[language], item.wrong[language]
        for text in (*item.prompt[language], *endings):
            assert set(text.lower()) <= allowed, text
            assert text[0].isupper()
            assert text[-1] == "."
            assert text == " ".join(text.split())
            assert 4 <= len(text.split()) <= 17, text
            if language == "fr":
                # A space before a colon; elision before a vowel.
                assert not re.search(r"\w:", text), text
                assert not re.search(
                    r"\b(?:[dljnmst]e|la|que|si il|si ils) [aeiouéèêàâîôœ]",
                    text,
                    flags=re.IGNORECASE,
                ), text


def test_languages_name_the_same_people():
    """A name in English stands in French, too, but for its accents."""
    forms = {"Grandpa", "Grandfather", "Labrador", "Mrs", "Mr", "Papi"}
    places = {"Australia", "Greece", "Japan", "Mexico", "Quebec", "Spanish"}
    dates = "April August Christmas Easter Egyptian January June March May"
    dates += " Monday November October Saturday Sunday Friday Thursday Ls"
    leave = forms | places | set(dates.split())
    for item in ITEMS:
        french = plain(" ".join((*item.prompt["fr"], item.right["fr"])))
        english = (*item.prompt["en"], item.right["en"])
        for text in english:
            for name in re.findall(r"(?<!^)\b[A-Z][a-z]+", text):
                if name not in leave:
                    assert name in french, (item.item_id, name)


@pytest.mark.parametrize("language", LANGUAGES)
def test_length_is_no_cue(language):
    right = np.array([len(text) for text in endings("right", language)])
    wrong = np.array([len(text) for text in endings("wrong", language)])
    assert abs(right.mean() / wrong.mean() - 1) < 0.03
    assert 0.4 <= np.mean(right > wrong) <= 0.6
    assert np.abs(right - wrong).max() <= 13


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("lists", [NEGATIONS, GOOD, BAD], ids=["no", "+", "-"])
def test_negation_and_mood_are_no_cue(language, lists):
    listed = set(lists[language].split())
    right, wrong = (
        sum(bool(listed & set(words(text))) for text in endings(side, language))
        for side in ("right", "wrong")
    )
    # Two binomial standard deviations of their difference.
    assert abs(right - wrong) <= 2 * np.sqrt(right + wrong), (right, wrong)


def ending_only_accuracy(right, wrong, folds=10, repeats=5):
    """Choose between endings by their words alone, never seeing prompts."""
    texts = np.array([*right, *wrong])
    group = np.tile(np.arange(len(right)), 2)
    label = np.repeat([1, 0], len(right))
    credits = []
    for seed in range(repeats):
        order = np.random.default_rng(seed).permutation(len(right))
        for held in np.array_split(order, folds):
            train = ~np.isin(group, held)
            bag = CountVectorizer(token_pattern=r"\w+").fit(texts[train])
            model = LogisticRegression(max_iter=500)
            model.fit(bag.transform(texts[train]), label[train])
            score = model.decision_function(bag.transform(texts))
            credits += list(score[held] > score[held + len(right)])
    return np.mean(credits)


@pytest.mark.parametrize("language", LANGUAGES)
def test_endings_alone_do_not_tell(language):
    right = endings("right", language)
    wrong = endings("wrong", language)
    # The standard deviation of 120 coin tosses is 4.6 points.
    assert 0.41 <= ending_only_accuracy(right, wrong) <= 0.56


def test_an_ending_with_a_cue_is_told():
    right, wrong = endings("right", "en"), endings("wrong", "en")
    wrong = [f"Oh, {text}" if n % 2 else text for n, text in enumerate(wrong)]
    assert ending_only_accuracy(right, wrong) > 0.65
