"""Reads a story grammar's plots (see ``mini/README.md``) and checks them."""

from dataclasses import dataclass, replace
from pathlib import Path

from speechbrain_slm.stories.grammar.languages import TemplateError
from speechbrain_slm.stories.grammar.lexicon import (
    GrammarError,
    need,
    read_yaml,
)
from speechbrain_slm.stories.grammar.templates import Template

COURSES = ("A", "B")
PLOT_KEYS = ("plot", "characters", "things", "opening", *COURSES)


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
    courses: dict[str, list[list[dict[str, Template]]]]

    def num_wordings(self, course: str):
        """How many wordings each sentence of a course has.

        Returns
        -------
        num_wordings : list[int]
        """
        return [len(wordings) for wordings in self.courses[course]]


def read_plots(folder: Path, lexicon):
    """Reads all plots, files in the order of their names.

    Arguments
    ---------
    folder : The folder of ``*.yaml`` files, each with a list of plots.
    lexicon : Lexicon
        What fills the slots.

    Returns
    -------
    plots : list[Plot]

    Raises
    ------
    GrammarError
        With the file, the plot, the sentence, what stands there and what was
        expected.
    """
    plots = {}
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


def select_plots(known, plots, things):
    """Picks plots by number or by name.

    Arguments
    ---------
    known : list[Plot]
        The plots to pick from.
    plots : int | list[str] | None
        The first so many, those of these names, or all.
    things : int | None
        At most so many things a plot, the first that fit; or all.

    Returns
    -------
    plots : list[Plot]

    Raises
    ------
    GrammarError
        If there are fewer, or a name is unknown or stands twice.
    """
    by_name = {plot.name: plot for plot in known}
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


def _read_plot(entry, where, lexicon):
    need(
        isinstance(entry, dict)
        and set(entry) | {"characters"} == set(PLOT_KEYS)
        and isinstance(entry["plot"], str),
        where,
        f"keys {', '.join(entry) if isinstance(entry, dict) else entry}",
        f"{', '.join(PLOT_KEYS)} ('characters' may be left out)",
    )
    where = f"{where} '{entry['plot']}'"
    num_characters = entry.get("characters", 1)
    need(
        num_characters in (1, 2), where, f"characters: {num_characters}", "1, 2"
    )
    known = {tag for thing in lexicon.things.values() for tag in thing["tags"]}
    tags = entry["things"]
    need(
        isinstance(tags, list) and tags and known.issuperset(tags),
        f"{where}, things",
        f"{tags}",
        f"a list of tags out of {', '.join(sorted(known))}",
    )
    things = [
        name
        for name, thing in lexicon.things.items()
        if not set(tags).isdisjoint(thing["tags"])
    ]
    slots = [*["c1", "c2"][:num_characters], "thing"]
    parts = {}
    for part in ("opening", *COURSES):
        sentences = entry[part]
        need(
            isinstance(sentences, list) and sentences,
            f"{where}, {part}",
            f"{sentences}",
            "a list of sentences, each a list of wordings",
        )
        parts[part] = [
            _read_sentence(
                wordings, f"{where}, {part}, sentence {number}", slots
            )
            for number, wordings in enumerate(sentences, start=1)
        ]
    plot = Plot(
        entry["plot"],
        where,
        num_characters,
        tuple(things),
        tuple(parts["opening"][0][0]),
        {course: parts["opening"] + parts[course] for course in COURSES},
    )
    _check_plot(plot, parts, slots, lexicon)
    return plot


def _read_sentence(wordings, where, slots):
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
                {
                    language: Template(text, language, slots)
                    for language, text in texts.items()
                }
            )
        except TemplateError as error:
            raise GrammarError(f"{here}: {error}") from None
    return read


def _check_plot(plot, parts, slots, lexicon):
    """What no sentence can tell alone: languages, names, genders, endings."""
    cast = list(lexicon.characters)[: plot.num_characters]
    for part, sentences in parts.items():
        for number, wordings in enumerate(sentences, start=1):
            where = f"{plot.where}, {part}, sentence {number}"
            _check_wordings(plot, wordings, where)
            for wording in wordings:
                for language, template in wording.items():
                    for thing in plot.things:
                        _try_out(
                            template, where, language, [*cast, thing], lexicon
                        )
    for slot in slots:
        need(
            any(
                all(
                    slot in text.names()
                    for w in wordings
                    for text in w.values()
                )
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


def _check_wordings(plot, wordings, where):
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


def _try_out(template, where, language, names, lexicon):
    """Fills a sentence once, so that no error waits for a rare story."""
    slots = [f"c{number}" for number in range(1, len(names))] + ["thing"]
    try:
        template.render(
            {
                slot: lexicon.word(name, language)
                for slot, name in zip(slots, names, strict=True)
            }
        )
    except TemplateError as error:
        raise GrammarError(f"{where} ({language}): {error}") from None
    except KeyError:
        raise GrammarError(
            f"{where}: the thing '{names[-1]}' has no word in '{language}'; "
            f"expected one in the lexicon, or tags that leave it out"
        ) from None
