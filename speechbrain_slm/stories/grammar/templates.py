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

from speechbrain_slm.stories.grammar.languages import (
    TemplateError,
    language_rules,
)


class Template:
    """One sentence in one language, read once and filled many times.

    Arguments
    ---------
    text : The sentence, see the module's description.
    language : The language's key, such as "fr".
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

    def __init__(self, text: str, language: str, slots) -> None:
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
