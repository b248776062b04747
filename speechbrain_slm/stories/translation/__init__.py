"""Translation of stories: the protocol, its checks, one module a back-end.

Sentence ``i`` of a story must stay the translation of sentence ``i``. So a
back-end answers a story with one text a sentence, or with a `TranslationError`
that says why it cannot; a story that is answered otherwise is left out whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

# Characters by which short sentences may differ in length, whatever the ratio.
_ALLOWANCE = 20


class TranslationError(ValueError):
    """A story that cannot be translated. The message says why.

    Arguments
    ---------
    reason : Why; of a sentence, what is wrong with it.
    sentence : Which, from 0, as in the tables.
    """

    def __init__(self, reason: str, sentence: int | None = None) -> None:
        where = "" if sentence is None else f"sentence {sentence} "
        super().__init__(f"{where}{reason}")
        self.reason, self.sentence = reason, sentence


class Story(NamedTuple):
    """A story in one language.

    Attributes
    ----------
    story_id : str
        Its name.
    sentences : list of str
        Its text.
    """

    story_id: str
    sentences: list


class Translator(Protocol):
    """What the driver asks of a back-end."""

    #: Whatever changes the translations: JSON types.
    identity: dict

    def to(self, device) -> Translator:
        """Compute on a device, where there is something to compute.

        Returns
        -------
        Itself.
        """

    def translate(
        self, shards: Iterable[list[Story]], check: Checks
    ) -> Iterator[list]:
        """Translate stories, shard by shard.

        Arguments
        ---------
        shards : Read ahead by a shard or so, and not held.
        check
            What a translation is held against afterwards; a back-end that can
            mend a bad one calls it itself.

        Yields
        ------
        For each story of a shard the list of its translated sentences,
        or a `TranslationError`. It depends on the shard alone.
        """

    def usage(self) -> dict:
        """Return what the work has cost up to now, empty where nothing.

        Returns
        -------
        JSON types.
        """


@dataclass(frozen=True)
class Checks:
    r"""What no translation looks like.

    Arguments
    ---------
    copy_letters : int
        A sentence of at least so many letters that comes back unchanged is
        taken for untranslated. Shorter ones may be names: "Tom and Lily!".
    length_ratio : float
        A sentence and its translation may differ in length by this factor,
        and 20 characters: what is beyond holds a neighbour's text, or lacks
        its own.

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

    copy_letters: int = 20
    length_ratio: float = 4.0

    def __call__(
        self, sentences: list[str], translations: list[str], first: int = 0
    ) -> list[str]:
        """Return the translations with plain spaces, or refuse them.

        Arguments
        ---------
        first : The number of the first sentence, for the message.

        Raises
        ------
        TranslationError
            Names the sentence.
        """
        if len(translations) != len(sentences):
            raise TranslationError(
                f"{len(translations)} sentence(s) came back for "
                f"{len(sentences)}"
            )
        clean = [_plain_text(text) for text in translations]
        pairs = zip(sentences, clean, strict=True)
        for number, (source, text) in enumerate(pairs, first):
            fault = self._fault(source, text)
            if fault:
                raise TranslationError(fault, number)
        return clean

    def _fault(self, source, text):
        if text is None:
            return "is no text"
        if not re.search(r"\w", text):
            return "came back empty"
        letters = _letters(source)
        if len(letters) >= self.copy_letters and letters == _letters(text):
            return "is a copy of the source"
        short, long = sorted((len(source), len(text)))
        if long > self.length_ratio * short + _ALLOWANCE:
            return (
                f"has {len(text)} characters for {len(source)}; text of "
                "another sentence is in it, or its own is missing"
            )
        return ""


def _plain_text(text):
    """Join lines; None for what no file could hold."""
    if not isinstance(text, str):
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
    return " ".join(text.replace("\0", " ").split())


def _letters(text):
    return "".join(re.findall(r"\w", text.casefold()))
