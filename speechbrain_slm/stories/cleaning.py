"""Cleaning of stories: what is mended, what is left out, and the ledger.

Published text has damage: UTF-8 that was read as Windows-1252 (mojibake), empty
stories, stories that stop in the middle, code, other scripts, and the same
story twice. Each is mended with a note, or left out with a reason.
"""

import re
import unicodedata
from functools import lru_cache

import ftfy
import regex

from speechbrain_slm.stories.segmentation import OPENING, is_closed

# What remains of a closing quote whose third byte was lost, and of a dash
# whose third byte was made a straight quote.
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
    """A story that is not taken.

    Arguments
    ---------
    reason : The same words for all of a kind, so that they can be counted.
    detail : What it was in this one.
    sentence : Which sentence, from 0.
    """

    def __init__(
        self,
        reason: str,
        detail: str = "",
        sentence: int | None = None,
        language: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail
        self.sentence, self.language = sentence, language

    def entry(self):
        """Return the ledger's fields; those that say nothing are absent."""
        fields = {"sentence": self.sentence, "language": self.language}
        known = {k: v for k, v in fields.items() if v is not None}
        known |= {"action": "dropped", "reason": self.reason}
        return known | ({"detail": self.detail} if self.detail else {})


@lru_cache
def _foreign(scripts):
    """Compile what finds a character that no text in these scripts has."""
    own = "".join(rf"\p{{Script={name}}}" for name in scripts)
    return regex.compile(rf"[^{own}\p{{M}}\p{{N}}\p{{P}}\p{{Z}}\p{{Sc}}+°\n\t]")


def clean_text(text: str, rules, markup: str = MARKUP) -> tuple[str, list[str]]:
    """Mend a text, or refuse it.

    Arguments
    ---------
    text : A story or a sentence.
    rules : LanguageRules
        Those of its language.
    markup : Characters with which it is left out.

    Returns
    -------
    str
        The text in Unicode's form NFC, with plain spaces and line ends.
    list of str
        What was mended.

    Raises
    ------
    LeftOut
        If it holds mojibake that cannot be mended, characters that were lost,
        another script, or markup.

    Example
    -------
    >>> from speechbrain_slm.stories.segmentation import LanguageRules
    >>> rules = LanguageRules("en", ["Latin"], 15, 200)
    >>> clean_text("Itâ€™s a dog.", rules)
    ('It’s a dog.', ['mojibake mended'])
    """
    notes = []
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = _mend_mojibake(text, notes)
        text = unicodedata.normalize("NFC", text.translate(_SPACES))
    if _CONTROL.search(text):
        text = _CONTROL.sub("", text)
        notes.append("control characters removed")
    if not text.isascii() and (
        found := _foreign(tuple(rules.scripts)).search(text)
    ):
        character = found[0]
        raise LeftOut("foreign character", f"{character} {ord(character):04X}")
    for character in markup:
        if character in text:
            raise LeftOut("markup", character)
    return text, notes


def _mend_mojibake(text, notes):
    if ftfy.is_bad(text):
        mended = _LOST_DASH.sub("—", _LOST_QUOTE.sub("”", text))
        mended = ftfy.fix_encoding(mended)
        if ftfy.is_bad(mended):
            raise LeftOut("mojibake that cannot be mended")
        if mended != text:
            notes.append("mojibake mended")
        text = mended
    if "\ufffd" in text:
        raise LeftOut("characters lost in decoding", "U+FFFD")
    return text


def clean_story(
    text: str, rules, markup: str = MARKUP
) -> tuple[str, list[str]]:
    r"""Mend a story as plain text, or refuse it.

    Arguments
    ---------
    rules : LanguageRules
        Those of its language.
    markup : Characters with which it is left out.

    Returns
    -------
    str
        The story with single spaces; an empty line ends a paragraph.
    list of str
        What was mended.

    Raises
    ------
    LeftOut
        If it is empty, begins or ends in the middle of a sentence, or for
        what :func:`clean_text` refuses.

    Example
    -------
    >>> from speechbrain_slm.stories.segmentation import LanguageRules
    >>> rules = LanguageRules("en", ["Latin"], 15, 200)
    >>> clean_story("Tim ran\nhome. \nMom  smiled.", rules)[0]
    'Tim ran home.\n\nMom smiled.'
    """
    text, notes = clean_text(text, rules, markup)
    text = "\n\n".join(_paragraphs(text))
    if not any(map(str.isalpha, text)):
        raise LeftOut("empty")
    if text.lstrip(OPENING + " .")[:1].islower():
        raise LeftOut("begins in the middle", text[:20])
    if not is_closed(text):
        raise LeftOut("ends in the middle", text[-20:])
    return text, notes


def _paragraphs(text):
    """Take lines together that were wrapped in the middle of a sentence."""
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
    sentences: list[str], rules, markup: str = MARKUP
) -> tuple[list[str], list[str]]:
    """Mend a story that is in sentences already, or refuse it.

    Arguments
    ---------
    sentences : Its sentences in one language; they are neither joined nor cut.
    rules : LanguageRules
        Those of the language.
    markup : Characters with which it is left out.

    Returns
    -------
    list of str
        As many sentences.
    list of str
        What was mended.

    Raises
    ------
    LeftOut
        With the number of the sentence, if one is empty, no text or longer
        than the rules allow, or for what :func:`clean_text` refuses.
    """
    cleaned, all_notes = [], []
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
        all_notes += notes
    return cleaned, sorted(set(all_notes))
