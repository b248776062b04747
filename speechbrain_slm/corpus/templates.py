"""The template language in which the story grammar's sentences are written.

A sentence is plain text with slots in braces:

``{c1}``, ``{c2}``
    The name of the first (second) character.
``{thing}``
    The noun, without an article. Write the article before it as if the noun
    were masculine and began with a consonant ("a {thing}", "le {thing}",
    "un {thing}", "son {thing}", "du {thing}", "au {thing}", "de {c1}",
    "que {c1}"); the language's rules turn it into "an", "la", "l'", "une",
    "sa", "de la", "à l'", "d'", "qu'" where the noun or name asks for it.
``{c1:content|contente}``, ``{thing:il|elle}``, ``{c1+c2:ils|elles}``
    A choice by gender, masculine first. ``content{c1:|e}`` is the same as
    the first. Several characters are feminine only if all of them are.
``{he}``, ``{him}``, ``{his}``, ``{himself}`` (en), ``{il}`` (fr)
    The first character's pronoun: short for ``{c1:he|she}`` and so on.

The first letter of a sentence becomes a capital. A language that has no entry
in ``LANGUAGES`` gets plain substitution: slots and choices by a character's
gender work, words beside a slot stay as they are.
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


def language_rules(language):
    """The rules of a language, plain substitution where there are none.

    Arguments
    ---------
    language : str
        The language's key in the data, such as "en".

    Returns
    -------
    rules : Language
    """
    return LANGUAGES.get(language, _PLAIN)


class Template:
    """One sentence in one language, read once and filled many times.

    Arguments
    ---------
    text : str
        The sentence, see the module's description.
    language : str
        The language's key, such as "fr".
    slots : Iterable[str]
        The slots that the plot has, such as ``("c1", "thing")``.

    Raises
    ------
    TemplateError
        For a brace without its partner, a slot that the plot does not have,
        or a choice that does not give two forms.

    Example
    -------
    >>> rules = language_rules("fr")
    >>> words = {"c1": rules.word("Anna", "f"), "thing": rules.noun("un ours")}
    >>> said = Template(
    ...     "le {thing} de {c1} est tombé{thing:|e}.", "fr", ["c1", "thing"]
    ... )
    >>> said.render(words)
    "L'ours d'Anna est tombé."
    """

    def __init__(self, text, language, slots):
        self.text = text
        self.rules = language_rules(language)
        # Literal text at even places, the inside of a slot at odd ones.
        pieces = re.split(r"\{([^{}]*)\}", text)
        stray = [p for p in pieces[::2] if "{" in p or "}" in p]
        if stray:
            raise TemplateError(
                f"'{text}': a brace without its partner near "
                f"'{stray[0].strip()}'; expected {{slot}} or {{slot:m|f}}"
            )
        self.literals = pieces[::2]
        self.fillers = [self._read(slot, slots) for slot in pieces[1::2]]

    def _read(self, slot, slots):
        """Reads the inside of a brace: the slots' names, and the forms."""
        if slot in self.rules.pronouns:
            return ("c1",), self.rules.pronouns[slot]
        name, colon, forms = slot.partition(":")
        names = tuple(name.split("+"))
        unknown = [part for part in names if part not in slots]
        if unknown or (len(names) > 1 and not colon):
            known = [*slots, *self.rules.pronouns]
            raise TemplateError(
                f"'{self.text}': unknown slot '{{{slot}}}'; expected one of "
                f"{', '.join(known)}, or a choice such as {{c1:m|f}}"
            )
        if not colon:
            return names, None
        forms = tuple(forms.split("|"))
        if len(forms) != 2:
            raise TemplateError(
                f"'{self.text}': '{{{slot}}}' gives {len(forms)} form(s); "
                f"expected two, {{slot:masculine|feminine}}"
            )
        return names, forms

    def names(self):
        """The slots that stand in the sentence as a name or a noun.

        Returns
        -------
        names : set[str]
        """
        return {slots[0] for slots, forms in self.fillers if forms is None}

    def render(self, words):
        """Fills the slots.

        Arguments
        ---------
        words : dict[str, Word]
            What to put into each slot.

        Returns
        -------
        sentence : str

        Raises
        ------
        TemplateError
            If a choice asks for the gender of a word that has none.
        """
        done = self.literals[0]
        for (slots, forms), literal in zip(
            self.fillers, self.literals[1:], strict=True
        ):
            word = words[slots[0]]
            if forms is not None:
                word = self._choose(slots, forms, words)
            done = self.rules.adjust(done, word) + word.text + literal
        start = re.search(r"\w", done)
        at = start.start() if start else 0
        return done[:at] + done[at : at + 1].upper() + done[at + 1 :]

    def _choose(self, slots, forms, words):
        genders = [words[slot].gender for slot in slots]
        if None in genders:
            raise TemplateError(
                f"'{self.text}': a choice by the gender of "
                f"'{words[slots[0]].text}', which has none in this language"
            )
        gender = "f" if set(genders) == {"f"} else "m"
        return self.rules.word(forms[gender == "f"], gender)
