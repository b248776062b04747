"""What a language does to the words beside a slot: the rules, by language.

A language that is not in ``LANGUAGES`` gets plain substitution. To give it
rules, add a class with the methods of `Language` and an entry there.
"""

import re
import unicodedata
from dataclasses import dataclass
from types import MappingProxyType


class TemplateError(ValueError):
    """A sentence or a noun that the template language cannot read."""


@dataclass(frozen=True)
class Word:
    """What a slot is filled with: its text, and how its neighbours see it."""

    text: str
    gender: str | None = None
    vowel: bool = False


def _begins_with(letters, text):
    """Whether a text's first letter, accents aside, is one of `letters`."""
    return bool(text) and unicodedata.normalize("NFD", text.lower())[0] in (
        letters
    )


class Language:
    """Plain substitution: the rules of a language that has none."""

    pronouns = MappingProxyType({})

    def noun(self, text):
        """Reads a thing's entry in the lexicon."""
        return self.word(text)

    def word(self, text, gender=None):
        """Makes the word that a name, a choice or a noun puts into a slot."""
        return Word(text, gender)

    def adjust(self, before, word):
        """Makes the text in front of a slot agree with the slot's word."""
        return before


class English(Language):
    """The indefinite article: a lexicon entry is "a ball" or "an apple"."""

    pronouns = MappingProxyType(
        {
            "he": ("he", "she"),
            "him": ("him", "her"),
            "his": ("his", "her"),
            "himself": ("himself", "herself"),
        }
    )

    def noun(self, text):
        """Reads "a ball" or "an apple"."""
        article, _, noun = text.partition(" ")
        if article not in ("a", "an") or not noun:
            raise TemplateError(
                f"'{text}': expected an English noun with its article, "
                f"such as 'a ball' or 'an apple'"
            )
        return Word(noun, None, article == "an")

    def word(self, text, gender=None):
        """Goes by the spelling of the first letter."""
        return Word(text, gender, _begins_with("aeiou", text))

    def adjust(self, before, word):
        """Chooses between "a" and "an"."""
        article = "an " if word.vowel else "a "
        return re.sub(r"\b(an?) $", _in_case_of(article), before, flags=re.I)


# Before a masculine, a feminine, a masculine with vowel, a feminine with vowel.
_FRENCH_FORMS = {
    "le": ("le ", "la ", "l'", "l'"),
    "un": ("un ", "une ", "un ", "une "),
    "ce": ("ce ", "cette ", "cet ", "cette "),
    "mon": ("mon ", "ma ", "mon ", "mon "),
    "ton": ("ton ", "ta ", "ton ", "ton "),
    "son": ("son ", "sa ", "son ", "son "),
    "du": ("du ", "de la ", "de l'", "de l'"),
    "au": ("au ", "à la ", "à l'", "à l'"),
}
_FRENCH_SYNONYMS = {
    "la": "le",
    "une": "un",
    "cette": "ce",
    "ma": "mon",
    "ta": "ton",
    "sa": "son",
    "de le": "du",
    "de la": "du",
    "à le": "au",
    "à la": "au",
}
_FRENCH_ELIDED = ("de", "que", "lorsque", "puisque", "je", "me", "te", "se")
_FRENCH_BEFORE_SLOT = re.compile(
    rf"\b({'|'.join([*_FRENCH_SYNONYMS, *_FRENCH_FORMS, *_FRENCH_ELIDED])}"
    r"|ne|si) $",
    re.IGNORECASE,
)


class French(Language):
    """Gender, contraction and elision of the word in front of a slot.

    A lexicon entry is "un ballon" or "une poupée"; a star in front of a noun
    or a name marks an aspirated h ("un *hérisson"), which refuses elision.
    """

    pronouns = MappingProxyType({"il": ("il", "elle")})

    def noun(self, text):
        """Reads "un ballon" or "une poupée"."""
        article, _, noun = text.partition(" ")
        if article not in ("un", "une") or not noun:
            raise TemplateError(
                f"'{text}': expected a French noun with its article, such as "
                f"'un ballon' or 'une poupée'"
            )
        return self.word(noun, "m" if article == "un" else "f")

    def word(self, text, gender=None):
        """Goes by the spelling of the first letter; an h is mute."""
        if text.startswith("*"):
            return Word(text[1:], gender)
        return Word(text, gender, _begins_with("aeiouhœæ", text))

    def adjust(self, before, word):
        """Gives the word before the slot the form that the slot asks for."""
        found = _FRENCH_BEFORE_SLOT.search(before)
        if found is None or not word.text:
            return before
        old = found[1].lower()
        key = _FRENCH_SYNONYMS.get(old, old)
        if key in _FRENCH_FORMS:
            new = _FRENCH_FORMS[key][(word.gender == "f") + 2 * word.vowel]
        elif key == "si":
            new = "s'" if word.text in ("il", "ils") else "si "
        else:
            new = key[:-1] + "'" if word.vowel else key + " "
        return before[: found.start()] + _in_case_of(new)(found)


def _in_case_of(new):
    """A replacement that begins with a capital where the old text did."""
    return lambda old: new.capitalize() if old[1][0].isupper() else new


LANGUAGES = {"en": English(), "fr": French()}
_PLAIN = Language()


def language_rules(language: str):
    """The rules of a language, plain substitution where there are none.

    Arguments
    ---------
    language : The language's key in the data, such as "en".

    Returns
    -------
    rules : Language
    """
    return LANGUAGES.get(language, _PLAIN)
