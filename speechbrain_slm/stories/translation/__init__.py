"""Translation of stories: the protocol, its checks, one module a back-end.

Sentence ``i`` of a story must stay the translation of sentence ``i``. So a
back-end answers a story with one text a sentence, or with a `TranslationError`
that says why it cannot; a story that is answered otherwise is left out whole.
"""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

# Characters by which short sentences may differ in length, whatever the ratio.
_ALLOWANCE = 20


class TranslationError(ValueError):
    """A story that cannot be translated, and why; a sentence counts from 0."""

    def __init__(self, reason: str, sentence: int | None = None) -> None:
        where = "" if sentence is None else f"sentence {sentence} "
        super().__init__(f"{where}{reason}")
        self.reason, self.sentence = reason, sentence


class Story(NamedTuple):
    """A story in one language."""

    story_id: str
    sentences: list[str]


class Translator(ABC):
    """What the driver asks of a back-end."""

    @property
    @abstractmethod
    def identity(self) -> dict:
        """Whatever changes the translations: JSON types."""

    @abstractmethod
    def translate(
        self, shards: Iterable[list[Story]], check: Checks
    ) -> Iterator[list]:
        """Yield, shard by shard, for each story its sentences or an error.

        They depend on the shard alone, so that a run that was killed ends as
        one that was not. A back-end that can mend a bad translation asks
        `check`, against which all are held afterwards.

        Arguments
        ---------
        shards : Read ahead by a shard or so, and not held.
        """

    def to(self, device: torch.device | str) -> Translator:
        """Compute on a device where there is something to; return itself."""
        return self

    def usage(self) -> dict:
        """Return what the work has cost up to now: JSON types, or nothing."""
        return {}


@dataclass(frozen=True)
class Checks:
    r"""What no translation looks like.

    Example
    -------
    >>> check = Checks()
    >>> check(["Look!", "It is a cat."], ["Regarde !", "C'est\n un chat."])
    ['Regarde !', "C'est un chat."]
    >>> check(["Look!", "It is a cat."], ["Regarde ! C'est un chat."])
    Traceback (most recent call last):
    ...
    speechbrain_slm.stories.translation.TranslationError: 1 sentence(s) came
    back for 2
    """

    # A sentence of at least so many letters that comes back unchanged is taken
    # for untranslated. Shorter ones may be names: "Tom and Lily!".
    copy_letters: int = 20
    # A sentence and its translation may differ in length by this factor, and
    # 20 characters: what is beyond holds a neighbour's text, or lacks its own.
    length_ratio: float = 4.0

    def __call__(
        self, sentences: list[str], translations: list[str], first: int = 0
    ) -> list[str]:
        """Return the translations with plain spaces.

        `TranslationError` names the bad one, counted from `first`.
        """
        if len(translations) != len(sentences):
            told = f"{len(translations)} sentence(s) came back"
            raise TranslationError(f"{told} for {len(sentences)}")
        numbers = itertools.count(first)
        return list(map(self._checked, sentences, translations, numbers))

    def _checked(self, source: str, text: object, number: int) -> str:
        # Half of a surrogate pair: JSON can say it, but no file can hold it.
        if not isinstance(text, str) or re.search("[\ud800-\udfff]", text):
            raise TranslationError("is no text", number)
        text = " ".join(text.replace("\0", " ").split())
        if not re.search(r"\w", text):
            raise TranslationError("came back empty", number)
        letters = _letters(source)
        if len(letters) >= self.copy_letters and letters == _letters(text):
            raise TranslationError("is a copy of the source", number)
        short, long = sorted((len(source), len(text)))
        if long > self.length_ratio * short + _ALLOWANCE:
            raise TranslationError(
                f"has {len(text)} characters for {len(source)}; text of "
                "another sentence is in it, or its own is missing",
                number,
            )
        return text


def _letters(text: str) -> str:
    return "".join(re.findall(r"\w", text.casefold()))
