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
    """Read all plots, files in the order of their names.

    Arguments
    ---------
    folder : With ``*.yaml`` files, each a list of plots.

    Raises
    ------
    GrammarError
        With the file, the plot, the sentence, what stands there and what was
        expected.
    """
    plots: dict[str, Plot] = {}
    for path in sorted(folder.glob("*.yaml")):
        entries = read_yaml(path)
        need(isinstance(entries, list), path, "no plots", "a list of plots")
        for number, entry in enumerate(entries, start=1):
            plot = _read_plot(entry, f"{path}: plot {number}", lexicon)
            taken = plots.setdefault(plot.name, plot)
            need(
                taken is plot,
                plot.where,
                f"the name is taken by {taken.where}",
                "another name",
            )
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
    need(
        things is None or things > 0,
        "the grammar",
        f"things={things}",
        "at least 1, or None for all",
    )
    return [
        replace(by_name[name], things=by_name[name].things[:things])
        for name in names
    ]


def _read_plot(entry: Any, where: str, lexicon: Lexicon) -> Plot:
    need(
        isinstance(entry, dict)
        and set(entry) | {"characters"} == set(PLOT_KEYS)
        and isinstance(entry["plot"], str),
        where,
        f"keys {', '.join(entry) if isinstance(entry, dict) else entry}",
        f"{', '.join(PLOT_KEYS)} ('characters' may be left out)",
    )
    where = f"{where} '{entry['plot']}'"
    count = entry.get("characters", 1)
    need(count in (1, 2), where, f"characters: {count}", "1, 2")
    tags = entry["things"]
    known = {tag for thing in lexicon.things.values() for tag in thing["tags"]}
    need(
        isinstance(tags, list) and tags and known.issuperset(tags),
        f"{where}, things",
        f"{tags}",
        f"a list of tags out of {', '.join(sorted(known))}",
    )
    # A thing needs one of the tags: {toy, food} takes a ball and an apple.
    slots = [*["c1", "c2"][:count], "thing"]
    parts = {
        part: _read_part(entry[part], f"{where}, {part}", slots)
        for part in PARTS
    }
    plot = Plot(
        entry["plot"],
        where,
        count,
        tuple(
            name
            for name, thing in lexicon.things.items()
            if not set(tags).isdisjoint(thing["tags"])
        ),
        tuple(parts["opening"][0][0]),
        {course: parts["opening"] + parts[course] for course in COURSES},
    )
    _check_languages(plot, parts)
    _try_out(plot, parts, lexicon)
    _check_names(plot, parts, slots)
    return plot


def _read_part(sentences: Any, where: str, slots: list[str]) -> Part:
    need(
        isinstance(sentences, list) and sentences,
        where,
        f"{sentences}",
        "a list of sentences, each a list of wordings",
    )
    return [
        _read_sentence(wordings, f"{where}, sentence {number}", slots)
        for number, wordings in enumerate(sentences, start=1)
    ]


def _read_sentence(wordings: Any, where: str, slots: list[str]) -> list:
    need(
        isinstance(wordings, list) and wordings,
        where,
        f"{wordings}",
        "a list of wordings, each with a text a language",
    )
    read = []
    for number, texts in enumerate(wordings, start=1):
        here = f"{where}, wording {number}"
        need(
            isinstance(texts, dict)
            and texts
            and all(isinstance(text, str) and text for text in texts.values()),
            here,
            f"{texts}",
            "a text in double quotes for each language",
        )
        try:
            read.append(
                {key: Template(text, key, slots) for key, text in texts.items()}
            )
        except TemplateError as error:
            raise GrammarError(f"{here}: {error}") from None
    return read


def _sentences(
    plot: Plot, parts: dict[str, Part]
) -> Iterator[tuple[str, list[Wording]]]:
    for part, sentences in parts.items():
        for number, wordings in enumerate(sentences, start=1):
            yield f"{plot.where}, {part}, sentence {number}", wordings


def _check_languages(plot: Plot, parts: dict[str, Part]) -> None:
    for where, wordings in _sentences(plot, parts):
        for number, wording in enumerate(wordings, start=1):
            need(
                set(wording) == set(plot.languages),
                f"{where}, wording {number}",
                f"languages {', '.join(wording)}",
                f"{', '.join(plot.languages)}, as in the plot's first sentence",
            )
        for language in plot.languages:
            texts = [wording[language].text for wording in wordings]
            need(
                len(set(texts)) == len(texts),
                f"{where} ({language})",
                f"the same text twice: {texts}",
                "wordings that differ",
            )


def _try_out(plot: Plot, parts: dict[str, Part], lexicon: Lexicon) -> None:
    """Fill each sentence with each thing, that no error waits for a rare one.

    Two characters do for all: names have a gender and a word in any language.
    """
    cast = dict(zip(("c1", "c2"), lexicon.characters, strict=False))
    for where, wordings in _sentences(plot, parts):
        for wording, thing in product(wordings, plot.things):
            for language, template in wording.items():
                try:
                    names = {**cast, "thing": thing}
                    template.render(lexicon.words(names, language))
                except TemplateError as error:
                    where = f"{where} ({language})"
                    raise GrammarError(f"{where}: {error}") from None
                except KeyError:
                    raise GrammarError(
                        f"{where}: the thing '{thing}' has no word in "
                        f"'{language}'; expected one in the lexicon, or tags "
                        "that leave it out"
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
    endings = [parts[course][-1] for course in COURSES]
    need(
        len(endings[0]) == len(endings[1]),
        f"{plot.where}, last sentences of A and B",
        f"{len(endings[0])} and {len(endings[1])} wordings",
        "as many endings in A as in B, for each is the other's wrong ending",
    )
    for wording in endings[0] + endings[1]:
        for template in wording.values():
            need(
                template.names(),
                f"{plot.where}, last sentence of a course",
                f"'{template.text}' names neither a character nor the thing",
                f"one of {', '.join(slots)}, to tell it from other stories'",
            )
