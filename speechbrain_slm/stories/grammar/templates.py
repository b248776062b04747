"""The template language in which the story grammar's sentences are written.

Plain text with slots in braces, such as ``{c1}``, ``{thing}``, ``{thing:|e}``
and ``{c1+c2:ils|elles}``; ``mini/README.md`` has them all.
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
            known = ", ".join([*slots, *self.rules.pronouns])
            raise TemplateError(
                f"'{self.text}': unknown slot '{{{slot}}}'; expected one of "
                f"{known}, or a choice such as {{c1:m|f}}"
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
