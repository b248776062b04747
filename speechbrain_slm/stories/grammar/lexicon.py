"""The story grammar's words: characters and things, with their languages."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from speechbrain_slm.stories.grammar.languages import Word, language_rules


class GrammarError(ValueError):
    """Data that is not a story grammar, or a request it cannot serve."""


def need(condition: object, where: object, found: str, expected: str) -> None:
    """Raise a `GrammarError` unless it holds: what was found where."""
    if not condition:
        raise GrammarError(f"{where}: {found}; expected {expected}")


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key given twice: the first of the two would be lost."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, Any]:
        # yaml itself keeps the last one: two wordings would be one.
        keys = [key.value for key, _ in node.value]
        where = f"line {node.start_mark.line + 1}"
        for key in keys:
            found = f"the key '{key}' stands twice"
            need(keys.count(key) == 1, where, found, "it once, or a dash")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Read a file; a `GrammarError` if it is no YAML or has a key twice."""
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
    _words: dict[tuple[str, str], Word] = field(default_factory=dict)

    def word(self, name: str, language: str) -> Word:
        """Return the word for a character or a thing.

        `TemplateError`: the language's rules cannot read it; `KeyError`: a
        thing has no word in this language.
        """
        key = (name, language)
        if key not in self._words:
            rules = language_rules(language)
            if name in self.characters:
                # "Anna" is Anna in every language, unless the entry says more.
                entry = self.characters[name]
                spelling = entry.get(language, name)
                self._words[key] = rules.word(spelling, entry["gender"])
            else:
                self._words[key] = rules.noun(self.things[name][language])
        return self._words[key]

    def words(self, names: dict[str, str], language: str) -> dict[str, Word]:
        """Return slot -> word for slot -> name; see :meth:`word`."""
        return {s: self.word(name, language) for s, name in names.items()}


def read_lexicon(path: Path) -> Lexicon:
    """Read ``lexicon.yaml``; a `GrammarError` names an entry that is none."""
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
        good = isinstance(entry, dict) and entry.get("gender") in ("m", "f")
        where, expected = f"{path}: character '{name}'", "{gender: m}, or f"
        need(good, where, f"{entry}", expected)
    for name, entry in data["things"].items():
        where = f"{path}: thing '{name}'"
        good = isinstance(entry, dict) and isinstance(entry.get("tags"), list)
        need(good, where, f"{entry}", "{tags: [...], <language>: <noun>, ...}")
        free = name not in data["characters"]
        need(free, where, "a character has the same name", "another name")
    return Lexicon(data["characters"], data["things"])
