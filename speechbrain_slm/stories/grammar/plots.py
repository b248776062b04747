"""Reads a story grammar (see ``mini/README.md``) and checks all of it."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from speechbrain_slm.stories.grammar.languages import (
    TemplateError,
    Word,
    language_rules,
)
from speechbrain_slm.stories.grammar.templates import Template

COURSES = ("A", "B")
PARTS = ("opening", *COURSES)
PLOT_KEYS = ("plot", "characters", "things", *PARTS)
# A text a language; the wordings of a sentence; the sentences of a part.
Wording = dict[str, Template]
Part = list[list[Wording]]


class GrammarError(ValueError):
    """Data that is not a story grammar, or a request it cannot serve."""


def need(condition: object, where: object, found: str, expected: str) -> None:
    """Raise a `GrammarError` unless it holds: what was found where."""
    if not condition:
        raise GrammarError(f"{where}: {found}; expected {expected}")


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key given twice: yaml itself would lose the first of them."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        where = f"line {node.start_mark.line + 1}"
        for key in keys:
            found = f"the key '{key}' stands twice"
            need(keys.count(key) == 1, where, found, "it once, or a dash")
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except GrammarError as error:
        raise GrammarError(f"{path}: {error}") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise GrammarError(
            f"{path}: cannot be read: {error}; expected YAML in UTF-8, every "
            "sentence in double quotes (it may begin with a brace)"
        ) from error


@dataclass(frozen=True)
class Lexicon:
    """Characters and things by name, in the order of the file."""

    characters: dict[str, dict]
    things: dict[str, dict]

    def words(self, names: dict[str, str], language: str) -> dict[str, Word]:
        """Return slot -> word for slot -> name of a character or thing.

        `TemplateError`: the language's rules cannot read it; `KeyError`: the
        thing has no word in this language.
        """
        rules, words = language_rules(language), {}
        for slot, name in names.items():
            if slot == "thing":
                words[slot] = rules.noun(self.things[name][language])
            else:
                # "Anna" is Anna in every language, unless the entry says more.
                entry = self.characters[name]
                spelling = entry.get(language, name)
                words[slot] = rules.word(spelling, entry["gender"])
        return words


def read_lexicon(path: Path) -> Lexicon:
    """Read ``lexicon.yaml``; a `GrammarError` names an entry that is none."""
    data = _read_yaml(path)
    expected = "the keys 'characters' and 'things', each with entries by name"
    good = isinstance(data, dict) and set(data) == {"characters", "things"}
    good = good and all(isinstance(part, dict) for part in data.values())
    need(good, path, "not a lexicon", expected)
    for name, entry in data["characters"].items():
        good = isinstance(entry, dict) and entry.get("gender") in ("m", "f")
        where, expected = f"{path}: character '{name}'", "{gender: m}, or f"
        need(good, where, f"{entry}", expected)
    for name, entry in data["things"].items():
        good = isinstance(entry, dict) and isinstance(entry.get("tags"), list)
        where, expected = f"{path}: thing '{name}'", "{tags: [...], en: a ball}"
        need(good, where, f"{entry}", expected)
    return Lexicon(**data)


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
        entries = _read_yaml(path)
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
    good = names and len(set(names) & set(by_name)) == len(names)
    if isinstance(plots, int):
        good = good and plots == len(names)
    expected = f"1 to {len(by_name)}, None for all, or a list of different "
    expected += f"names out of {', '.join(by_name)}"
    need(good, "the grammar", f"plots={plots}", expected)
    found, expected = f"things={things}", "at least 1, or None for all"
    need(things is None or things > 0, "the grammar", found, expected)
    chosen = [by_name[name] for name in names]
    return [replace(plot, things=plot.things[:things]) for plot in chosen]


def _read_plot(entry: Any, where: str, lexicon: Lexicon) -> Plot:
    keys = list(entry) if isinstance(entry, dict) else [str(entry)]
    good = {*keys, "characters"} == set(PLOT_KEYS)
    good = good and isinstance(entry["plot"], str)
    expected = f"{', '.join(PLOT_KEYS)} ('characters' may be left out)"
    need(good, where, f"keys {', '.join(map(str, keys))}", expected)
    where = f"{where} '{entry['plot']}'"
    count, tags = entry.get("characters", 1), entry["things"]
    need(count in (1, 2), where, f"characters: {count}", "1, 2")
    entries = lexicon.things.items()
    known = {tag for _, thing in entries for tag in thing["tags"]}
    good = isinstance(tags, list) and bool(tags) and known.issuperset(tags)
    expected = f"a list of tags out of {', '.join(sorted(known))}"
    need(good, f"{where}, things", f"{tags}", expected)
    # A thing needs one of the tags: {toy, food} takes a ball and an apple.
    things = tuple(t for t, thing in entries if set(tags) & set(thing["tags"]))
    slots = [*["c1", "c2"][:count], "thing"]
    languages: tuple[str, ...] = ()
    parts: dict[str, Part] = {part: [] for part in PARTS}
    for part, read in parts.items():
        place = f"{where}, {part}"
        for here, texts in _listed(entry[part], place, "sentence"):
            wordings = _read_sentence(texts, here, slots, languages)
            languages = languages or tuple(wordings[0])
            _try_out(wordings, here, things, lexicon)
            read.append(wordings)
    _check_names(where, parts, slots)
    courses = {one: parts["opening"] + parts[one] for one in COURSES}
    return Plot(entry["plot"], where, count, things, languages, courses)


def _listed(values: Any, where: str, what: str) -> Iterator[tuple[str, Any]]:
    """Yield what is in a list, with its place; what is no list is an error."""
    is_list = isinstance(values, list) and values
    need(is_list, where, f"{values}", f"a list of {what}s")
    for number, value in enumerate(values, start=1):
        yield f"{where}, {what} {number}", value


def _read_sentence(
    values: Any, where: str, slots: list[str], languages: tuple[str, ...]
) -> list[Wording]:
    """Read its wordings; `languages` is empty for a plot's first sentence."""
    wordings: list[Wording] = []
    for here, texts in _listed(values, where, "wording"):
        good = isinstance(texts, dict) and bool(texts)
        good = good and all(t and isinstance(t, str) for t in texts.values())
        expected = "a text in double quotes for each language"
        need(good, here, f"{texts}", expected)
        languages = languages or tuple(texts)
        same, found = set(texts) == set(languages), ", ".join(texts)
        expected = f"{', '.join(languages)}, as in the plot's first sentence"
        need(same, here, f"languages {found}", expected)
        try:
            read = {key: Template(t, key, slots) for key, t in texts.items()}
        except TemplateError as error:
            raise GrammarError(f"{here}: {error}") from None
        twice = [k for w in wordings for k in w if w[k].text == texts[k]]
        found = f"the same text twice ({', '.join(twice)})"
        need(not twice, here, found, "wordings that differ")
        wordings.append(read)
    return wordings


