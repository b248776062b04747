"""What a language does to the words beside a slot: the rules, by language.

A language that is not in ``LANGUAGES`` gets plain substitution. To give it
rules, add a class with the methods of `Language` and an entry there.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple


class TemplateError(ValueError):
    """A sentence or a noun that the template language cannot read."""


class Word(NamedTuple):
    """What a slot is filled with: its text, and how its neighbours see it."""

    text: str
    gender: str | None = None
    vowel: bool = False


def _begins_with(letters: str, text: str) -> bool:
    # Accents aside: "école" begins with an e.
    return unicodedata.normalize("NFD", text.lower())[:1] in tuple(letters)


def _noun(text: str, articles: tuple[str, str], examples: str) -> list[str]:
    """Cut "a ball" into its article, one of two, and its noun."""
    article, _, noun = text.partition(" ")
    if article not in articles or not noun:
        raise TemplateError(f"'{text}': expected {examples}, with its article")
    return [article, noun]


class Language:
    """Plain substitution: the rules of a language that has none."""

    # Slots that are short for a choice by the first character's gender.
    pronouns: Mapping[str, tuple[str, str]] = MappingProxyType({})

    def noun(self, text: str) -> Word:
        """Read a thing's entry in the lexicon."""
        return self.word(text)

    def word(self, text: str, gender: str | None = None) -> Word:
        """Make the word that a name, a choice or a noun puts into a slot."""
        return Word(text, gender)

    def adjust(self, before: str, word: Word) -> str:
        """Make the text in front of a slot agree with the slot's word."""
        return before


class English(Language):
    """The indefinite article: a lexicon entry is "a ball" or "an apple"."""

    pronouns = MappingProxyType(
        {
            **{"he": ("he", "she"), "him": ("him", "her")},
            **{"his": ("his", "her"), "himself": ("himself", "herself")},
        }
    )

    def noun(self, text: str) -> Word:
        """Read "a ball" or "an apple"."""
        example = "an English noun such as 'a ball' or 'an apple'"
        article, noun = _noun(text, ("a", "an"), example)
        # Not by the spelling: "an hour", "a unicorn".
        return Word(noun, None, article == "an")

    def word(self, text: str, gender: str | None = None) -> Word:
        """Go by the spelling of the first letter."""
        return Word(text, gender, _begins_with("aeiou", text))

    def adjust(self, before: str, word: Word) -> str:
        """Choose between "a" and "an"."""
        article = "an " if word.vowel else "a "
        return re.sub(r"\b(an?) $", _in_case_of(article), before, flags=re.I)


# Before a masculine, a feminine, a masculine with vowel, a feminine with vowel.
_FRENCH_FORMS = {
    "le |la ": ("le ", "la ", "l'", "l'"),
    "un |une ": ("un ", "une ", "un ", "une "),
    "ce |cette ": ("ce ", "cette ", "cet ", "cette "),
    "mon |ma ": ("mon ", "ma ", "mon ", "mon "),
    "ton |ta ": ("ton ", "ta ", "ton ", "ton "),
    "son |sa ": ("son ", "sa ", "son ", "son "),
    "du |de le |de la ": ("du ", "de la ", "de l'", "de l'"),
    "au |à le |à la ": ("au ", "à la ", "à l'", "à l'"),
    **{
        f"{word}e ": (f"{word}e ", f"{word}e ", f"{word}'", f"{word}'")
        for word in ("d", "qu", "lorsqu", "puisqu", "j", "m", "t", "s", "n")
    },
    "si ": ("si ", "si ", "si ", "si "),  # but "s'il"
}
_FRENCH_FORMS = {
    written: forms
    for many, forms in _FRENCH_FORMS.items()
    for written in many.split("|")
}
# The longest first: of "de la " the whole is found, not "la " alone.
_FRENCH_BEFORE_SLOT = re.compile(
    rf"\b({'|'.join(sorted(_FRENCH_FORMS, key=len, reverse=True))})$", re.I
)


class French(Language):
    """Gender, contraction and elision of the word in front of a slot.

    A lexicon entry is "un ballon" or "une poupée"; a star in front of a noun
    or a name marks an aspirated h ("un *hérisson"), which refuses elision.
    """

    pronouns = MappingProxyType({"il": ("il", "elle")})

    def noun(self, text: str) -> Word:
        """Read "un ballon" or "une poupée"."""
        example = "a French noun such as 'un ballon' or 'une poupée'"
        article, noun = _noun(text, ("un", "une"), example)
        return self.word(noun, "m" if article == "un" else "f")

    def word(self, text: str, gender: str | None = None) -> Word:
        """Go by the spelling of the first letter; an h is mute."""
        if text.startswith("*"):
            return Word(text[1:], gender)
        return Word(text, gender, _begins_with("aeiouhœæ", text))

    def adjust(self, before: str, word: Word) -> str:
        """Give the word before the slot the form that the slot asks for."""
        found = _FRENCH_BEFORE_SLOT.search(before)
        if found is None or not word.text:
            return before
        forms = _FRENCH_FORMS[found[1].lower()]
        new = forms[(word.gender == "f") + 2 * word.vowel]
        if new == "si " and word.text in ("il", "ils"):  # not "si elle"
            new = "s'"
        return before[: found.start()] + _in_case_of(new)(found)


def _in_case_of(new: str) -> Callable[[re.Match], str]:
    """Replace by what begins with a capital where the old text did."""
    return lambda old: new.capitalize() if old[1][0].isupper() else new


LANGUAGES = {"en": English(), "fr": French()}


def language_rules(language: str) -> Language:
    """Return the rules of a language: plain substitution by default."""
    return LANGUAGES.get(language, Language())
