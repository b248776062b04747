"""Sentences of English and French, by the rules in hparams/languages."""

import random
from pathlib import Path

import pytest

from speechbrain_slm.stories.cleaning import clean_story
from speechbrain_slm.stories.grammar.grammar import StoryGrammar
from speechbrain_slm.stories.segmentation import (
    LanguageRules,
    rules_of,
    segment,
)
from speechbrain_slm.utils.config import load_yaml

FOLDER = Path(__file__).parents[3] / "hparams" / "languages"


def load(language, **lengths):
    return load_yaml(FOLDER / f"{language}.yaml", lengths)["rules"]


# Sentence by sentence, so that nothing is joined.
RULES = {key: load(key, min_characters=1) for key in ("en", "fr")}
CASES = {
    "en": [
        ["Mr. and Mrs. Fox met Dr. Lee.", "They had tea at 3 p.m. on Monday."],
        ['"Hello! How are you?" he asked.', '"I am well."', "She smiled."],
        ["He had $3.50... and a pear.", "It cost 2.5 dollars."],
        ["It ran...", "Then it was gone.", "Oh no!", "Why?!", "Nobody knew."],
        ["“Can I play?” asked Lily.", "“Yes. Come in,” said Mom."],
        ['He said "No"! and ran.', "Then he came back."],
        ["‘Fine. I go,’ he said.", "Tom's dog ran.", "The kids' ball too."],
        ["She was sad (very).", "He said (quietly) no."],
        # Taken for abbreviations by the library.
        ["She looked at me.", "No.", "I am ill.", "“Ok.”", "It was no. 5."],
        ['"No. I go," said Ken.', '"You and I."', "“Oh no. Me. You.”"],
        # A quote that is never closed.
        [
            'Mom said, "I am sad. "No," he said.',
            "They went home.",
            '"Look! A dog!" cried Tim.',
            '"Bye."',
        ],
    ],
    "fr": [
        ["M. Dupont et Mme. Roux ont vu le Dr. Petit.", "Ils ont ri."],
        ["Il dit : « Bonjour ! Comment ça va ? »", "Puis il partit..."],
        ["« Non ! » cria-t-il.", "« Viens ici. »", "Elle rit."],
        ["— Tu viens ?", "— Oui ! répondit-il.", "— J'arrive..."],
        ["Il prit l'œuf, etc. et partit.", "Où est-il ?", "Ça alors !"],
        ["C'est sec.", "Sam a un vol.", "« Un ex. Oui. »", "M. Al."],
        ["Il attend...", "Écoute !", "À demain."],
        ["« Où vas-tu ? demanda Léa. — Au parc. »", "Il sortit."],
    ],
}


@pytest.mark.parametrize(
    ("language", "sentences"),
    [(key, case) for key, cases in CASES.items() for case in cases],
)
def test_sentences(language, sentences):
    assert segment(" ".join(sentences), RULES[language]) == sentences


def test_paragraphs_end_sentences():
    text = "Tim said:\n\n— oui\n\n“Open. Never closed\n\nThe end. So"
    assert segment(text, RULES["en"]) == [
        *("Tim said:", "— oui", "“Open.", "Never closed", "The end.", "So")
    ]


@pytest.mark.parametrize("language", ["en", "fr"])
def test_stories_of_the_grammar_come_apart_as_they_were_put_together(language):
    stories = StoryGrammar.load().generate(300, "train", 1, [language])
    for story in stories:
        told = list(story.sentences[language])
        assert segment(" ".join(told), RULES[language]) == told


LONG = "He " + "ran and " * 5 + "then Tim fell."


@pytest.mark.parametrize(
    ("lengths", "sentences"),
    [
        # Short ones are joined, though never beyond the maximum.
        ((15, 60), ["Oh! No! It is a very big dog. Run!"]),
        ((15, 60), ["Oh! Tim saw a big dog.", "He ran to the tree."]),
        ((15, 60), ["Oh!", LONG]),
        # Long ones are cut at a pause.
        ((10, 40), ["Tim went to the big park with a red", "ball, and then."]),
        ((10, 40), ["He went to the big old park;", "and his dog ran away."]),
        ((10, 40), ["She said, “I am here.", "We go to the park. I do.”"]),
    ],
)
def test_short_ones_are_joined_and_long_ones_cut(lengths, sentences):
    rules = LanguageRules("en", ["Latin"], *lengths)
    assert segment(" ".join(sentences), rules) == sentences


def random_text(rng):
    words = ["Tim", "mom", "ran", "Mr.", "l'eau", "…", "—", "3.5", "U.S."]
    marks = [".", "!", "?", ",", ";", '"', "”", "“", "«", "»", "'", ")", "("]
    parts = []
    for _ in range(rng.randrange(1, 80)):
        parts.append(rng.choice(words + marks))
        parts.append(rng.choice(["", " ", " ", " ", "\n\n"]))
    return "".join(parts).strip() or "Tim."


@pytest.mark.parametrize("language", ["en", "fr"])
def test_nothing_is_lost_and_lengths_are_kept(language):
    """Of any text: the same characters in order, no sentence too long."""
    rng = random.Random(7)
    rules = load(language, min_characters=10, max_characters=40)
    for _ in range(1500):
        text = random_text(rng)
        sentences = segment(text, rules)
        assert "".join("".join(sentences).split()) == "".join(text.split())
        for sentence in sentences:
            assert 0 < len(sentence) <= 40
            assert sentence == sentence.strip()


def test_text_without_spaces_is_cut():
    rules = LanguageRules("zh", ["Han"], 5, 20)
    text = "他去公园，" * 10 + "。" + "好" * 50
    sentences = segment(text, rules)
    assert "".join(sentences) == text
    assert max(map(len, sentences)) <= 20


def test_cleaned_and_cut_twice_is_the_same():
    text = '"Hi," said Tim. Mom\nsmiled... She was "happy". "Bye."\n\nThe end.'
    rules = load("en")
    once = segment(clean_story(text, rules)[0], rules)
    again = segment(clean_story(" ".join(once), rules)[0], rules)
    assert once == again


def test_no_rules():
    with pytest.raises(ValueError, match=r"no segmentation rules .* 'de'.*en"):
        rules_of("de", [RULES["en"], RULES["fr"]])
    assert rules_of("fr", [RULES["en"], RULES["fr"]]) is RULES["fr"]
    with pytest.raises(ValueError, match="expected twice min_char"):
        LanguageRules("en", ["Latin"], 30, 50)
