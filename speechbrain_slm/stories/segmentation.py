"""Plain text to sentences, with the rules of its language.

The library ``sentencex`` (MIT, about 300 languages) cuts; a language's rules
mend what it does not know. Too short a sentence is joined to the next one, too
long a one is cut where a speaker would pause.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import regex
import sentencex

OPENING = "\"'“‘«‹„([—–-"
CLOSING = "\"'”’»›“)] "
TERMINATORS = ".!?…。！？؟۔।"
# A straight quote that opens: nothing or a space before it, text behind.
_OPENING_QUOTE = re.compile(r'(?:^|(?<=[\s(\[—–-]))"(?=\S)')
# Where a sentence is cut, the best first: after a sentence (inside a quote),
# a clause, a part of one, a word.
_PAUSES = (
    rf"[{re.escape(TERMINATORS)}][{re.escape(CLOSING.strip())}]*\s+",
    r"[;:—–]\s+|\s+(?=[—–]\s)",
    r",\s+|[，、；：]\s*",
    r"\s+",
)


@dataclass(frozen=True)
class LanguageRules:
    """What cleaning and segmentation need to know of a language."""

    language: str  # its code, as sentencex knows it (ISO 639)
    scripts: Sequence[str]  # Unicode's names of those in which it is written
    min_characters: int  # a shorter sentence is joined to its neighbour
    max_characters: int  # a longer one is cut
    # What no sentence ends with, such as "Mr.", and the library does not know.
    abbreviations: Sequence[str] = ()
    # What the library takes for abbreviations, although a sentence may well
    # end with it, such as "no" or "me".
    words: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 0 < 2 * self.min_characters <= self.max_characters:
            raise ValueError(
                f"{self.language}: max_characters is {self.max_characters}; "
                f"expected twice min_characters, {self.min_characters}, or more"
            )

    @cached_property
    def ends_with_word(self) -> regex.Pattern:
        """What finds one of the words at the end of a sentence."""
        # Without words (?!), which is found nowhere.
        words = "|".join(map(regex.escape, self.words)) or "(?!)"
        return regex.compile(
            rf"\b(?i:{words})\.[”»’\"]?\s+(?=[—–\"“«‘(\s]*\p{{Lu}})"
        )


def is_closed(text: str) -> bool:
    """Tell whether text ends as a sentence does, quotes and brackets aside.

    Example
    -------
    >>> is_closed("« Oui ! »"), is_closed("and then the")
    (True, False)
    """
    return text.rstrip(CLOSING).endswith(tuple(TERMINATORS))


def rules_of(language: str, rules: Sequence[LanguageRules]) -> LanguageRules:
    """Find the rules of a language; ValueError if there are none for it."""
    for one in rules:
        if one.language == language:
            return one
    raise ValueError(
        f"no segmentation rules for the language '{language}'; found "
        f"{', '.join(one.language for one in rules) or 'none'}. Include "
        f"hparams/languages/{language}.yaml under 'rules', or write such a file"
    )


def segment(text: str, rules: LanguageRules) -> list[str]:
    """Cut clean text into sentences: together they are it, but for spaces.

    An empty line ends a paragraph, and so a sentence.

    Example
    -------
    >>> rules = LanguageRules("en", ["Latin"], 15, 200)
    >>> segment('"Wait!" said Mr. Fox. He ran to the big tree.', rules)
    ['"Wait!" said Mr. Fox.', 'He ran to the big tree.']
    """
    sentences: list[str] = []
    for paragraph in text.split("\n\n"):
        pieces = map(str.strip, _pieces(paragraph, rules.language))
        cut = (one for piece in pieces for one in _split_at_words(piece, rules))
        # Cuts that no sentence has are undone.
        sentences += _joined(cut, _goes_on, rules)
    return _cut(_join_short(sentences, rules), rules)


def _pieces(text: str, language: str) -> list[str]:
    # The library pairs straight quotes as they come: one that is missing would
    # turn all others of the paragraph about. So it is shown curly ones, which
    # say what they are; each is one character, too.
    curly = _OPENING_QUOTE.sub("“", text).replace('"', "”")
    pieces, start = [], 0
    for piece in sentencex.segment(language, curly):
        pieces.append(text[start : start + len(piece)])
        start += len(piece)
    return pieces


def _split_at_words(sentence: str, rules: LanguageRules) -> Iterator[str]:
    start = 0
    for found in rules.ends_with_word.finditer(sentence):
        before = sentence[start : found.end()].rstrip()
        if not _is_open(before):
            yield before
            start = found.end()
    if sentence:
        yield sentence[start:]


def _is_open(text: str) -> bool:
    """Tell whether a quote is not closed."""
    return (
        text.count('"') % 2 == 1
        or text.count("“") > text.count("”")
        or text.count("«") > text.count("»")
    )


def _goes_on(before: str, after: str, rules: LanguageRules) -> bool:
    """Tell whether two pieces are one sentence."""
    return (
        # "« Oui ! » dit-il": the library ends a sentence at the mark.
        after.lstrip("—–- ")[:1].islower()
        # A closing quote or a mark alone.
        or not any(map(str.isalnum, after))
        or before[before.rfind(" ") + 1 :] in rules.abbreviations
    )


def _joined(
    sentences: Iterable[str],
    belong: Callable[[str, str, LanguageRules], bool],
    rules: LanguageRules,
) -> list[str]:
    """Join a sentence to the one before where they belong together."""
    joined: list[str] = []
    for sentence in sentences:
        if joined and belong(joined[-1], sentence, rules):
            joined[-1] += " " + sentence
        else:
            joined.append(sentence)
    return joined


def _join_short(sentences: list[str], rules: LanguageRules) -> list[str]:
    joined = _joined(sentences, _fit, rules)
    # The last one has no next: it goes to the one before.
    if len(joined) > 1 and _fit(joined[-1], joined[-2], rules):
        joined[-2:] = [" ".join(joined[-2:])]
    return joined


def _fit(short: str, other: str, rules: LanguageRules) -> bool:
    return (
        len(short) < rules.min_characters
        and len(short) + len(other) < rules.max_characters
    )


def _cut(sentences: list[str], rules: LanguageRules) -> list[str]:
    parts = []
    for sentence in sentences:
        while len(sentence) > rules.max_characters:
            place = _pause(sentence, rules)
            parts.append(sentence[:place].rstrip())
            sentence = sentence[place:].lstrip()
        parts.append(sentence)
    return parts


def _pause(sentence: str, rules: LanguageRules) -> int:
    """Find where to cut; both parts have at least the minimum length."""
    # What is left over is not to be joined again.
    last = min(rules.max_characters, len(sentence) - rules.min_characters)
    for pattern in _PAUSES:
        # From the middle on, so that there are no more parts than need be.
        found = re.compile(pattern).finditer(sentence, 0, last)
        ends = [one.end() for one in found]
        if ends and ends[-1] >= rules.max_characters // 2:
            return ends[-1]
    return last
