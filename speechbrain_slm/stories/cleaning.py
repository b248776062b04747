"""Cleaning of stories: what is mended, and what is left out.

Published text has damage: UTF-8 that was read as Windows-1252 (mojibake), empty
stories, stories that stop in the middle, code, other scripts, and the same
story twice. Each is mended with a note, or left out with a reason.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

import ftfy
import regex

from speechbrain_slm.stories.segmentation import (
    OPENING,
    LanguageRules,
    is_closed,
)

# What remains of a closing quote whose third byte was lost, and of a dash
# whose third byte was made a straight quote; ftfy mends only what is whole.
_LOST_QUOTE = re.compile(r"â€(?=$|[\s\w,.!?;:)'-])(?![œ¦¢])")
_LOST_DASH = re.compile('â€"')
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SPACES = str.maketrans(
    {
        **dict.fromkeys("\u00a0\u202f\u2007\u2009\u200a\u3000", " "),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad"),
        **dict.fromkeys("\u2028\u2029\u0085", "\n"),
        "…": "...",
    }
)
# Code, markup, templates and formatting: nobody can read them out.
MARKUP = "<>{}[]|\\=*_#@~^`"


class LeftOut(Exception):
    """A story that is not taken; its attributes are fields of the ledger.

    The reason has the same words for all of a kind, so that they can be
    counted; the detail says what it was in this one.
    """

    sentence: int | None = None  # which one, from 0
    language: str | None = None

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@lru_cache
def _foreign(scripts: Iterable[str]) -> regex.Pattern:
    """Compile what finds a character that no text in these scripts has."""
    own = "".join(rf"\p{{Script={name}}}" for name in scripts)
    return regex.compile(rf"[^{own}\p{{M}}\p{{N}}\p{{P}}\p{{Z}}\p{{Sc}}+°\n\t]")


def clean_text(
    text: str, rules: LanguageRules, markup: str = MARKUP
) -> tuple[str, list[str]]:
    """Mend a text, a story or a sentence; return it and what was mended.

    It comes back in Unicode's form NFC, with plain spaces and line ends.
    `LeftOut` is raised for mojibake that cannot be mended, characters that were
    lost, another script, or a character of `markup`.

    Example
    -------
    >>> rules = LanguageRules("en", ["Latin"], 15, 200)
    >>> clean_text("Itâ€™s a dog.", rules)
    ('It’s a dog.', ['mojibake mended'])
    """
    notes = []
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Most stories are ASCII, and are spared what could not be found in them.
    if not text.isascii():
        mended = _mend_mojibake(text)
        if mended != text:
            notes.append("mojibake mended")
        text = unicodedata.normalize("NFC", mended.translate(_SPACES))
    text, found = _CONTROL.subn("", text)
    if found:
        notes.append("control characters removed")
    foreign = _foreign(tuple(rules.scripts))
    if not text.isascii() and (first := foreign.search(text)):
        raise LeftOut("foreign character", f"{first[0]} {ord(first[0]):04X}")
    for character in filter(text.__contains__, markup):
        raise LeftOut("markup", character)
    return text, notes


def _mend_mojibake(text: str) -> str:
    if ftfy.is_bad(text):
        text = _LOST_DASH.sub("—", _LOST_QUOTE.sub("”", text))
        text = ftfy.fix_encoding(text)
        if ftfy.is_bad(text):
            raise LeftOut("mojibake that cannot be mended")
    if "\ufffd" in text:
        raise LeftOut("characters lost in decoding", "U+FFFD")
    return text


def clean_story(
    text: str, rules: LanguageRules, markup: str = MARKUP
) -> tuple[str, list[str]]:
    r"""Mend a story as plain text; return it and what was mended.

    It has single spaces, and an empty line ends a paragraph. `LeftOut` where it
    is empty, begins or ends in the middle of a sentence, or for what
    :func:`clean_text` refuses.

    Example
    -------
    >>> rules = LanguageRules("en", ["Latin"], 15, 200)
    >>> clean_story("Tim ran\nhome. \nMom  smiled.", rules)[0]
    'Tim ran home.\n\nMom smiled.'
    """
    text, notes = clean_text(text, rules, markup)
    text = "\n\n".join(_paragraphs(text))
    if not any(map(str.isalpha, text)):
        raise LeftOut("empty")
    # A file that was cut anywhere has half a story at either end.
    if text.lstrip(OPENING + " .")[:1].islower():
        raise LeftOut("begins in the middle", text[:20])
    if not is_closed(text):
        raise LeftOut("ends in the middle", text[-20:])
    return text, notes


def _paragraphs(text: str) -> Iterator[str]:
    """Take lines together that were wrapped in the middle of a sentence."""
    # "Tim ran\nto the tree.\nMom saw." is two paragraphs, of two lines and one.
    paragraph = ""
    for line in text.split("\n"):
        line = " ".join(line.split())
        if paragraph and (not line or is_closed(paragraph)):
            yield paragraph
            paragraph = line
        elif line:
            paragraph = f"{paragraph} {line}" if paragraph else line
    if paragraph:
        yield paragraph


def clean_sentences(
    sentences: list[str], rules: LanguageRules, markup: str = MARKUP
) -> tuple[list[str], list[str]]:
    """Mend as many sentences, neither joined nor cut; and what was mended.

    `LeftOut`, with the number of the sentence, where one is empty, no text, too
    long, or what :func:`clean_text` refuses.
    """
    cleaned, all_notes = [], set()
    for number, sentence in enumerate(sentences):
        try:
            if not isinstance(sentence, str):
                raise LeftOut("no text", repr(sentence)[:40])
            sentence, notes = clean_text(sentence, rules, markup)
            sentence = " ".join(sentence.split())
            if not any(map(str.isalnum, sentence)):
                raise LeftOut("empty")
            if len(sentence) > rules.max_characters:
                raise LeftOut("sentence too long", f"{len(sentence)}")
        except LeftOut as error:
            error.sentence = number
            raise
        cleaned.append(sentence)
        all_notes.update(notes)
    return cleaned, sorted(all_notes)
