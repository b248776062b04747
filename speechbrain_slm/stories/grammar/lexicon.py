"""The story grammar's words: characters and things, with their languages."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from speechbrain_slm.stories.grammar.languages import language_rules


class GrammarError(ValueError):
    """Data that is not a story grammar, or a request it cannot serve."""


def need(condition: bool, where, found: str, expected: str) -> None:
    """Raises a `GrammarError` that says what was found where.

    Arguments
    ---------
    where : str | Path
        The file, plot and sentence, or the argument.

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


def read_yaml(path: Path):
    """Reads a file of the grammar.

    Returns
    -------
    data : object

    Raises
    ------
    GrammarError
        If it is not YAML, or gives a key twice.
    """
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

    def word(self, name: str, language: str):
        """The word for a character or a thing.

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

    def first_characters(self, number, least: int):
        """Keeps the first characters.

        Arguments
        ---------
        number : int | None
            How many, or all.
        least : How many a plot needs.

        Returns
        -------
        lexicon : Lexicon

        Raises
        ------
        GrammarError
            If there are fewer, or a plot needs more.
        """
        need(
            number is None or least <= number <= len(self.characters),
            "the grammar",
            f"characters={number}",
            f"{least} to {len(self.characters)}, or None for all",
        )
        names = list(self.characters)[:number]
        return Lexicon(
            {name: self.characters[name] for name in names}, self.things
        )


def read_lexicon(path: Path):
    """Reads the lexicon.

    Arguments
    ---------
    path : ``lexicon.yaml``.

    Returns
    -------
    lexicon : Lexicon

    Raises
    ------
    GrammarError
        If an entry is not one.
    """
    data = read_yaml(path)
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
