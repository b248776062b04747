"""A file in the form of TinyStories, with the defects of the real one.

Its stories are the bundled grammar's, in paragraphs and with dialogue.
"""

import itertools

from speechbrain_slm.stories.grammar.grammar import StoryGrammar

SEPARATOR = "<|endoftext|>"


def as_mojibake(text, lose=""):
    """Read UTF-8 as Windows-1252; some bytes have no character there."""
    wrong = ""
    for byte in text.encode():
        try:
            wrong += bytes([byte]).decode("cp1252")
        except UnicodeDecodeError:
            wrong += chr(byte)
    return wrong.translate({ord(character): None for character in lose})


def story_text(story):
    """Write a story of the grammar as those of TinyStories are."""
    name = story.characters[0].capitalize()
    first, *middle, last = story.sentences["en"]
    lines = [
        " ".join(["Once upon a time, there was a day like any other.", first]),
        f'"What shall we do, Mr. Brown?" asked {name}. "Let\'s see... I know!"',
        " ".join(middle),
        last,
    ]
    return "\n\n".join(lines)


def curly(text):
    """Make straight quotes curly, as a word processor does."""
    parts = text.replace("'", "’").split('"')
    marks = ["“”"[number % 2] for number in range(len(parts) - 1)]
    return "".join(map("".join, zip(parts, [*marks, ""], strict=True)))


# Defect -> how to make it of a text, and what cleaning says of it.
DEFECTS = {
    "mojibake": (lambda text: as_mojibake(curly(text)), "mojibake mended"),
    "lost byte": (
        lambda text: as_mojibake(curly(text), lose="\x9d"),
        "mojibake mended",
    ),
    "control": (lambda text: text + "\x07", "control characters removed"),
    "hopeless": (
        lambda text: text.replace("'", "\ufffd"),
        "characters lost in decoding",
    ),
    "empty": (lambda text: "\n", "empty"),
    "no end": (lambda text: text[:-9], "ends in the middle"),
    "no beginning": (lambda text: "u " + text[30:], "begins in the middle"),
    "one sentence": (
        lambda text: text.split(",")[0] + ".",
        "too few sentences",
    ),
    "Chinese": (lambda text: "从前, " + text, "foreign character"),
    "markup": (lambda text: text + " *The end.*", "markup"),
}
DUPLICATES = {
    "duplicate": (str, "duplicate"),
    "other spelling": (lambda text: curly(text).upper(), "duplicate"),
}


def write_tinystories(path, num_stories=200, every=8, seed=0):
    """Write stories, each ``every``-th of them with a defect, in turn.

    Returns number of a story in the file, from 1 -> what the ledger says.
    """
    stories = StoryGrammar.load().generate(num_stories, "train", seed, ["en"])
    texts = list(map(story_text, stories))
    kinds, expected = DEFECTS | DUPLICATES, {}
    turns = itertools.cycle(kinds)
    for number in range(every - 1, num_stories, every):
        kind = next(turns)
        # A duplicate is one of the story before, which has no defect.
        source = number - (kind in DUPLICATES)
        spoil, expected[number + 1] = kinds[kind]
        texts[number] = spoil(texts[source])
    content = "".join(f"{text}\n{SEPARATOR}\n" for text in texts)
    path.write_text(content, encoding="utf-8")
    return expected
