"""Reads a story grammar's plots (see ``mini/README.md``) and checks them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from speechbrain_slm.stories.grammar.languages import TemplateError
from speechbrain_slm.stories.grammar.lexicon import (
    GrammarError,
    Lexicon,
    need,
    read_yaml,
)
from speechbrain_slm.stories.grammar.templates import Template

COURSES = ("A", "B")
PARTS = ("opening", *COURSES)
PLOT_KEYS = ("plot", "characters", "things", *PARTS)
# A text a language; the wordings of a sentence; the sentences of a part.
Wording = dict[str, Template]
Part = list[list[Wording]]


@dataclass(frozen=True)
class Plot:
    """A plot: `courses[course][sentence][wording][language]`.

    A course holds the opening, its own middle sentences and its ending.
    """

    name: str
    where: str
    num_characters: int
    things: tuple[str, ...]
    languages: tuple[str, ...]
    courses: dict[str, Part]

    def num_wordings(self, course: str) -> list[int]:
        """Return how many wordings each sentence of a course has."""
        return [len(wordings) for wordings in self.courses[course]]


def read_plots(folder: Path, lexicon: Lexicon) -> list[Plot]:
    """Read all plots of ``*.yaml`` files, in the order of their names.

    A `GrammarError` says the file, the plot, the sentence, what stands there
    and what was expected.
    """
    plots: dict[str, Plot] = {}
    for path in sorted(folder.glob("*.yaml")):
        entries = read_yaml(path)
        need(isinstance(entries, list), path, "no plots", "a list of plots")
        for number, entry in enumerate(entries, start=1):
            plot = _read_plot(entry, f"{path}: plot {number}", lexicon)
            taken = plots.setdefault(plot.name, plot)
            found = f"the name is taken by {taken.where}"
            need(taken is plot, plot.where, found, "another name")
    need(plots, folder, "no *.yaml files with plots", "at least one plot")
    return list(plots.values())


def select_plots(
    known: list[Plot], plots: int | list[str] | None, things: int | None
) -> list[Plot]:
    """Pick plots; see ``StoryGrammar.load`` for the arguments."""
    by_name = {plot.name: plot for plot in known}
    # [:None] is all of them.
    names = plots if isinstance(plots, list) else list(by_name)[:plots]
    need(
        names
        and len(set(names) & set(by_name)) == len(names)
        and (not isinstance(plots, int) or plots == len(names)),
        "the grammar",
        f"plots={plots}",
        f"1 to {len(by_name)}, None for all, or a list of different names "
        f"out of {', '.join(by_name)}",
    )
    found, expected = f"things={things}", "at least 1, or None for all"
    need(things is None or things > 0, "the grammar", found, expected)
    return [
        replace(by_name[name], things=by_name[name].things[:things])
        for name in names
    ]


def _read_plot(entry: Any, where: str, lexicon: Lexicon) -> Plot:
    keys = list(entry) if isinstance(entry, dict) else [str(entry)]
    need(
        {*keys, "characters"} == set(PLOT_KEYS)
        and isinstance(entry["plot"], str),
        where,
        f"keys {', '.join(map(str, keys))}",
        f"{', '.join(PLOT_KEYS)} ('characters' may be left out)",
    )
    where = f"{where} '{entry['plot']}'"
    count = entry.get("characters", 1)
    need(count in (1, 2), where, f"characters: {count}", "1, 2")
    tags, entries = entry["things"], lexicon.things.items()
    known = {tag for _, thing in entries for tag in thing["tags"]}
    need(
        isinstance(tags, list) and tags and known.issuperset(tags),
        f"{where}, things",
        f"{tags}",
        f"a list of tags out of {', '.join(sorted(known))}",
    )
    # A thing needs one of the tags: {toy, food} takes a ball and an apple.
    things = tuple(
        name
        for name, thing in entries
        if not set(tags).isdisjoint(thing["tags"])
    )
    slots = [*["c1", "c2"][:count], "thing"]
    parts = {
        part: [
            [
                _read_wording(texts, place, slots)
                for place, texts in _listed(wordings, here, "wording")
            ]
            for here, wordings in _listed(
                entry[part], f"{where}, {part}", "sentence"
            )
        ]
        for part in PARTS
    }
    languages = tuple(parts["opening"][0][0])
    courses = {one: parts["opening"] + parts[one] for one in COURSES}
    plot = Plot(entry["plot"], where, count, things, languages, courses)
    for part, sentences in parts.items():
        for number, wordings in enumerate(sentences, start=1):
            here = f"{where}, {part}, sentence {number}"
            _check_languages(plot, here, wordings)
            _try_out(plot, here, wordings, lexicon)
    _check_names(plot, parts, slots)
    return plot


def _listed(values: Any, where: str, what: str) -> Iterator[tuple[str, Any]]:
    """Yield what is in a list, with its place; what is no list is an error."""
    is_list = isinstance(values, list) and values
    need(is_list, where, f"{values}", f"a list of {what}s")
    for number, value in enumerate(values, start=1):
        yield f"{where}, {what} {number}", value


def _read_wording(texts: Any, where: str, slots: list[str]) -> Wording:
    need(
        isinstance(texts, dict)
        and texts
        and all(isinstance(text, str) and text for text in texts.values()),
        where,
        f"{texts}",
        "a text in double quotes for each language",
    )
    try:
        return {key: Template(text, key, slots) for key, text in texts.items()}
    except TemplateError as error:
        raise GrammarError(f"{where}: {error}") from None


def _check_languages(plot: Plot, where: str, wordings: list[Wording]) -> None:
    expected = f"{', '.join(plot.languages)}, as in the plot's first sentence"
    for number, wording in enumerate(wordings, start=1):
        here, found = f"{where}, wording {number}", ", ".join(wording)
        same = set(wording) == set(plot.languages)
        need(same, here, f"languages {found}", expected)
    for language in plot.languages:
        texts = [wording[language].text for wording in wordings]
        here, found = f"{where} ({language})", f"the same text twice: {texts}"
        differ = len(set(texts)) == len(texts)
        need(differ, here, found, "wordings that differ")


def _try_out(
    plot: Plot, where: str, wordings: list[Wording], lexicon: Lexicon
) -> None:
    """Fill a sentence with each thing, that no error waits for a rare one.

    Two characters do for all: names have a gender and a word in any language.
    """
    names = dict(zip(("c1", "c2"), lexicon.characters, strict=False))
    for wording, thing in product(wordings, plot.things):
        names["thing"] = thing
        for language, template in wording.items():
            try:
                template.render(lexicon.words(names, language))
            except TemplateError as error:
                raise GrammarError(f"{where} ({language}): {error}") from None
            except KeyError:
                raise GrammarError(
                    f"{where}: the thing '{thing}' has no word in "
                    f"'{language}'; expected one, or tags that leave it out"
                ) from None


def _check_names(plot: Plot, parts: dict[str, Part], slots: list[str]) -> None:
    """A story must tell who and what it is about, and so must an ending."""
    for slot in slots:
        need(
            any(
                all(slot in t.names() for w in wordings for t in w.values())
                for wordings in parts["opening"]
            ),
            f"{plot.where}, opening",
            f"no sentence names {{{slot}}} in all its wordings",
            "one that does, for a story must tell who and what it is about",
        )
    one, other = (parts[course][-1] for course in COURSES)
    need(
        len(one) == len(other),
        f"{plot.where}, last sentences of A and B",
        f"{len(one)} and {len(other)} wordings",
        "as many in both, for each is the other's wrong ending",
    )
    for template in (t for wording in one + other for t in wording.values()):
        need(
            template.names(),
            f"{plot.where}, last sentence of a course",
            f"'{template.text}' names neither a character nor the thing",
            f"one of {', '.join(slots)}, to tell it from other stories'",
        )
