"""Reads a story grammar's data (see ``mini/README.md``) and checks it."""

from dataclasses import dataclass, field

import yaml

from speechbrain_slm.corpus.templates import (
    Template,
    TemplateError,
    language_rules,
)

COURSES = ("A", "B")
PLOT_KEYS = ("plot", "characters", "things", "opening", *COURSES)


class GrammarError(ValueError):
    """Data that is not a story grammar, or a request it cannot serve."""


def need(condition, where, found, expected):
    """Raises a `GrammarError` that says what was found where.

    Arguments
    ---------
    condition : bool
        What must hold.
    where : str | Path
        The file, plot and sentence, or the argument.
    found : str
        What stands there.
    expected : str
        What should.

    Raises
    ------
    GrammarError
        If the condition does not hold.
    """
    if not condition:
        raise GrammarError(f"{where}: {found}; expected {expected}")


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key given twice: the first of the two would be lost."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        need(
            not twice,
            f"line {node.start_mark.line + 1}",
            f"the key '{twice and twice[0]}' stands twice",
            "it once (is a dash missing?)",
        )
        return super().construct_mapping(node, deep)


def _read_yaml(path):
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except GrammarError as error:
        raise GrammarError(f"{path}: {error}") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise GrammarError(
            f"{path}: cannot be read: {error}; expected YAML in UTF-8, every "
            f"sentence in double quotes (it may begin with a brace)"
        ) from error


@dataclass(frozen=True)
class Lexicon:
    """Characters and things by name; `word` says what fills a slot."""

    characters: dict[str, dict]
    things: dict[str, dict]
    _words: dict = field(default_factory=dict)

    def word(self, name, language):
        """The word for a character or a thing.

        Arguments
        ---------
        name : str
            The entry's name.
        language : str
            The language's key.

        Returns
        -------
        word : Word

        Raises
        ------
        TemplateError
            If the language's rules cannot read the entry.
        KeyError
            If a thing has no word in this language.
        """
        key = (name, language)
        if key not in self._words:
            rules = language_rules(language)
            if name in self.characters:
                entry = self.characters[name]
                spelling = entry.get(language, name)
                self._words[key] = rules.word(spelling, entry["gender"])
            else:
                self._words[key] = rules.noun(self.things[name][language])
        return self._words[key]


def read_lexicon(path):
    """Reads the lexicon.

    Arguments
    ---------
    path : Path
        ``lexicon.yaml``.

    Returns
    -------
    lexicon : Lexicon

    Raises
    ------
    GrammarError
        If an entry is not one.
    """
    data = _read_yaml(path)
    need(
        isinstance(data, dict)
        and set(data) == {"characters", "things"}
        and all(isinstance(part, dict) for part in data.values()),
        path,
        "not a lexicon",
        "the keys 'characters' and 'things', each with entries by name",
    )
    for name, entry in data["characters"].items():
        need(
            isinstance(entry, dict) and entry.get("gender") in ("m", "f"),
            f"{path}: character '{name}'",
            f"{entry}",
            "{gender: m} or {gender: f}",
        )
    for name, entry in data["things"].items():
        need(
            isinstance(entry, dict) and isinstance(entry.get("tags"), list),
            f"{path}: thing '{name}'",
            f"{entry}",
            "{tags: [...], <language>: <noun>, ...}",
        )
        need(
            name not in data["characters"],
            f"{path}: thing '{name}'",
            "a character has the same name",
            "another name",
        )
    return Lexicon(data["characters"], data["things"])


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

    def num_wordings(self, course):
        """How many wordings each sentence of a course has.

        Arguments
        ---------
        course : str
            "A" or "B".

        Returns
        -------
        num_wordings : list[int]
        """
        return [len(wordings) for wordings in self.courses[course]]


def read_plots(folder, lexicon):
    """Reads all plots, files in the order of their names.

    Arguments
    ---------
    folder : Path
        The folder of ``*.yaml`` files, each with a list of plots.
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
        entries = _read_yaml(path)
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
    slots = ["c1", "c2"][:num_characters] + ["thing"]
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
