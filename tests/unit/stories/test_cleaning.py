"""Mending and refusing of stories."""

import pytest
from tinystories_example import as_mojibake

from speechbrain_slm.stories.cleaning import (
    LeftOut,
    clean_sentences,
    clean_story,
    clean_text,
)
from speechbrain_slm.stories.segmentation import LanguageRules

EN = LanguageRules("en", ["Latin"], 15, 60)
GREEK = LanguageRules("el", ["Greek"], 15, 60)


@pytest.mark.parametrize(
    "text",
    [
        "“Look!” he said. It’s a café — très joli.",
        "« Déjà vu ? » demanda l’élève à Noël.",
    ],
)
def test_mojibake_is_mended(text):
    assert clean_text(as_mojibake(text), EN) == (text, ["mojibake mended"])
    # What is right stays as it is, without a note.
    assert clean_text(text, EN) == (text, [])


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("â€œHi,â€ he said.", "“Hi,” he said."),
        ("â€œHi!â€", "“Hi!”"),
        ("â€œHi.â€\nâ€œBye.â€", "“Hi.”\n“Bye.”"),
        ('Lateâ€"too late. Itâ€™s so.', "Late—too late. It’s so."),
    ],
)
def test_mojibake_that_lost_a_byte_is_mended(text, mended):
    assert clean_text(text, EN)[0] == mended


@pytest.mark.parametrize(
    ("clean", "text", "reason"),
    [
        (clean, text, reason)
        for clean, reason, *texts in (
            (clean_text, "characters lost in decoding", "The caf\ufffd ran."),
            (clean_text, "mojibake that cannot be mended", "Wasâ€\x82Â¤Ã a."),
            (clean_text, "foreign character", "He said 你好 to her."),
            (clean_text, "foreign character", "She smiled 😀 at him."),
            (clean_text, "foreign character", "She was \ue000here."),
            (clean_text, "markup", "See <b>this</b>.", "It was {name}'s."),
            (clean_text, "markup", "**Title** A cat."),
            (clean_story, "empty", "", " \n\u200b\n ", "... !"),
            (clean_story, "begins in the middle", "u don't fear. Tim ran."),
            (clean_story, "begins in the middle", '"and so she left. Tim ran.'),
            (clean_story, "ends in the middle", "Tim ran. Then he saw a"),
            (clean_story, "ends in the middle", 'Tim ran. "Then he,"'),
        )
        for text in texts
    ],
)
def test_left_out(clean, text, reason):
    with pytest.raises(LeftOut) as error:
        clean(text, EN)
    assert error.value.reason == reason


def test_scripts_are_those_of_the_language():
    assert clean_text("Καλημέρα, κόσμε!", GREEK)[0] == "Καλημέρα, κόσμε!"
    with pytest.raises(LeftOut, match="foreign"):
        clean_text("Καλημέρα, monde é!", GREEK)


def test_spaces_controls_and_forms():
    text = (
        "Il\u00a0dit\u202f: e\u0301te\u0301\u200b…\x00\x07 O\u00adui.\r\nNon."
    )
    cleaned, notes = clean_text(text, EN)
    assert cleaned == "Il dit : été... Oui.\nNon."
    assert notes == ["control characters removed"]


def test_paragraphs_and_wrapped_lines():
    text = '\n\n Tim ran\nto the big\ntree.\nMom said,\n"Stop!"\n\n \nHe did.\n'
    assert clean_story(text, EN)[0] == (
        'Tim ran to the big tree.\n\nMom said, "Stop!"\n\nHe did.'
    )
    for text in ('Tim ran. "I won!"', "Tim ran. (He won.)", "42 cats ran…"):
        assert clean_story(text, EN)[1] == []


@pytest.mark.parametrize(
    ("sentences", "number", "reason"),
    [
        (["Hi.", "  "], 1, "empty"),
        (["Hi.", "Bye.", None], 2, "no text"),
        (["x" * 61, "Hi."], 0, "sentence too long"),
        (["Hi.", "你好。"], 1, "foreign character"),
    ],
)
def test_sentences_left_out(sentences, number, reason):
    with pytest.raises(LeftOut) as error:
        clean_sentences(sentences, EN)
    assert error.value.sentence == number
    assert error.value.reason == reason


def test_sentences_are_mended():
    cleaned = clean_sentences(["Itâ€™s\n me.", "and  you", "Itâ€™s"], EN)
    assert cleaned == (["It’s me.", "and you", "It’s"], ["mojibake mended"])