def _try_out(
    wordings: list[Wording],
    where: str,
    things: tuple[str, ...],
    lexicon: Lexicon,
) -> None:
    """Fill a sentence with each thing, that no error waits for a rare one."""
    # Two characters do for all: each has a gender and a word in any language.
    names = dict(zip(("c1", "c2"), lexicon.characters, strict=False))
    for wording, thing in product(wordings, things):
        for language, template in wording.items():
            try:
                words = lexicon.words({**names, "thing": thing}, language)
                template.render(words)
            except TemplateError as error:
                raise GrammarError(f"{where} ({language}): {error}") from None
            except KeyError:
                found = f"the thing '{thing}' has no word in '{language}'"
                need(False, where, found, "one, or tags that leave it out")


def _check_names(where: str, parts: dict[str, Part], slots: list[str]) -> None:
    """A story must tell who and what it is about, and so must an ending."""
    for slot in slots:
        told = any(
            all(slot in t.names() for w in wordings for t in w.values())
            for wordings in parts["opening"]
        )
        found = f"no sentence names {{{slot}}} in all its wordings"
        expected = "one that does, to tell who and what a story is about"
        need(told, f"{where}, opening", found, expected)
    one, other = (parts[course][-1] for course in COURSES)
    here = f"{where}, last sentences of A and B"
    found = f"{len(one)} and {len(other)} wordings"
    expected = "as many in both, for each is the other's wrong ending"
    need(len(one) == len(other), here, found, expected)
    for template in (t for wording in one + other for t in wording.values()):
        found = f"'{template.text}' names neither a character nor the thing"
        expected = f"one of {', '.join(slots)}, to tell it from other stories'"
        need(template.names(), here, found, expected)
