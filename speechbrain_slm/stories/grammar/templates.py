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

The first letter of a sentence becomes a capital. A language without rules in
``stories.grammar.languages`` gets plain substitution: slots and choices
by a character's gender work, words beside a slot stay as they are.
"""

import re
from collections.abc import Iterable, Mapping

from speechbrain_slm.stories.grammar.languages import (
    TemplateError,
    Word,
    language_rules,
)


class Template:
    """One sentence in one language, read once and filled many times.

    `TemplateError` is raised for a brace without its partner, a slot that is
    not among those of the plot, or a choice that does not give two forms.

    Example
    -------
    >>> rules = language_rules("fr")
    >>> words = {"c1": rules.word("Anna", "f"), "thing": rules.noun("un ours")}
    >>> text = "le {thing} de {c1} est tombé{thing:|e}."
    >>> Template(text, "fr", ["c1", "thing"]).render(words)
    "L'ours d'Anna est tombé."
    """

    def __init__(self, text: str, language: str, slots: Iterable[str]) -> None:
        self.text = text
        self.rules = language_rules(language)
        # Literal text at even places, the inside of a slot at odd ones.
        pieces = re.split(r"\{([^{}]*)\}", text)
        self.literals = pieces[::2]
        for stray in filter(re.compile("[{}]").search, self.literals):
            raise TemplateError(
                f"'{text}': a brace without its partner near "
                f"'{stray.strip()}'; expected {{slot}} or {{slot:m|f}}"
            )
        self.fillers = [self._read(slot, [*slots]) for slot in pieces[1::2]]

    def _read(
        self, slot: str, slots: list[str]
    ) -> tuple[list[str], tuple[str, ...] | None]:
        """Read the inside of a brace: the slots' names, and the forms."""
        if slot in self.rules.pronouns:
            return ["c1"], self.rules.pronouns[slot]
        name, colon, choice = slot.partition(":")
        names = name.split("+")
        if not set(names) <= set(slots) or (len(names) > 1 and not colon):
            raise TemplateError(
                f"'{self.text}': unknown slot '{{{slot}}}'; expected one of "
                f"{', '.join([*slots, *self.rules.pronouns])}, or a choice "
                "such as {c1:m|f}"
            )
        forms = tuple(choice.split("|"))
        if colon and len(forms) != 2:
            raise TemplateError(
                f"'{self.text}': '{{{slot}}}' gives {len(forms)} form(s); "
                "expected two, {slot:masculine|feminine}"
            )
        return names, forms if colon else None

    def names(self) -> set[str]:
        """Return the slots that stand in it as a name or a noun."""
        return {slots[0] for slots, forms in self.fillers if forms is None}

    def render(self, words: Mapping[str, Word]) -> str:
        """Fill the slots; `TemplateError` where a gender is lacking."""
        done, *literals = self.literals
        for (slots, forms), literal in zip(self.fillers, literals, strict=True):
            word = words[slots[0]]
            if forms is not None:
                genders = {words[slot].gender for slot in slots}
                if None in genders:
                    raise TemplateError(
                        f"'{self.text}': a choice by the gender of "
                        f"'{word.text}', which has none in this language"
                    )
                # "Elles" only where all are; one "il" among them: "ils".
                feminine = genders == {"f"}
                gender = "f" if feminine else "m"
                word = self.rules.word(forms[feminine], gender)
            done = self.rules.adjust(done, word) + word.text + literal
        # The first letter, behind a quote or a dash.
        return re.sub(r"\w", lambda first: first[0].upper(), done, count=1)
